"""The main job as an annotator does it: draw, click, press t; correct, press t; submit, come back, press t."""

from typing import Any

import numpy as np
import pytest

from backend.demo import clip
from backend.tracks.geometry import box_iou
from tests.e2e.browser import LabelingPage, Region, during
from tests.e2e.conftest import Project, opened

pytestmark = pytest.mark.slow

TRUTH = clip.truth()
SAMPLED = range(10, 101, 10)


def percent(label: str, frame: int) -> tuple[float, float, float, float]:
    """Where an object truly is on an LS frame: x, y, width, height in percent."""
    x0, y0, x1, y1 = TRUTH[label][frame - 1] / np.tile([clip.WIDTH, clip.HEIGHT], 2) * 100
    return x0, y0, x1 - x0, y1 - y0


def overlap(box: dict[str, float] | None, label: str, frame: int) -> float:
    """IoU of a box in percent with the truth."""
    if box is None:
        return 0.0
    corners = np.array([box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]])
    x, y, width, height = percent(label, frame)
    # Percent of width and of height stretch both boxes alike: the ratio of areas is that of the pixels.
    return float(box_iou(corners, np.array([x, y, x + width, y + height])))


def draw_and_track(page: LabelingPage, label: str, key: str = "t") -> Region:
    """The three gestures on the first frame, and t again until the whole track is there."""
    return finished(page, prompt(page, label, key)["id"])


def prompt(page: LabelingPage, label: str, key: str) -> Region:
    """The three gestures on the first frame, and the region that the first answer makes."""
    x, y, width, height = percent(label, 1)
    known = {region["id"] for region in page.regions()}
    page.page.keyboard.press("Escape")
    page.draw(x, y, width, height)
    page.click(x + width / 2, y + height / 2)
    count = len(page.answers)
    page.press(key)
    answer = page.answer(count)
    (new,) = [region for region in page.regions() if region["id"] not in known]
    assert [region["id"] for region in answer["data"]["result"]] == [new["id"]]
    return new


def finished(page: LabelingPage, identity: str) -> Region:
    """Select it, and press t until the whole track is there."""
    while "partial" in page.region(identity).get("meta", {}):
        page.select(identity, page.region(identity)["value"]["sequence"][0]["frame"])
        page.track()
    return page.region(identity)


def keyframe(region: Region, frame: int) -> dict[str, Any]:
    (found,) = [item for item in region["value"]["sequence"] if item["frame"] == frame]
    return found


def box_of(item: dict[str, Any]) -> dict[str, float]:
    return {name: item[name] for name in ("x", "y", "width", "height", "rotation")}


def humans(region: Region) -> set[int]:
    return {item["frame"] for item in region["value"]["sequence"] if item.get("human")}


def test_drawn_clicked_and_t_the_box_follows_the_object_to_the_end(page: LabelingPage) -> None:
    page.shot("1-task")
    region = draw_and_track(page, "Circle")
    assert region["origin"] == "prediction"
    assert region["value"]["labels"] == ["Circle"], (
        "the config's first class, or t would be dead on this box from now on"
    )
    assert region["meta"]["track_id"] == 1
    assert region["meta"]["text"][0].startswith("track 1 · sam3 · ")
    for frame in SAMPLED:
        assert overlap(page.shown(region["id"], frame), "Circle", frame) >= 0.8, frame
        assert overlap(page.shown(region["id"], frame), "Star", frame) < 0.5
    page.go(70)
    page.shot("2-tracked")


def test_the_class_key_labels_and_tracks_in_one(page: LabelingPage) -> None:
    region = draw_and_track(page, "Circle", key="1")
    assert region["value"]["labels"] == ["Circle"]
    for frame in SAMPLED:
        assert overlap(page.shown(region["id"], frame), "Circle", frame) >= 0.8, frame


def test_a_correction_stands_to_the_digit_and_the_frames_around_follow_it(stand_in_project: Project) -> None:
    """On the stand-in, which follows whatever is shown: SAM3 would find the circle again."""
    with opened(stand_in_project) as page:
        region = draw_and_track(page, "Circle")
        # The person says on frame 60 that they mean something beside the circle: half a box lower.
        before = {frame: page.shown(region["id"], frame) for frame in (2, 59, 61)}
        page.move(region["id"], 60, 0, 9)
        corrected = box_of(keyframe(page.region(region["id"]), 60))
        page.shot("3-dragged")
        page.track()
        region = finished(page, region["id"])
        assert box_of(keyframe(region, 60)) == corrected
        assert humans(region) == {1, 60}
        for frame in (59, 61):
            there, was = page.shown(region["id"], frame), before[frame]
            assert there
            assert was
            assert there["y"] - was["y"] > 4.5, f"frame {frame} did not follow the correction"
        assert box_of(keyframe(region, 1)) == pytest.approx(
            dict(zip(("x", "y", "width", "height", "rotation"), (*percent("Circle", 1), 0), strict=True)), abs=1
        )
        page.go(61)
        page.shot("4-corrected")


def test_what_a_person_set_is_known_after_submit_and_reload(page: LabelingPage) -> None:
    identity = draw_and_track(page, "Circle", key="1")["id"]
    ours = [item["frame"] for item in page.region(identity)["value"]["sequence"]]
    own = next(frame for frame in ours if frame > 10)
    between = next(frame for frame in range(25, 60) if frame not in ours)
    resized = next(frame for frame in ours if frame > 60)
    page.move(identity, own, 1, 1)
    page.move(identity, between, -1, 1)
    page.resize(identity, resized, 2, 2)
    deleted = next(frame for frame in ours if frame > resized + 2)
    page.select(identity, deleted)
    page.diamond()
    page.select(identity, 95)
    page.switch()
    off = max(item["frame"] for item in page.region(identity)["value"]["sequence"] if item["frame"] <= 95)
    edited = page.region(identity)
    assert deleted not in [item["frame"] for item in edited["value"]["sequence"]]
    assert keyframe(edited, off)["enabled"] is False
    page.submit()
    page.reload()
    page.select(identity, own)
    page.track()
    region = finished(page, identity)
    assert humans(region) == {1, own, between, resized, off}
    for frame in (own, between, resized, off):
        assert box_of(keyframe(region, frame)) == box_of(keyframe(edited, frame)), frame
    assert page.shown(identity, off) is not None
    assert page.shown(identity, off + 1) is None, "the person switched it off"
    page.shot("5-after-reload")


def test_an_edit_made_while_the_answer_is_on_its_way_survives(page: LabelingPage) -> None:
    ball = draw_and_track(page, "Star", key="3")["id"]
    x, y, width, height = percent("Circle", 1)
    page.page.keyboard.press("Escape")
    page.go(1)
    page.draw(x, y, width, height)
    page.click(x + width / 2, y + height / 2)
    during(page, lambda: page.move(ball, 50, 0, -8))
    moved = keyframe(page.region(ball), 50)
    x, y, width, height = percent("Star", 50)
    assert moved["y"] < y - 5, "the edit is gone"
    assert len(page.regions()) == 2
    page.shot("6-edit-while-waiting")


def test_what_is_not_ready_is_shown_in_part_and_t_brings_the_rest(hasty_project: Project) -> None:
    with opened(hasty_project) as page:
        part = prompt(page, "Circle", "1")
        while not part["meta"]["partial"]["done"]:  # a busy machine has not opened the video yet
            page.track()
            part = page.region(part["id"])
        done, total = part["meta"]["partial"]["done"], part["meta"]["partial"]["total"]
        assert 0 < done < total == clip.FRAMES
        page.go(done)
        assert overlap(page.shown(part["id"], done), "Circle", done) >= 0.8
        assert page.shown(part["id"], done + 1) is None, "what nobody has computed is not shown"
        page.shot("7-partial")
        whole = finished(page, part["id"])
        assert len(page.regions()) == 1
        assert humans(whole) == {1}
        for frame in SAMPLED:
            assert overlap(page.shown(whole["id"], frame), "Circle", frame) >= 0.8, frame


def test_on_a_laptop_video_timeline_and_both_lines_are_in_view(project: Project) -> None:
    with opened(project) as page:
        page.page.set_viewport_size({"width": 1366, "height": 768})
        region = draw_and_track(page, "Circle")
        page.select(region["id"], 1)
        page.shot("boxes-laptop")
        page.words("circle")
        page.select(region["id"], 1)
        page.shot("boxes-laptop-words")
        bar = page.page.locator(".lsf-bottombar").bounding_box()
        assert bar
        for part in (".words input", ".line input", ".lsf-video-canvas", ".lsf-timeline-controls"):
            shown = page.page.locator(part).bounding_box()
            assert shown
            assert 90 <= shown["y"] <= bar["y"] - shown["height"], (part, shown, bar)
