"""`like` and `unlike` in a region's own line: what is like its box, each once, and what is taken away again."""

import json
import math

import pytest

from backend.tracks.geometry import Box
from backend.tracks.prompts import Exemplar, Phrase
from tests.fakes import Gate, StubEngine
from tests.predict.page import Page

ALWAYS = range(1000)
FOUND = {"like": {"a": ALWAYS, "b": range(20, 60), "c": ALWAYS}, "like red": {"a": ALWAYS}}
PLACE = {"width": 100 * 30 / 640, "height": 100 * 30 / 360}
"""The size of what the stub finds: 30 pixels of 640 x 360, the first one at (0, 120), the next ones 40 to the right."""


def place(number: int) -> dict[str, float]:
    """The box of what the stub finds, in percent."""
    return {"x": 100 * 40 * number / 640, "y": 100 * 120 / 360, **PLACE}


@pytest.fixture
def engine() -> StubEngine:
    return StubEngine(answering=FOUND, step=0.0)


@pytest.fixture
def page(make_service, engine) -> Page:
    return Page(make_service(engine))


def visible(page: Page, frame: int) -> set[str]:
    """The regions that show a box of some size on a frame."""
    boxes = {name: page.shown(name, frame) for name in page.regions}
    return {name for name, box in boxes.items() if not math.isnan(box[0]) and box[2] > 0.1}


def test_like_tracks_the_box_and_all_its_like_in_its_class(page: Page, engine: StubEngine) -> None:
    name = page.draw(frame=30, label="Person", x=70, y=70)
    answered = page.command(name, "like")
    assert answered[0] == name
    assert len({*answered}) == 4
    assert {tuple(page.regions[each]["value"]["labels"]) for each in answered} == {("Person",)}
    assert page.item(name, 30)["human"] is True
    assert visible(page, 90) == {*answered} - {answered[2]}
    (phrase,) = engine.searched
    box = Box(448, 252, 524.8, 309.6)
    assert phrase == Phrase("", 29, (Exemplar(box),), "like")
    assert [prompt.frame for prompt in engine.prompted] == [29], "the box blocks what is found in its place"
    meta = page.regions[answered[1]]["meta"]
    assert meta["phrase"] == "like"
    assert meta["like"]["region"] == name


def test_words_narrow_it(page: Page, engine: StubEngine) -> None:
    name = page.draw(frame=30, x=70, y=70)
    assert len(page.command(name, "like  red")) == 2
    assert [(phrase.text, phrase.name, len(phrase.exemplars)) for phrase in engine.searched] == [("red", "like red", 1)]


@pytest.mark.parametrize("is_saved", [True, False])
def test_the_box_itself_and_what_is_there_are_never_doubled(page: Page, is_saved: bool) -> None:
    name = page.draw(**place(0))
    first = page.command(name, "like")
    assert len(first) == 3, "one of the three is the box itself"
    before = {each: json.dumps(page.regions[each]) for each in first[1:]}
    if is_saved:
        page.save()
    page.command(name, "like")
    assert {*page.regions} == {*first}
    assert {each: json.dumps(page.regions[each]) for each in before} == before


def test_what_was_deleted_stays_away(page: Page) -> None:
    name = page.draw(frame=30, x=70, y=70)
    first = page.command(name, "like")
    page.save()
    page.delete(first[1])
    page.save()
    page.command(name, "like")
    assert {*page.regions} == {*first} - {first[1]}


def test_like_on_a_finished_track_leaves_it_as_it_is(page: Page) -> None:
    name = page.draw(frame=30, x=70, y=70)
    page.press(name)
    before = page.regions[name]["value"]
    assert len(page.command(name, "like")) == 4
    assert page.regions[name]["value"] == before


def test_what_is_not_ready_comes_with_a_later_request(make_service) -> None:
    gate = Gate(until=12)
    page = Page(make_service(StubEngine(answering=FOUND, gate=gate, step=0.0), response_timeout=0.5))
    name = page.draw(frame=30, x=70, y=70)
    first = page.command(name, "like")
    assert all("partial" in page.regions[each]["meta"] for each in first)
    page.save()
    gate.open()
    again = page.press(name)
    assert {*again} == {*page.regions}
    assert len(page.regions) == 4
    assert not any("partial" in page.regions[each]["meta"] for each in again)


def test_unlike_takes_a_wrong_one_and_what_is_like_it_away(page: Page, engine: StubEngine) -> None:
    name = page.draw(frame=30, x=70, y=70)
    first = page.command(name, "like")
    engine.searched.clear()
    engine.answering = {"like": {"a": ALWAYS, "b": range(0), "c": ALWAYS}}
    answered = page.command(first[3], "unlike")
    assert {*answered} == {first[2], first[3]}
    assert visible(page, 30) == {name, first[1]}
    (phrase,) = engine.searched
    assert [exemplar.positive for exemplar in phrase.exemplars] == [True, False]
    assert engine.frames[-1] == 29, "only the frame of the example is searched"
    assert "taken away" in page.regions[first[3]]["meta"]["text"][-1]


def test_what_was_taken_away_stays_away(page: Page, engine: StubEngine) -> None:
    name = page.draw(frame=30, x=70, y=70)
    first = page.command(name, "like")
    page.command(first[3], "unlike")
    page.save()
    engine.searched.clear()
    page.command(name, "like")
    assert visible(page, 30) == {name, first[1], first[2]}
    assert [exemplar.positive for exemplar in engine.searched[-1].exemplars] == [True, False]
    page.command(first[1], "unlike")
    assert visible(page, 30) == {name, first[2]}
    assert [exemplar.positive for exemplar in engine.searched[-1].exemplars] == [True, False, False]


def test_unlike_leaves_what_a_person_has_edited(page: Page, engine: StubEngine) -> None:
    name = page.draw(frame=30, x=70, y=70)
    first = page.command(name, "like")
    page.drag(first[1], 30, y=50)
    engine.answering = {"like": {}}
    assert {*page.command(first[3], "unlike")} == {first[2], first[3]}
    assert first[1] in visible(page, 30)


def test_unlike_on_another_region_is_told_and_changes_nothing(page: Page) -> None:
    name = page.draw()
    before = page.regions[name]["value"]
    assert page.command(name, "unlike") == [name]
    assert page.regions[name]["value"] == before
    assert "unlike takes away what like has found" in page.regions[name]["meta"]["text"][0]


@pytest.mark.parametrize("line", ["like", "unlike"])
def test_an_engine_that_knows_no_examples_says_which_one_does(page: Page, monkeypatch, line: str) -> None:
    monkeypatch.setattr("backend.engines.knows_words", lambda name: False)
    name = page.draw()
    page.command(name, line)
    assert "set engine: sam3" in page.regions[name]["meta"]["text"][0]
    assert len(page.regions) == 1


def test_a_restart_between_like_and_unlike_changes_nothing(page: Page, engine: StubEngine, make_service) -> None:
    name = page.draw(frame=30, x=70, y=70)
    first = page.command(name, "like")
    page.save()
    page.service = make_service(engine)
    assert page.command(first[3], "unlike") == [first[3]]
    assert visible(page, 30) == {name, first[1], first[2]}
