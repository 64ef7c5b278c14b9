"""The gestures of the prompting page in Chromium, over a stub engine: each click is answered by a box around it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import SHOTS
from tests.e2e.test_status import fits, visited
from tests.fakes import FakeVideo, Gate, StubEngine
from tests.http.test_prompting_page import FakeStudio
from tests.http.test_prompting_page import Page as Served
from tests.jobs.test_scheduler import until
from tests.labelstudio.bodies import drawn, keyframe

pytestmark = pytest.mark.slow


class Film(FakeVideo):
    """Pictures that say their frame."""

    def __init__(self) -> None:
        super().__init__(width=320, height=180)

    def read(self, index: int) -> np.ndarray:
        picture = np.full((self.height, self.width, 3), (40 + index, 60, 90), np.uint8)
        cv2.putText(picture, str(index + 1), (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2)
        return picture


class Prompting:
    """The page of a task, opened in a browser."""

    def __init__(self, served: Served, page: Page) -> None:
        self.served, self.page, self.scheduler = served, page, served.service.scheduler
        self.at(1)

    def at(self, frame: int) -> None:
        """Wait until a frame is drawn."""
        self.page.wait_for_selector(f"body[data-shown='{frame}']")

    def go(self, frame: int) -> None:
        """Click on the timeline."""
        box = self.box("#timeline")
        self.page.mouse.click(box["x"] + box["width"] * (frame - 0.5) / 100, box["y"] + 20)
        self.at(frame)

    def box(self, selector: str) -> dict[str, float]:
        found = self.page.locator(selector).bounding_box()
        assert found
        return dict(found)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """A place on the screen, from percent of the picture."""
        box = self.box("#picture")
        return box["x"] + box["width"] * x / 100, box["y"] + box["height"] * y / 100

    def click(self, x: float, y: float, **options: Any) -> Any:
        """Click on the picture; what the page sends for it."""
        with self.page.expect_request("**/preview") as sent:
            self.page.mouse.click(*self.place(x, y), **options)
        return sent.value.post_data_json

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Draw on the picture."""
        self.page.mouse.move(*self.place(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.place(*end), steps=4)
        self.page.mouse.up()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def track(self) -> Any:
        """Enter; what the page sends for it."""
        with self.page.expect_response("**/track") as answered:
            self.press("Enter")
        return answered.value.request.post_data_json

    def finish(self) -> None:
        self.scheduler.wait(self.scheduler.jobs(9), 30)

    def shot(self, name: str) -> None:
        self.page.screenshot(path=SHOTS / f"prompting-page-{name}.png")

    def pixel(self, x: float, y: float) -> tuple[int, ...]:
        """A pixel of the canvas, in percent of the picture."""
        script = """([x, y]) => { const { width, height } = document.querySelector('#picture');
        const context = document.querySelector('#picture').getContext('2d');
        return [...context.getImageData(x / 100 * width, y / 100 * height, 1, 1).data] }"""
        return tuple(self.page.evaluate(script, [x, y]))


@pytest.fixture
def visit(make_interactive) -> Iterator[Callable[..., Prompting]]:
    with ExitStack() as stack:

        def visit(engine: StubEngine | None = None, width: int = 1366, height: int = 768, **task: Any) -> Prompting:
            served = Served(make_interactive(engine or StubEngine(masks=True), Film()), FakeStudio(**task))
            context = {"color_scheme": "dark"} if width == 1366 else {}
            app = served.client.application
            return Prompting(served, stack.enter_context(visited(app, served.base[1:], width, height, **context)))

        yield visit


def test_an_object_is_clicked_tracked_and_its_masks_are_shown_while_it_grows(visit) -> None:
    gate = Gate(30)
    page = visit(StubEngine(masks=True, gate=gate))
    assert page.click(50, 50)["points"] == [[pytest.approx(50, abs=0.5), pytest.approx(50, abs=0.5), True]]
    until(lambda: page.pixel(49, 47)[0] > page.pixel(80, 80)[0] + 40)  # the mask in the object's colour
    page.shot("click")
    page.press("Tab")
    page.click(20, 20, button="right")
    page.press("Control+z", "2")
    with page.page.expect_request("**/preview") as sent:
        page.drag((70, 70), (90, 90))
    assert sent.value.post_data_json["box"] == [pytest.approx(size, abs=0.7) for size in (70, 70, 20, 20)]
    page.press("Control+z")
    sent = page.track()
    assert [len(one["points"]) for one in sent["prompts"]] == [1]
    assert sent["label"] == "Bus"
    state = page.page.locator("#tracks .state")
    expect(state).to_have_text("30 of 100")
    page.go(20)
    until(lambda: page.pixel(53, 47)[0] > page.pixel(80, 80)[0] + 40)  # the mask of the track on frame 20
    page.shot("grows")
    with page.page.expect_response("**/stop"):
        page.press("s")
    gate.open()
    expect(state).to_have_text("stopped")
    with page.page.expect_response("**/resume"):
        page.press("w", "s")
    expect(state).to_have_text("done")
    page.page.wait_for_function("() => Number(document.body.dataset.shown) > 20")
    page.press("f")
    page.click(80, 20)
    page.press("Shift+Enter")
    expect(page.page.locator("#tracks li")).to_have_count(2)
    expect(page.page.locator("#tracks .is-chosen")).to_have_count(0)
    page.page.get_by_role("button", name="Send to the task").click()
    expect(page.page.locator("#sent")).to_contain_text("Sent")


def test_a_region_of_the_annotation_is_corrected_with_a_box(visit) -> None:
    region = drawn(keyframe(1), keyframe(60, x=50), keyframe(90, x=60), id="own", labels=("Car",))
    page = visit(drafts=[{"id": 1, "updated_at": "2026", "result": [region]}])
    expect(page.page.locator("#regions li")).to_have_count(1)
    page.go(31)
    page.page.mouse.move(*page.place(35, 28))
    page.page.keyboard.down("Alt")
    page.page.mouse.down()
    page.page.mouse.up()
    page.page.keyboard.up("Alt")
    expect(page.page.locator("#chosen")).to_contain_text("1 Car")
    page.press("b")
    page.drag((20, 60), (40, 80))
    page.shot("correct")
    sent = page.track()
    assert sent["id"] == "own"
    assert sent["prompts"] == [
        {"frame": 31, "points": [], "box": [pytest.approx(n, abs=0.7) for n in (20, 60, 20, 20)]}
    ]
    expect(page.page.locator("#tracks .state")).to_have_text("done")
    assert page.scheduler.jobs(1)[0].row.spec.intervals == ((1, 31), (31, 60))
    expect(page.page.locator("#regions li")).to_have_count(0)
    page.go(75)
    page.shot("corrected")
    page.page.reload()
    expect(page.page.locator("#tracks .name")).to_have_text("1 Car")


def test_a_correction_is_written_where_it_was_submitted_unless_that_changed(visit) -> None:
    region = drawn(keyframe(1, human=True), keyframe(60, x=50, human=True), id="own", labels=("Car",))
    page = visit(annotations=[{"id": 2, "result": [region]}])
    page.page.locator("#regions .choose").click()
    page.go(30)
    page.click(60, 60)
    page.track()
    expect(page.page.locator("#tracks .state")).to_have_text("done")
    region["value"]["sequence"][0]["x"] += 1
    send = page.page.get_by_role("button", name="Send to the task")
    send.click()
    expect(page.page.locator("#sent")).to_contain_text("Track 1 was changed in Label Studio meanwhile")
    region["value"]["sequence"][0]["x"] -= 1
    send.click()
    expect(page.page.locator("#sent")).to_contain_text("Track 1: the correction is in the annotation")
    expect(page.page.locator("#regions .choose")).to_have_text("1 Car")
    expect(page.page.locator("#chosen")).to_contain_text("click or draw a box to correct it")
    page.shot("written")


def test_low_scores_and_what_is_worth_a_look_are_a_key_away(visit) -> None:
    engine = StubEngine(
        score=lambda frame: 0.3 if frame in (40, 41, 70) else 0.9, seen=lambda frame: frame not in (54, 55, 56)
    )
    page = visit(engine)
    page.click(20, 50)
    page.track()
    expect(page.page.locator("#tracks .state")).to_have_text("done")
    for key, frame in (("n", 41), ("n", 71), ("p", 41)):
        page.press(key)
        page.at(frame)
    review = page.page.locator("#review")
    expect(review.locator("li")).to_have_text(
        ["41 · no class: score 0.30", "71 · no class: score 0.30", "55 · no class: not seen for 3 frames"]
    )
    page.press("j", "j")
    page.at(71)
    expect(review.locator(".count")).to_have_text("1 of 3 left")
    expect(review.locator(".is-seen")).to_have_count(2)
    page.shot("review")
    page.page.reload()
    expect(page.page.locator("#review .count")).to_have_text("1 of 3 left")


def test_a_range_is_dragged_on_the_timeline(visit) -> None:
    page = visit()
    box = page.box("#timeline")
    x = [box["x"] + box["width"] * (frame - 0.5) / 100 for frame in (11, 30)]
    page.page.keyboard.down("Shift")
    page.page.mouse.move(x[0], box["y"] + 20)
    page.page.mouse.down()
    page.page.mouse.move(x[1], box["y"] + 20, steps=5)
    page.page.mouse.up()
    page.page.keyboard.up("Shift")
    expect(page.page.locator("#range")).to_have_text("frames 11 to 30")
    page.go(20)
    page.page.select_option("#direction", "both")
    page.page.locator("#picture").focus()
    page.click(50, 50)
    page.track()
    expect(page.page.locator("#tracks .state")).to_have_text("done")
    assert sorted({*page.served.service.engine.frames}) == list(range(10, 30))
    page.press("r")
    expect(page.page.locator("#range")).to_be_hidden()


def test_a_click_on_the_zoomed_picture_is_where_it_is_seen(visit) -> None:
    page = visit(width=900, height=700)
    page.page.mouse.move(*page.place(80, 80))
    page.page.mouse.wheel(0, -300)
    page.press("+")
    big = page.box("#picture")
    assert big["width"] > 1.4 * page.box("#stage")["width"]
    before = big["x"]
    page.page.keyboard.down("Shift")
    page.drag((70, 70), (75, 75))
    page.page.keyboard.up("Shift")
    assert page.box("#picture")["x"] > before
    x, y, is_on = page.click(70, 70)["points"][0]
    assert (x, y, is_on) == (pytest.approx(70, abs=0.5), pytest.approx(70, abs=0.5), True)
    page.shot("zoom")
    page.press("0")
    assert page.box("#picture")["width"] == page.box("#stage")["width"]


def test_everything_fits_a_small_screen_and_every_key_is_told(visit) -> None:
    page = visit()
    assert fits(page.page)
    bottom = page.page.evaluate("() => document.querySelector('.steps').getBoundingClientRect().bottom")
    assert bottom <= 768, "picture, timeline and buttons are seen without scrolling"
    page.press("?")
    expect(page.page.locator("#keys")).to_be_visible()
    page.shot("keys")


def test_words_and_examples_find_tracks_that_are_chosen_and_sent(visit) -> None:
    words = {"car": {"a": range(100), "b": range(100)}, "like": {"c": range(100)}}
    page = visit(StubEngine(answering=words, masks=True))
    page.press("/")
    page.page.keyboard.type("car")
    page.press("Enter")
    expect(page.page.locator("#searches .state")).to_have_text("done")
    expect(page.page.locator("#tracks .name")).to_have_text(["Car", "Car"])
    page.press("b", "2")
    page.drag((40, 30), (60, 60))
    page.press("a")
    expect(page.page.locator("#searches .name")).to_have_text(["car", "like"])
    expect(page.page.locator("#tracks .name")).to_have_text(["Car", "Car", "Bus"])
    page.page.locator("#tracks .choose").nth(1).click()
    page.shot("words")
    page.page.locator("#tracks .remove").nth(0).click()
    expect(page.page.locator("#tracks li")).to_have_count(2)
    page.page.get_by_role("button", name="Send to the task").click()
    expect(page.page.locator("#sent")).to_contain_text("Sent")
    offered = page.served.service.store.records.page_tracks("7").values()
    assert [is_offered for _, is_offered in offered if is_offered] == [True, True]


def test_a_page_that_nobody_looks_at_holds_no_stream(visit) -> None:
    """A browser opens six connections to a host, and the live panel needs two."""
    gate = Gate(10)
    page = visit(StubEngine(gate=gate))
    page.click(50, 50)
    with page.page.expect_request("**/events"):
        page.track()
    hide = """hidden => { Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange")) }"""
    with page.page.expect_event("requestfailed", lambda request: request.url.endswith("/events")):
        page.page.evaluate(hide, True)
    gate.open()
    page.finish()
    expect(page.page.locator("#tracks .state")).not_to_have_text("done")
    page.page.evaluate(hide, False)
    expect(page.page.locator("#tracks .state")).to_have_text("done")


def test_the_manager_is_reached_from_a_region(visit) -> None:
    region = drawn(keyframe(1), id="own", meta={"track_id": 5})
    page = visit(annotations=[{"id": 1, "result": [region]}])
    link = page.page.get_by_role("link", name="Rename, renumber, merge, split, delete")
    expect(link).to_be_hidden()
    page.page.locator("#regions .choose").click()
    page.go(31)
    expect(link).to_have_attribute("href", "../../tasks/7?project=3&frame=31&select=5")


def test_a_track_and_a_frame_are_chosen_by_the_address(visit) -> None:
    turned = drawn(keyframe(1, rotation=90), id="own", meta={"track_id": 5})
    page = visit(annotations=[{"id": 1, "result": [drawn(keyframe(1, x=60), id="other"), turned]}])
    page.page.evaluate("location.hash = 'frame=31&track=5'")
    page.page.reload()
    page.at(31)
    expect(page.page.locator("#chosen")).to_contain_text("5 Car")
    # From its corner at 10 %, 20 % it goes 16 % of the height to the left, and 12 % of the width down.
    left, middle = 10 - 16 * 180 / 320, 20 + 12 * 320 / 180 / 2
    until(lambda: page.pixel(left, middle)[:3] == page.pixel(10, middle)[:3] == (86, 180, 233))
    page.shot("turned")
