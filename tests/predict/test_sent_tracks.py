"""Tracks of the prompting page come into the annotation with its next request, once."""

import pytest

from backend.interactive.session import SessionKey
from backend.jobs.spec import FramePrompts
from tests.fakes import Gate, StubEngine
from tests.jobs.test_scheduler import until
from tests.predict.page import Page

BOX = (10.0, 20.0, 12.0, 16.0, 0.0)


def track(page: Page, name: str, label: str = "Car", frame: int = 1, *, is_waited_for: bool = True) -> None:
    """Track an object on the prompting page, and send it."""
    service = page.service
    session = service.interactive.open(SessionKey("3", "7", "/data/upload/1/clip.mp4", 25))
    job = session.start_track(name, [FramePrompts(frame, BOX)], classes=(label,))
    if is_waited_for:
        service.scheduler.wait([job], 30)
    service.store.records.put_page_track("7", name, is_offered=True)


@pytest.fixture
def page(make_interactive) -> Page:
    return Page(make_interactive(StubEngine()))


def test_the_line_for_words_brings_what_was_sent(page: Page) -> None:
    track(page, "one")
    track(page, "two", "Person", frame=30)
    assert page.type("sent") == ["one", "two"]
    assert page.told.startswith("sent: 2")
    assert page.regions["one"]["value"]["labels"] == ["Car"]
    assert (page.frames("one")[0], page.frames("two")[0]) == (1, 30)
    assert page.frames("two")[-1] == 100
    page.save()
    assert page.type("sent") == []
    assert page.told.startswith("sent: nothing new")


def test_t_on_a_box_brings_those_of_its_class(page: Page) -> None:
    track(page, "car")
    track(page, "person", "Person")
    box = page.draw(x=60)
    assert {*page.press(box)} == {box, "car"}


def test_what_was_deleted_stays_away_also_after_a_restart(page: Page) -> None:
    track(page, "one")
    page.type("sent")
    page.save()
    page.press(page.draw(x=60))
    page.delete("one")
    page.save()
    assert page.service.store.records.page_tracks("7") == {"one": False}
    assert "one" not in page.type("sent")


def test_an_answer_that_was_dropped_comes_again(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    track(page, "one")
    apply, page.apply = page.apply, lambda predictions: []
    page.type("sent")
    page.apply = apply
    monkeypatch.setattr("backend.predict.response_cache._SAVE_SECONDS", 0.0)
    assert page.type("sent") == ["one"]


def test_a_track_that_grows_comes_as_far_as_it_is_and_t_brings_the_rest(make_interactive) -> None:
    gate = Gate(50)
    page = Page(make_interactive(StubEngine(gate=gate), response_timeout=0.3))
    track(page, "one", is_waited_for=False)
    job = page.service.scheduler.newest(("7", "region", "one"))
    until(lambda: job.progress()[0] >= 50)
    assert page.type("sent") == ["one"]
    assert "partial" in page.regions["one"]["meta"]
    gate.open()
    page.service.scheduler.wait(page.service.scheduler.jobs(9), 30)
    page.save()
    assert page.press("one") == ["one"]
    assert page.frames("one")[-1] == 100
    assert "partial" not in page.regions["one"]["meta"]
