"""A correction carries to the frames beside it; a roughly drawn box that begins a track does not."""

from collections.abc import Generator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.tracks.corrections import REACH
from backend.tracks.geometry import Box
from backend.tracks.prompts import Phrase, Prompt
from backend.tracks.track import ABSENT, FrameResult, Observation
from tests.fakes import StubEngine, StubSession
from tests.http.test_prompting_page import FakeStudio
from tests.http.test_prompting_page import Page as Prompting
from tests.predict.page import CONFIG, DATA, Page

pytestmark = pytest.mark.slow

X, Y, WIDTH, HEIGHT = 30, 40, 20, 10
"""Of the box that the engine answers everywhere, percent."""


class _Session(StubSession):
    def prompt(self, prompts: Sequence[Prompt | Phrase]) -> FrameResult:
        super().prompt(prompts)
        return FrameResult(0, {})

    def propagate(self, span: range, reverse: bool = False) -> Generator[FrameResult]:
        box = Box(X * 6.4, Y * 3.6, (X + WIDTH) * 6.4, (Y + HEIGHT) * 3.6)
        for result in super().propagate(span, reverse):
            seen = Observation(box, 0.9) if self.engine.seen(result.frame) else ABSENT
            yield FrameResult(result.frame, dict.fromkeys(result.tracks, seen))


class TightEngine(StubEngine):
    """Answers one box whatever it is shown, as a model does that draws tighter than people."""

    def open(self, video: object, state: bytes | None = None) -> _Session:
        self.sessions += 1
        return _Session(self, state)


@pytest.fixture
def page(make_service) -> Page:
    return Page(make_service(TightEngine()))


def box(wide: float, high: float) -> dict[str, float]:
    """The engine's box, so many times as wide and high."""
    x, y = X + WIDTH * (1 - wide) / 2, Y + HEIGHT * (1 - high) / 2
    return {"x": x, "y": y, "width": WIDTH * wide, "height": HEIGHT * high}


def size(page: Page, name: str, frame: int) -> tuple[float, float]:
    """What the page shows, as a multiple of the engine's box."""
    _, _, width, height = page.shown(name, frame)
    return width / WIDTH, height / HEIGHT


def test_a_roughly_drawn_box_says_nothing(page: Page) -> None:
    name = page.draw(**box(1.3, 1.3))
    page.press(name)
    assert size(page, name, 2) == pytest.approx((1, 1), abs=1e-3)
    page.drag(name, 50, **box(1, 1))
    page.press(name)
    for frame in (2, 25, 75, 100):
        assert size(page, name, frame) == pytest.approx((1, 1), abs=1e-3)


def test_a_correction_carries_to_both_sides_and_fades(page: Page) -> None:
    name = page.draw(**box(1, 1))
    page.press(name)
    assert size(page, name, 80) == pytest.approx((1, 1), abs=1e-3)
    page.drag(name, 50, **box(1.2, 1.1))
    page.press(name)
    assert page.item(name, 50)["width"] == WIDTH * 1.2
    for frame in (49, 51):
        assert size(page, name, frame) == pytest.approx((1.19, 1.095), abs=5e-2)
    for frame in (50 - REACH // 2, 50 + REACH // 2):
        assert size(page, name, frame) == pytest.approx((1.1, 1.05), abs=5e-2)
    for frame in (10, 50 - REACH, 50 + REACH, 100):
        assert size(page, name, frame) == pytest.approx((1, 1), abs=5e-2)


def test_so_does_a_box_that_was_moved(page: Page) -> None:
    name = page.draw(**box(1, 1))
    page.press(name)
    page.drag(name, 50, x=X + 3, y=Y, width=WIDTH, height=HEIGHT)
    page.press(name)
    assert page.shown(name, 50 + REACH // 2) == pytest.approx([X + 1.5, Y, WIDTH, HEIGHT], abs=0.5)
    assert page.shown(name, 80) == pytest.approx([X, Y, WIDTH, HEIGHT], abs=0.5)


def test_each_correction_carries_also_after_a_restart(page: Page, make_service) -> None:
    name = page.draw(**box(1, 1))
    page.press(name)
    page.drag(name, 30, **box(1.2, 1.2))
    page.press(name)
    page.service = make_service(TightEngine())
    page.drag(name, 60, **box(0.9, 0.9))
    page.press(name)
    assert page.regions[name]["meta"]["corrected"] == [30, 60]
    assert size(page, name, 35)[0] > 1.1
    assert size(page, name, 55)[0] < 0.95
    assert size(page, name, 100)[0] == pytest.approx(1, abs=1e-3)


def test_frames_without_the_object_stay_without(make_service) -> None:
    page = Page(make_service(TightEngine(seen=lambda frame: frame < 70)))
    name = page.draw(**box(1, 1))
    page.press(name)
    page.drag(name, 50, **box(1.2, 1.2))
    page.press(name)
    assert page.shown(name, 60)[2] > WIDTH
    assert page.shown(name, 90)[2] != page.shown(name, 90)[2], "NaN: nothing is shown"


def test_a_box_around_something_else_says_nothing(page: Page) -> None:
    name = page.draw(**box(1, 1))
    page.press(name)
    page.drag(name, 50, **box(4, 4))
    page.press(name)
    assert size(page, name, 100) == pytest.approx((1, 1), abs=1e-3)


shapes = st.lists(
    st.tuples(st.integers(2, 99), st.floats(0.5, 2), st.floats(0.5, 2)), max_size=3, unique_by=lambda one: one[0]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes)
def test_a_persons_keyframes_stay_to_the_digit_and_all_else_within_bounds(
    page: Page, corrected: list[tuple[int, float, float]]
) -> None:
    name = page.draw(**box(1.4, 0.8))
    page.press(name)
    for frame, wide, high in corrected:
        page.drag(name, frame, **box(wide, high))
        page.press(name)
    for frame, wide, high in corrected:
        assert {key: page.item(name, frame)[key] for key in ("x", "y", "width", "height")} == box(wide, high)
    for item in page.regions[name]["value"]["sequence"]:
        if not item.get("human"):
            assert 0.5 - 1e-3 <= item["width"] / WIDTH <= 2 + 1e-3
            assert corrected or item["width"] == pytest.approx(WIDTH)


def test_the_prompting_page_shows_boxes_as_large_as_they_will_be_sent(make_interactive) -> None:
    service = make_interactive(TightEngine())
    page, prompting = Page(service), Prompting(service, FakeStudio(data=DATA, config=CONFIG))
    on_it = {"frame": 1, "points": [[40, 45, True]]}
    track = prompting.track(prompts=[on_it])
    prompting.finish()
    prompting.track(id=track["id"], prompts=[on_it, {"frame": 50, "box": [*box(1.3, 1.3).values()]}])
    prompting.finish()
    events = prompting.events()
    events.read_until(lambda: track["id"] in events.tracks)
    prompting.post("send", ids=[track["id"]])
    page.type("sent")
    assert size(page, track["id"], 55) > (1.1, 1.1)
    assert events.frames[track["id"]][60][:4] == pytest.approx(page.shown(track["id"], 60), abs=0.1)
