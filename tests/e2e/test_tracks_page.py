"""The page of a task's tracks as somebody uses it who corrects them, over tracks that the tests write."""

import re
from contextlib import AbstractContextManager
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from backend import shapes
from backend.errors import MediaError
from backend.video.encode import encode_jpeg
from tests.e2e.conftest import SHOTS
from tests.e2e.test_status import NASTY, fits, visited
from tests.http.test_tracks_page import FakeManager, make_app, track
from tests.jobs.test_scheduler import until

pytestmark = pytest.mark.slow


class Street(FakeManager):
    """A task as it is on an ordinary morning, with pictures that say their frame; everything stands still."""

    def __init__(self, **changes: Any) -> None:
        near = "7 begins 12 frames after 3 ends, in the same place, and looks alike (0.91)"
        far = "11 begins 41 frames after 9 ends, where 9 was heading"
        known: dict[str, Any] = {
            "proposals": [
                {"tracks": [3, 7], "gap": 12, "likeness": 0.91, "why": near},
                {"tracks": [9, 11], "gap": 41, "likeness": None, "why": far},
            ]
        }
        seen = shapes.Clip(seed=shapes.HELD_OUT, recipe=shapes.CROWDED)[40]
        self.picture = cv2.resize(seen.picture, (640, 360), interpolation=cv2.INTER_CUBIC)
        super().__init__(
            track(1, "Car", [1, 1500], human=[1, 401, 976], score=0.97),
            track(2, "Person", [60, 420], [500, 730], [741, 1010], human=[60, 741]),
            track(3, "Car", [140, 610], score=0.91),
            track(4, "Bicycle", [1, 220], score=0.66),
            track(5, "Person", [320, 1100], score=0.88, human=[320, 345, 370, 420, 1100]),
            track(6, "Car", [5, 90], [820, 1240]),
            track(7, "Car", [622, 1300], score=0.84, human=[]),
            track(8, "Person", [900, 1460], score=None),
            track(9, "Truck", [210, 480], score=0.58),
            track(11, "Truck", [521, 1180], score=0.61, human=[]),
            track(12, "Traffic light with a long name", [1, 700], [900, 1500], score=0.99),
            track(14, "Person", [1402, 1402], score=0.51),
            **{**known, "labels": ["Car", "Person", "Van", "Truck", "Bicycle"], **changes},
        )
        height, width = seen.picture.shape[:2]
        x0, y0, x1, y1 = 100 * seen.boxes[~np.isnan(seen.boxes).any(axis=1)].T / [[width], [height], [width], [height]]
        boxes = np.stack([x0, y0, x1 - x0, y1 - y0], axis=1).tolist()
        for place, one in enumerate(self.tracks):
            for keyframe in one["keyframes"]:
                keyframe[2:6] = boxes[place % len(boxes)]

    def frame(self, project: str, task: str, number: int) -> bytes:
        super().frame(project, task, number)
        canvas = self.picture.copy()
        cv2.putText(canvas, str(number), (12, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2)
        return encode_jpeg(canvas)

    @property
    def frames(self) -> list[int]:
        """The pictures that were asked for, in order."""
        return [asked[-1] for asked in self.asked if asked[0] == "frame"]


@pytest.fixture
def street() -> Street:
    return Street()


def last(street: Street, kind: str) -> Any:
    """The last request of this kind; pictures are asked for in between, at any time."""
    return [asked for asked in street.asked if asked[0] == kind][-1]


def opened(manager: FakeManager, *size: int, **context: Any) -> AbstractContextManager[Page]:
    return visited(make_app(manager), "tasks/7?project=1", *size, **context)


def row(page: Page, number: int) -> Locator:
    return page.locator("#list li.row", has=page.locator(f"#track-{number}"))


def choose(page: Page, *numbers: int) -> None:
    for number in numbers:
        page.locator(f"#track-{number}").check()


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def place(page: Page, frame: int) -> tuple[float, float]:
    """Where a frame is in the third row's lane, in pixels of the window."""
    lane = page.locator("#list li.row .lane").nth(2)
    lane.scroll_into_view_if_needed()
    box = lane.bounding_box()
    assert box
    return box["x"] + box["width"] * (frame - 0.5) / 1500, box["y"] + box["height"] / 2


def drag(page: Page, start: int, stop: int) -> None:
    page.mouse.move(*place(page, start))
    page.mouse.down()
    page.mouse.move(*place(page, (start + stop) // 2))
    page.mouse.move(*place(page, stop))
    page.mouse.up()


def address(frame: object) -> str:
    """Of a frame's picture, which is the prompting page's."""
    return f"../prompt/1-7/frames/{frame}.jpg"


def around(page: Page, selector: str, frame: int) -> None:
    """A pixel may be several frames wide."""
    shown = int(page.locator(selector).input_value())
    assert abs(shown - frame) <= 3


def test_the_tracks_are_listed_on_one_axis(street: Street) -> None:
    with opened(street) as page:
        expect(page).to_have_title("Tracks of task 7 · SAM3 backend")
        for text in ("annotation 12", "by anna@x.org, 2026-11-25 21:03", "clip.mp4", "1500 frames"):
            expect(page.locator("#about")).to_contain_text(text)
        studio = page.get_by_role("link", name="Label Studio")
        expect(studio).to_have_attribute("href", "http://studio.example/projects/1/data?task=7")
        expect(page.get_by_role("link", name="All jobs")).to_have_attribute("href", "../")
        numbers = page.locator("#list li .id").all_text_contents()
        assert numbers == ["1", "2", "3", "4", "5", "6", "7", "8", "9", "11", "12", "14"]
        expect(row(page, 2)).to_contain_text("Person")
        expect(row(page, 2).locator(".score")).to_have_text("0.90")
        expect(row(page, 2).locator(".frames")).to_have_text("862")
        expect(row(page, 2).locator(".span")).to_have_attribute("d", "M59 .5H420M499 .5H730M740 .5H1010")
        expect(row(page, 2).locator("svg")).to_have_attribute("viewBox", "0 0 1500 1")
        expect(row(page, 2).locator(".mark")).to_have_attribute("d", "M59.5 .5h0M740.5 .5h0")
        assert len({box.bounding_box()["x"] for box in page.locator(".lane").all()}) == 1
        assert page.locator(".ticks span").count() >= 5
        expect(page.locator(".undo")).to_be_hidden()


def test_the_cursor_shows_the_picture_of_its_frame(street: Street) -> None:
    with opened(street) as page:
        shown = page.locator("#look canvas")
        expect(shown).to_have_attribute("data-address", address(1))
        drag(page, 100, 600)
        around(page, "#frame", 600)
        axis = page.get_by_role("slider", name="Frame")
        expect(axis).to_be_focused()
        page.locator("#frame").fill("600")
        page.locator("#frame").press("Enter")
        axis.press("ArrowRight")
        expect(axis).to_have_attribute("aria-valuenow", "601")
        expect(axis).to_have_attribute("aria-valuetext", "frame 601, 0:24.00")
        axis.press("PageDown")
        expect(shown).to_have_attribute("data-address", address(576))
        assert shown.evaluate("canvas => canvas.width") == 640
        choose(page, 5)
        axis.press("Alt+ArrowRight")
        expect(page.locator("#frame")).to_have_value("595")
        press(page, "To the keyframe before")
        expect(page.locator("#frame")).to_have_value("570")
        axis.press("End")
        expect(page.locator("#frame")).to_have_value("1500")
        expect(shown).to_have_attribute("data-address", address(1500))
        assert len(street.frames) < 150, "a drag over 500 frames asks for where it rests, and beside it"
        street.error = MediaError("the video is gone: look whether it is still there")
        axis.press("PageDown")
        expect(page.locator("#look .problem")).to_have_text(
            "No picture of this frame: the video is gone: look whether it is still there"
        )
        expect(shown).to_have_attribute("data-address", address(1500))


def test_the_video_is_played_from_the_cursor_until_somebody_moves_it(street: Street) -> None:
    with opened(street) as page:
        shown, axis = page.locator("#look canvas"), page.get_by_role("slider", name="Frame")
        expect(shown).to_be_visible()
        page.get_by_label("Speed").select_option("½×")
        press(page, "Play")
        expect(page.get_by_role("button", name="Pause")).to_be_visible()
        expect(page.locator("#frame")).to_have_value(re.compile(r"[2-9]\d|\d{3}"), timeout=30_000)
        press(page, "Pause")
        frame = page.locator("#frame").input_value()
        expect(shown).to_have_attribute("data-address", address(frame))
        assert page.locator(".axis").get_attribute("aria-valuenow") == frame
        assert len(street.frames) > 5
        assert len({*street.frames}) == len(street.frames), "each is asked for once"
        axis.press("End")
        axis.press(" ")  # from the start again
        expect(page.locator("#frame")).to_have_value(re.compile(r"^\d{1,2}$"))
        axis.press("PageUp")
        expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()
        street.error = MediaError("the video is gone: look whether it is still there")
        press(page, "Play")
        expect(page.locator("#look .problem")).to_contain_text("the video is gone")
        expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()


def pixel(page: Page, x: float, y: float) -> list[int]:
    """A pixel of the picture, at a place in percent."""
    script = """([x, y]) => { const canvas = document.querySelector('#look canvas');
    const [left, top] = [x / 100 * canvas.width, y / 100 * canvas.height];
    return [...canvas.getContext('2d').getImageData(left, top, 1, 1).data.slice(0, 3)] }"""
    return list(page.evaluate(script, [x, y]))


def test_the_boxes_are_those_that_an_edit_would_make(street: Street) -> None:
    x, y, _, height = street.tracks[6]["keyframes"][0][2:6]  # of track 7
    line = x, y + height / 2
    with visited(make_app(street), "tasks/7?project=1&frame=700") as page:
        expect(page.locator("#look canvas")).to_have_attribute("data-address", address(700))
        page.wait_for_function("() => document.querySelector('#look canvas').width > 600")
        until(lambda: pixel(page, *line) == [204, 121, 167])
        choose(page, 7)
        press(page, "Delete …")
        expect(page.locator("#preview")).to_be_visible()
        until(lambda: pixel(page, *line) != [204, 121, 167])
        page.keyboard.press("Escape")
        until(lambda: pixel(page, *line) == [204, 121, 167])


def test_a_track_is_corrected_on_the_page_to_click_on(street: Street) -> None:
    with opened(street) as page:
        link = page.get_by_role("link", name="Click on the video")
        expect(link).to_have_attribute("href", "../prompt/1-7/#frame=1")
        choose(page, 5)
        page.locator("#frame").fill("345")
        page.locator("#frame").press("Enter")
        link = page.get_by_role("link", name="correct on the video")
        expect(link).to_have_attribute("href", "../prompt/1-7/#frame=345&track=5")
        choose(page, 6)
        expect(link).to_be_hidden()


def test_a_rename_is_shown_then_applied_then_undone(street: Street) -> None:
    with opened(street) as page:
        choose(page, 3, 7)
        expect(page.locator(".chosen")).to_have_text("2 tracks: 3, 7")
        page.get_by_label("New label").select_option("Van")
        press(page, "Rename …")
        expect(page.locator(".changes")).to_have_text("rename 3 and 7 to Van")
        expect(page.get_by_role("button", name="Apply")).to_be_focused()
        expect(page.locator("li.is-changed")).to_have_count(2)
        expect(row(page, 3).locator(".label")).to_have_text("CarVan")
        assert street.asked[-1][0] != "apply"
        page.keyboard.press("Escape")
        expect(page.locator("li.is-changed")).to_have_count(0)
        expect(row(page, 3).locator(".label")).to_have_text("Car")
        expect(page.get_by_role("button", name="Rename …")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Apply")).to_be_focused()
        page.keyboard.press("Enter")
        expect(row(page, 7).locator(".label")).to_have_text("Van")
        expect(page.locator("#news")).to_have_text("Done: rename 3 and 7 to Van")
        applied = {"do": "rename", "tracks": [3, 7], "label": "Van", "frames": None}
        assert ("apply", 7, "1", applied, "v1") in street.asked
        press(page, "Undo: rename 3 and 7 to Van")
        expect(row(page, 7).locator(".label")).to_have_text("Car")
        expect(page.locator(".undo")).to_be_hidden()
        assert ("undo", 7, "1", "v2") in street.asked


def test_a_part_of_the_video_is_dragged_out_or_typed(street: Street) -> None:
    with opened(street) as page:
        choose(page, 3)
        page.keyboard.down("Shift")
        drag(page, 300, 200)
        page.keyboard.up("Shift")
        expect(page.get_by_role("radio", name="frames")).to_be_checked()
        around(page, "#from", 200)
        around(page, "#to", 300)
        page.locator("#from").fill("201")
        page.locator("#to").fill("299")
        press(page, "Delete …")
        expect(page.locator("#preview")).to_be_visible()
        assert last(street, "preview") == ("preview", 7, "1", {"do": "delete", "tracks": [3], "frames": [201, 299]})
        expect(row(page, 3)).to_have_class("row is-selected is-changed is-gone")
        press(page, "Cancel")
        page.locator("#to").fill("")
        press(page, "Delete …")
        expect(page.locator(".refusal")).to_contain_text("Frames of delete must be the first and the last frame")
        page.get_by_role("radio", name="whole video").check()
        page.locator("#list .all").check()
        press(page, "Delete …")
        expect(page.locator("li.is-gone")).to_have_count(12)
        assert last(street, "preview") == ("preview", 7, "1", {"do": "delete", "tracks": "all", "frames": None})


def test_a_track_is_split_at_the_cursor(street: Street) -> None:
    with opened(street) as page:
        choose(page, 5)
        page.locator("#frame").fill("700")
        page.locator("#frame").press("Enter")
        expect(page.locator('[data-do="split"]')).to_contain_text("Second part from 700 on")
        press(page, "Split …")
        expect(row(page, 15)).to_have_class("row is-changed is-new")
        expect(row(page, 15).locator(".span")).to_have_attribute("d", "M699 .5H1100")
        expect(row(page, 5).locator(".span")).to_have_attribute("d", "M319 .5H699")
        expect(row(page, 5).locator(".ghost")).to_have_attribute("d", "M319 .5H1100")
        SHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SHOTS / "tracks-preview.png")
        press(page, "Apply")
        expect(page.locator("#preview")).to_be_hidden()
        expect(row(page, 15).locator(".ghost")).to_have_attribute("d", "")
        expect(page.locator(".tools .count")).to_have_text("13 tracks")


def test_a_proposal_is_looked_at_and_merged(street: Street) -> None:
    with opened(street) as page:
        press(page, "Look at 3 and 7")
        expect(page.locator("#frame")).to_have_value("610")
        press(page, "Look at 3 and 7")
        expect(page.locator("#frame")).to_have_value("622")
        expect(page.locator(".chosen")).to_have_text("2 tracks: 3, 7")
        press(page, "Merge 3 and 7 …")
        expect(row(page, 7)).to_have_class("row is-selected is-changed is-gone")
        expect(row(page, 3).locator(".span")).to_have_attribute("d", "M139 .5H610M621 .5H1300")
        press(page, "Apply")
        expect(row(page, 7)).to_have_count(0)
        assert ("apply", 7, "1", {"do": "merge", "tracks": [3, 7], "to": 3}, "v1") in street.asked


def test_a_refused_edit_says_why(street: Street) -> None:
    with opened(street) as page:
        choose(page, 3)
        page.get_by_label("New number").fill("7")
        page.get_by_label("New number").press("Enter")
        refusal = page.get_by_role("alert").filter(has_text="There is a track 7 already")
        expect(refusal).to_be_visible()
        expect(page.get_by_role("button", name="Load again")).to_be_hidden()
        expect(page.locator("#preview")).to_be_hidden()
        page.get_by_label("New number").fill("21")
        press(page, "Renumber …")
        expect(refusal).to_have_count(0)
        expect(page.locator("li.is-new")).to_contain_text("21")


def test_an_edit_of_an_old_version_offers_to_load_again(street: Street) -> None:
    with opened(street) as page:
        choose(page, 3)
        press(page, "Rename …")
        expect(page.locator("#preview")).to_be_visible()
        street.number, street.tracks = 9, street.tracks[:5]
        press(page, "Apply")
        expect(page.locator(".refusal")).to_have_text(
            "The annotation was saved by somebody else: load the tracks again. The tracks were changed meanwhile."
        )
        press(page, "Load again")
        expect(page.locator("#list li.row")).to_have_count(5)
        expect(page.locator("#preview")).to_be_hidden()
        expect(page.locator(".refusal")).to_be_empty()


def test_who_comes_back_sees_what_was_changed_elsewhere(street: Street) -> None:
    with opened(street) as page:
        expect(row(page, 7)).to_be_visible()
        street.number, street.tracks = 9, street.tracks[:5]
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        expect(page.locator("#list li.row")).to_have_count(5)


def test_many_tracks_are_filtered(street: Street) -> None:
    labels = ("Car", "Person", "Van")
    street.tracks = [track(1 + n, labels[n % 3], [1 + n, 900 + n], human=[]) for n in range(500)]
    with opened(street) as page:
        expect(page.locator(".tools .count")).to_have_text("500 tracks")
        page.locator("#filter").fill("person, 44")
        expect(page.locator(".tools .count")).to_have_text("173 of 500 tracks")
        page.locator("#filter").fill("497, 498")
        expect(page.locator("#list li.row:visible")).to_have_count(2)
        page.locator("#list .all").check()
        expect(page.locator(".chosen")).to_have_text("2 tracks: 497, 498")
        page.locator("#filter").fill("zebra")
        expect(page.locator(".empty")).to_have_text("No track has this label or number.")
        assert fits(page)


def test_what_people_typed_is_shown_as_text(street: Street) -> None:
    street.state |= {"by": NASTY, "video": NASTY, "of": NASTY, "undo": NASTY, "labels": [NASTY]}
    street.state |= {"url": "javascript:document.title='broken'"}
    street.state["proposals"] = [{"tracks": [3, 7], "gap": 1, "likeness": None, "why": NASTY}]
    street.tracks[2]["label"] = NASTY
    with opened(street) as page:
        expect(page.locator("#about .video")).to_have_text(NASTY)
        expect(row(page, 3).locator(".name")).to_have_text(NASTY)
        expect(page.locator("#proposals li span")).to_have_text(NASTY)
        expect(page.locator(".undo")).to_have_text(f"Undo: {NASTY}")
        expect(page.locator(".studio")).to_be_hidden()
        expect(page.locator("#look canvas")).to_have_count(1)
        assert page.title() == "Tracks of task 7 · SAM3 backend"
        assert fits(page)


def test_a_track_is_selected_by_the_address(street: Street) -> None:
    with visited(make_app(street), "tasks/7?project=1&select=4") as page:
        expect(page.locator(".chosen")).to_have_text("Track 4")


def test_a_task_that_cannot_be_loaded_says_why(street: Street) -> None:
    with opened(street) as page:
        mend = {"error": "there is no task 7: look at its number in Label Studio"}
        page.route("**/tracks?*", lambda route: route.fulfill(status=404, json=mend))
        page.reload()
        expect(page.locator("#failed")).to_have_text(
            "There is no task 7: look at its number in Label Studio. Load the page again to try once more."
        )
        expect(page.locator("main")).to_be_hidden()


def test_the_page_works_below_a_proxys_path(street: Street) -> None:
    app = DispatcherMiddleware(lambda *_: [], {"/sam3": make_app(street)})
    with visited(app, "sam3/tasks/7?project=1") as page:
        expect(page.locator("#look canvas")).to_be_visible()
        choose(page, 4)
        press(page, "Delete …")
        press(page, "Apply")
        expect(row(page, 4)).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "width", "height"), [("wide", 1400, 900), ("laptop", 1366, 768), ("phone", 390, 844)])
def test_the_page_fits(street: Street, name: str, width: int, height: int, scheme: Any) -> None:
    street.state["undo"] = "rename 2 to Person"
    with opened(street, width, height, color_scheme=scheme) as page:
        choose(page, 3, 7)
        page.locator("#frame").fill("616")
        page.locator("#frame").press("Enter")
        expect(page.locator("#look canvas")).to_have_attribute("data-address", address(616))
        page.locator("#from").fill("200")
        page.locator("#to").fill("1000")
        assert fits(page)
        SHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SHOTS / f"tracks-{name}-{scheme}.png", full_page=name == "wide")
        press(page, "Merge …")
        expect(page.locator("#preview")).to_be_visible()
        assert fits(page)
        page.screenshot(path=SHOTS / f"tracks-{name}-{scheme}-preview.png")
        if name == "phone":  # there the picture is as wide as the screen
            expect(page.locator(".enlarge")).to_be_hidden()
            return
        small = page.locator("#look canvas").bounding_box()
        page.locator("#look .picture").click()
        large = page.locator("#look canvas").bounding_box()
        assert small
        assert large
        assert large["width"] * large["height"] > 1.5 * small["width"] * small["height"]
        assert fits(page)
        page.screenshot(path=SHOTS / f"tracks-{name}-{scheme}-large.png")
        page.reload()
        expect(page.get_by_role("button", name="Larger picture", pressed=True)).to_be_visible()


def test_no_tracks_and_one_frame_fit_a_phone(street: Street) -> None:
    street.tracks, street.state = [], street.state | {"frames": 1, "proposals": [], "by": None, "of": None}
    with opened(street, 390, 844) as page:
        expect(page.locator(".empty")).to_have_text("This task has no tracks yet.")
        assert fits(page)
        page.screenshot(path=SHOTS / "tracks-empty.png")
