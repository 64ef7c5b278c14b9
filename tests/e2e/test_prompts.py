"""Clicks, words and each region's line as an annotator uses them, in real Label Studio."""

import json

import pytest

from backend.demo import clip
from tests.e2e.browser import LabelingPage, Region, during
from tests.e2e.conftest import Project, opened
from tests.e2e.test_boxes import SAMPLED, box_of, finished, humans, keyframe, overlap, percent, prompt

pytestmark = pytest.mark.slow

GOOD = 0.65


def middle(label: str, frame: int) -> tuple[float, float]:
    x, y, width, height = percent(label, frame)
    return x + width / 2, y + height / 2


def follows(page: LabelingPage, region: Region, label: str) -> None:
    """On all frames but one: on the last one the toy lets the star run together with the square."""
    overlaps = [overlap(page.shown(region["id"], frame), label, frame) for frame in SAMPLED]
    assert sorted(overlaps)[1] >= GOOD, (label, overlaps)


def asked(page: LabelingPage, line: str) -> list[Region]:
    """Ask by words until everything is there; the regions that came. An active class would be given to all of them."""
    page.page.keyboard.press("Escape")
    before = {region["id"] for region in page.regions()}
    page.words(line)
    while "ask again" in page.told:
        page.page.wait_for_timeout(5500)  # what goes on has to be saved by the page first
        page.words(line)
    return [region for region in page.regions() if region["id"] not in before]


def signs(region: Region) -> list[bool]:
    """Of the clicks that made it."""
    return sorted(positive for *_, positive in region["meta"]["points"].values())


def labels(regions: list[Region]) -> list[str]:
    return sorted(region["value"]["labels"][0] for region in regions)


def test_clicks_on_two_frames_make_and_refine_two_objects(page: LabelingPage) -> None:
    page.prepare_clicks()
    page.click_picture(*middle("Circle", 1))
    (circle,) = page.regions()
    page.click_picture(*middle("Star", 1), key="Shift+2")
    star = next(region for region in page.regions() if region["id"] != circle["id"])
    page.shot("8-clicked")
    # A negative click beside the star, and a positive one on a later frame.
    x, y, width, height = percent("Star", 1)
    page.click_picture(x - width / 3, y + height, key="Shift+2", negative=True)
    page.turn_to(59)
    page.click_picture(*middle("Star", 60), key="Shift+2")
    page.click_picture(*middle("Circle", 60), key="Shift+1")
    circle, star = (finished(page, region["id"]) for region in (circle, star))
    assert len(page.regions()) == 2
    assert signs(circle) == [True, True]
    assert signs(star) == [False, True, True]
    follows(page, circle, "Circle")
    follows(page, star, "Star")
    page.go(60)
    page.shot("9-clicks-on-two-frames")


def test_a_negative_click_is_still_one_after_the_page_is_loaded_again(page: LabelingPage) -> None:
    page.prepare_clicks()
    page.click_picture(*middle("Circle", 1))
    x, y, width, height = percent("Circle", 1)
    page.click_picture(x - width / 2, y, negative=True)
    page.page.wait_for_timeout(6000)  # it saves itself every five seconds
    page.reload()
    page.prepare_clicks()
    page.click_picture(x + width / 2, y + height / 4)
    (region,) = page.regions()
    assert signs(region) == [False, True, True]
    follows(page, finished(page, region["id"]), "Circle")
    page.shot("10-clicks-after-reload")


def test_words_find_name_and_track_and_asking_again_never_doubles(page: LabelingPage) -> None:
    (circle,) = asked(page, "circle")
    assert labels([circle]) == ["Circle"]
    follows(page, circle, "Circle")
    assert page.told.startswith("circle: 1")
    page.shot("11-words")
    assert labels(asked(page, "all")) == ["Square", "Star"]
    assert "there already" in page.told
    for region in page.regions():
        follows(page, region, region["value"]["labels"][0])
    page.shot("12-all")
    assert asked(page, "star, circle") == []
    assert len(page.regions()) == 3


def test_one_frame_is_looked_at_before_all_of_it(page: LabelingPage) -> None:
    page.go(40)
    looked = asked(page, "all at 40")
    assert labels(looked) == ["Circle", "Square", "Star"]
    for region in looked:
        assert [item["frame"] for item in region["value"]["sequence"]] == [40]
    page.shot("13-one-frame")
    assert asked(page, "all") == [], "its boxes go on as tracks"
    for region in page.regions():
        follows(page, region, region["value"]["labels"][0])


def test_a_human_region_and_a_late_edit_survive_a_phrase(page: LabelingPage) -> None:
    star = finished(page, prompt(page, "Star", "3")["id"])["id"]
    page.page.wait_for_timeout(6000)  # saved
    page.move(star, 50, 0, -8)  # and this is not
    moved = box_of(keyframe(page.region(star), 50))
    assert labels(asked(page, "all")) == ["Circle", "Square"]
    assert box_of(keyframe(page.region(star), 50)) == moved
    assert len(page.regions()) == 3
    page.page.keyboard.press("Escape")
    during(page, lambda: page.move(star, 70, 0, -8), ask=lambda: page.send("circle redo"))
    assert len(page.regions()) == 3
    assert {50, 70} <= {item["frame"] for item in page.region(star)["value"]["sequence"]}
    page.go(50)
    page.shot("14-edits-survive")


def test_each_regions_own_line(page: LabelingPage) -> None:
    x, y, width, height = percent("Circle", 40)
    page.go(40)
    page.draw(x, y, width, height)
    page.click(*middle("Circle", 40))
    page.command("to 60")
    (region,) = page.regions()
    name = region["id"]
    assert [page.shown(name, frame) is not None for frame in (39, 40, 60, 61)] == [False, True, True, False]
    page.shot("15-to-60")
    page.command("both")
    region = finished(page, name)
    for frame in SAMPLED:
        assert overlap(page.shown(name, frame), "Circle", frame) >= GOOD, frame
    assert humans(region) == {40}
    page.command("sideways")
    assert "is not a command" in page.region(name)["meta"]["text"][-1]
    page.shot("16-no-command")
    page.command("stop")
    assert humans(page.region(name)) == {40}
    # Corrected forty frames later: the frames around follow, the person's box stands.
    page.move(name, 80, 0, 3)
    corrected = box_of(keyframe(page.region(name), 80))
    page.track()
    assert box_of(keyframe(finished(page, name), 80)) == corrected


def test_an_error_is_read_on_the_page(page: LabelingPage) -> None:
    page.words("circle at 4000")
    assert page.told == f"not done: there is no frame 4000: the video has {clip.FRAMES}"
    page.shot("17-error")
    page.words("unicorn at 3")
    assert page.told.startswith("unicorn: none")


def test_a_task_without_pictures_takes_boxes_and_words(project: Project) -> None:
    with opened(project, frames=None, frame_numbers=None) as page:
        region = finished(page, prompt(page, "Circle", "1")["id"])
        follows(page, region, "Circle")
        assert labels(asked(page, "star")) == ["Star"]
        page.shot("18-no-pictures")
        assert json.dumps(page.errors) == "[]"
