"""Tracks of the prompting page come into the annotation with its next request, once."""

from typing import Any

import pytest

from tests.fakes import Gate, StubEngine
from tests.http.test_prompting_page import FakeStudio
from tests.jobs.test_scheduler import until
from tests.predict.page import CONFIG, DATA, Page


class Prompting:
    """The prompting page beside a labelling page."""

    def __init__(self, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
        self.page, self.view, self.scheduler = page, page.service.prompting, page.service.scheduler
        self.studio = FakeStudio(data=DATA, config=CONFIG)
        monkeypatch.setattr(self.view, "_client", lambda project: self.studio)

    def track(self, frame: int = 1, label: str = "Car", name: str = "", **prompts: Any) -> str:
        """Prompt an object with a box, or as `prompts` say, and send it; returns the region's id."""
        prompt = {"frame": frame, **(prompts or {"box": [10, 20, 12, 16]})}
        tracks: dict[str, Any] = {one["id"]: one["prompts"] for one in self.view.overview("3", "7")["tracks"]}
        sent = {"id": name, "label": label, "prompts": [*tracks.get(name, ()), prompt]}
        made = self.view.track("3", "7", sent)
        self.view.send("3", "7", {"ids": [made["id"]]})
        return str(made["id"])

    def shows(self, page: Page) -> None:
        """Label Studio has the labelling page as its draft."""
        page.save()
        self.studio.content["drafts"] = [{"id": 1, "updated_at": "2026", "result": page.saved}]

    def finish(self) -> None:
        self.scheduler.wait(self.scheduler.jobs(9), 30)


@pytest.fixture
def page(make_interactive) -> Page:
    return Page(make_interactive(StubEngine()))


@pytest.fixture
def prompting(page: Page, monkeypatch: pytest.MonkeyPatch) -> Prompting:
    return Prompting(page, monkeypatch)


def test_the_line_for_words_brings_what_was_sent(page: Page, prompting: Prompting) -> None:
    one, two = prompting.track(), prompting.track(30, "Person")
    prompting.finish()
    assert page.type("sent") == [one, two]
    assert page.told.startswith("sent: 2")
    assert page.regions[one]["value"]["labels"] == ["Car"]
    assert (page.frames(one)[0], page.frames(two)[0]) == (1, 30)
    assert page.frames(two)[-1] == 100
    page.save()
    assert page.type("sent") == []
    assert page.told.startswith("sent: nothing new")


def test_t_on_a_box_brings_those_of_its_class(page: Page, prompting: Prompting) -> None:
    car = prompting.track()
    prompting.track(label="Person")
    prompting.finish()
    box = page.draw(x=60)
    assert {*page.press(box)} == {box, car}


def test_what_was_deleted_stays_away_also_after_a_restart(page: Page, prompting: Prompting) -> None:
    one = prompting.track()
    prompting.finish()
    page.type("sent")
    page.save()
    page.press(page.draw(x=60))
    page.delete(one)
    page.save()
    ((_, is_offered),) = page.service.store.records.page_tracks("7").values()
    assert not is_offered
    assert one not in page.type("sent")


def test_an_answer_that_was_dropped_comes_again(
    page: Page, prompting: Prompting, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = prompting.track()
    prompting.finish()
    apply, page.apply = page.apply, lambda predictions: []
    page.type("sent")
    page.apply = apply
    monkeypatch.setattr("backend.predict.response_cache._SAVE_SECONDS", 0.0)
    assert page.type("sent") == [one]


def test_a_track_that_grows_comes_as_far_as_it_is_and_t_brings_the_rest(
    make_interactive, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(50)
    page = Page(make_interactive(StubEngine(gate=gate), response_timeout=0.3))
    prompting = Prompting(page, monkeypatch)
    one = prompting.track()
    job = page.service.scheduler.newest(("7", "region", one))
    until(lambda: job.progress()[0] >= 50)
    assert page.type("sent") == [one]
    assert "partial" in page.regions[one]["meta"]
    gate.open()
    prompting.finish()
    page.save()
    assert page.press(one) == [one]
    assert page.frames(one)[-1] == 100
    assert "partial" not in page.regions[one]["meta"]


@pytest.fixture
def car(page: Page, prompting: Prompting) -> str:
    """A region that a person drew on frames 1 and 60 and had tracked, as Label Studio has it."""
    name = page.draw()
    page.drag(name, 60, x=20)
    page.press(name)
    prompting.shows(page)
    return name


@pytest.mark.parametrize("gesture", ["sent", "t"])
def test_a_corrected_region_comes_back_as_itself(page: Page, prompting: Prompting, car: str, gesture: str) -> None:
    before = page.regions[car]["value"]["sequence"]
    prompting.track(30, name=car, box=[40, 40, 10, 10])
    prompting.finish()
    assert (page.type("sent") if gesture == "sent" else page.press(car)) == [car]
    assert page.shown(car, 30) == [40, 40, 10, 10]
    assert page.item(car, 30)["human"]
    for frame in (1, 60):  # a person's keyframes, to the digit
        assert page.item(car, frame) == next(item for item in before if item["frame"] == frame)
    after = [item for item in page.regions[car]["value"]["sequence"] if item["frame"] > 60]
    assert after == [item for item in before if item["frame"] > 60], "nothing beyond the next prompt is touched"
    (interval,) = {page.service.scheduler.jobs(1)[0].row.spec.intervals}
    assert interval == ((1, 30), (30, 60))
    page.save()
    assert page.type("sent") == []


def test_a_click_corrects_what_lies_between_a_persons_keyframes(page: Page, prompting: Prompting, car: str) -> None:
    prompting.track(30, name=car, points=[[50, 50, True]])
    prompting.finish()
    spec = page.service.scheduler.jobs(1)[0].row.spec
    assert spec.intervals == ((1, 30), (30, 60))
    assert [bool(one.points) for one in spec.prompts] == [False, True, False]
    assert page.type("sent") == [car]
    assert [item["frame"] for item in page.regions[car]["value"]["sequence"] if item.get("human")] == [1, 60]
    assert [*page.regions[car]["meta"]["points"].values()] == [[30, 50, 50, True]]


def test_a_further_correction_keeps_the_first_one(page: Page, prompting: Prompting, car: str) -> None:
    prompting.track(30, name=car, box=[40, 40, 10, 10])
    prompting.finish()
    prompting.track(80, name=car, box=[70, 70, 10, 10])
    prompting.finish()
    assert page.service.scheduler.jobs(1)[0].row.spec.intervals == ((60, 80), (80, None))
    assert page.type("sent") == [car]
    assert [item["frame"] for item in page.regions[car]["value"]["sequence"] if item.get("human")] == [1, 30, 60, 80]


def test_a_correction_before_the_first_one_is_done_computes_both(make_interactive, monkeypatch) -> None:
    gate = Gate(10**6)
    page = Page(make_interactive(StubEngine(gate=gate)))
    prompting = Prompting(page, monkeypatch)
    name = prompting.track(points=[[30, 30, True]])
    prompting.finish()
    gate.until = 0
    prompting.track(30, name=name, points=[[40, 40, True]])
    prompting.track(60, name=name, points=[[50, 50, True]])
    gate.open()
    prompting.finish()
    assert page.service.scheduler.jobs(1)[0].row.spec.intervals == ((1, 30), (30, 60), (60, None))
    gate.until = 0
    prompting.track(80, name=name, box=[40, 40, 10, 10])
    prompting.track(90, name=name, box=[45, 40, 10, 10])
    gate.open()
    prompting.finish()
    assert page.service.scheduler.jobs(1)[0].row.spec.intervals == ((60, 80), (80, 90), (90, None))
    assert page.type("sent") == [name]
    humans = [item["frame"] for item in page.regions[name]["value"]["sequence"] if item.get("human")]
    assert humans == [80, 90]


def test_a_correction_follows_what_a_person_changed_meanwhile(page: Page, prompting: Prompting, car: str) -> None:
    prompting.track(30, name=car, box=[40, 40, 10, 10])
    prompting.finish()
    page.drag(car, 45, x=5)
    page.drag(car, 60, x=25)
    page.save()
    assert page.type("sent") == [car]
    prompting.finish()
    page.save()
    page.press(car)
    frames = {item["frame"]: item for item in page.regions[car]["value"]["sequence"] if item.get("human")}
    assert {frame: item["x"] for frame, item in frames.items()} == {1: 10, 30: 40, 45: 5, 60: 25}


def test_a_corrected_region_that_was_deleted_stays_away(page: Page, prompting: Prompting, car: str) -> None:
    prompting.track(30, name=car, box=[40, 40, 10, 10])
    prompting.finish()
    page.press(page.draw(x=60, label="Person"))
    page.delete(car)
    page.save()
    assert car not in page.type("sent")


def test_a_new_track_that_arrived_is_corrected_as_a_region(page: Page, prompting: Prompting) -> None:
    one = prompting.track()
    prompting.finish()
    page.type("sent")
    prompting.shows(page)
    assert prompting.view.overview("3", "7")["tracks"] == []
    assert prompting.track(50, name=one, box=[40, 40, 10, 10]) == one
    prompting.finish()
    assert page.service.scheduler.jobs(1)[0].row.spec.intervals == ((1, 50), (50, None))
    assert page.type("sent") == [one]
    assert page.shown(one, 50) == [40, 40, 10, 10]


def test_what_words_have_found_there_comes_once(make_interactive, monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"car": {"a": range(100)}, "person": {"b": range(20, 60)}}
    page = Page(make_interactive(StubEngine(answering=words)))
    prompting = Prompting(page, monkeypatch)
    prompting.view.search("3", "7", {"text": "car, person"})
    prompting.finish()
    ids = [one["id"] for one in prompting.view.overview("3", "7")["tracks"]]
    prompting.view.send("3", "7", {"ids": ids})
    assert page.type("sent") == ids
    assert [page.regions[name]["value"]["labels"] for name in ids] == [["Car"], ["Person"]]
    assert page.frames(ids[1])[0] == 21
    prompting.shows(page)
    assert page.type("sent") == []
    tracks = prompting.view.overview("3", "7")["tracks"]
    assert tracks == [], "they are regions of the annotation now"


def test_a_corrected_region_of_a_submitted_annotation_comes_with_t_on_it(
    page: Page, prompting: Prompting, car: str
) -> None:
    page.submit()
    prompting.track(30, name=car, box=[40, 40, 10, 10])
    prompting.finish()
    assert page.type("sent") == []
    assert page.told == "sent: 1 more with t on their boxes"
    assert page.press(car) == [car]
    assert page.shown(car, 30) == [40, 40, 10, 10]
