"""The law of answers, over random sequences of what people do, what is saved, and what is answered."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.labelstudio.keyframe import parse_keyframes
from backend.labelstudio.region import fingerprint_keyframes, parse_region
from backend.tracks.frame_range import ALL_FRAMES
from tests.fakes import FakeVideo, StubEngine
from tests.predict.page import Page

FOUND = {"car": {"car 1": range(1000), "car 2": range(10, 30)}, "person": {"person 1": range(1000)}}
FOUND |= {"like": {"like 1": range(1000), "like 2": range(5, 30)}, "like red": {"like red 1": range(1000)}}

places = st.integers(0, 70)
which = st.integers(0, 5)
frames = st.integers(1, 40)
steps = st.one_of(
    st.tuples(st.just("draw"), frames, places, st.sampled_from(["Car", "Person"])),
    st.tuples(st.just("press"), which),
    st.tuples(st.just("drag"), which, frames, places),
    st.tuples(
        st.just("command"),
        which,
        st.sampled_from(
            ["back", "both", "to 20", "from 5 to 15", "redo", "stop", "x", "like", "like red", "unlike", "unlike"]
        ),
    ),
    st.tuples(
        st.just("type"),
        st.sampled_from(["car", "car, person", "all", "car at 12", "person from 5 to 20", "car redo", "dog", "car,"]),
    ),
    st.tuples(st.just("click"), st.integers(0, 3), places, st.booleans(), st.sampled_from(["object 1", "object 2"])),
    st.tuples(st.just("delete"), which),
    st.tuples(st.just("save")),
    st.tuples(st.just("reload")),
    st.tuples(st.just("edit while waiting"), which, frames, places),
)


class Witness:
    """Does what the steps say to a page, and keeps what a person has set, to compare."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.human: dict[str, dict[int, dict[str, float]]] = {}
        self.deleted: set[str] = set()

    def do(self, step: tuple[Any, ...]) -> None:
        kind, *rest = step
        getattr(self, kind.replace(" ", "_"))(*rest)

    def draw(self, frame: int, x: int, label: str) -> None:
        name = self.page.draw(frame, label, x=x)
        self.human[name] = {frame: {"x": x}}

    def press(self, number: int) -> None:
        self._ask(number, lambda name: self.page.press(name))

    def command(self, number: int, line: str) -> None:
        self._ask(number, lambda name: self.page.command(name, line))

    def drag(self, number: int, frame: int, x: int) -> None:
        if name := self._name(number):
            self.page.drag(name, frame, x=x)
            (item,) = parse_keyframes([self.page.item(name, frame)])
            if item.is_corrected:
                self.human.setdefault(name, {})[frame] = {"x": x}

    def type(self, line: str) -> None:
        self._answered(lambda: self.page.type(line), set())
        assert line in self.page.lines, "a person's own line is kept"

    def click(self, picture: int, x: int, positive: bool, label: str) -> None:
        if not positive and not any(one["value"]["labels"] == [label] for one in self.page.points.values()):
            return
        points = {one["id"] for one in self.page.points.values() if one["value"]["labels"] == [label]}
        made = {name: {*region.get("meta", {}).get("points", ())} for name, region in self.page.regions.items()}
        mine = {name for name, of in made.items() if of & points}
        self.page.save()  # what clicks make is the one thing that goes on under rule 2: its copy has to be the page's
        deleted, self.deleted = self.deleted, set()  # a further click brings its track back
        self._answered(lambda: self.page.click(picture, x, 50, label, positive), mine)
        self.deleted = deleted - {*self.page.regions}

    def delete(self, number: int) -> None:
        if name := self._name(number):
            self.page.delete(name)
            self.deleted.add(name)
            self.human.pop(name, None)

    def save(self) -> None:
        self.page.save()

    def reload(self) -> None:
        self.page.reload()

    def edit_while_waiting(self, number: int, frame: int, x: int) -> None:
        """Another region is dragged after a phrase was asked and before its answer is applied."""
        service, answered = self.page.service, list[dict[str, Any]]()
        apply = self.page.apply
        self.page.apply = lambda predictions: answered.extend(predictions) or []
        self.page.type("person")
        self.page.apply = apply
        self.drag(number, frame, x)
        self._answered(lambda: apply(answered), set())
        assert service is self.page.service

    def _ask(self, number: int, do: Callable[[str], list[str]]) -> None:
        if name := self._name(number):
            asked = {key for key, region in self.page.regions.items() if region["origin"] == "prediction-changed"} | {
                key for key, region in self.page.regions.items() if region["origin"] == "manual"
            }
            self._answered(lambda: do(name), asked | {name})

    def _answered(self, do: Callable[[], list[str]], asked: set[str]) -> None:
        before = json.loads(json.dumps(self.page.regions))
        saved = {one["id"]: one for one in self.page.saved if one["type"] == "videorectangle"}
        names = do()
        sent = {name: before[name] for name in before if name in self.page.sent}
        assert len(names) == len(set(names))
        for name in {*names} - asked:
            if name in before or name in self.deleted:
                region = parse_region(sent.get(name) or saved[name])
                taken = self.page.regions[name]["meta"].get("unlike")
                may_grow = region.is_partial or region.search_range != ALL_FRAMES
                assert may_grow or taken, "only what is unfinished goes on unasked, or is taken away"
                assert self.classes(name) == [one for one in region.labels if one != "▶ t"], "in its class"
                seal = fingerprint_keyframes(region.keyframes)
                assert seal == region.meta["seal"], "only what nobody has edited goes on unasked"
                # What was done to it after the page was saved is the one thing that may be lost.
                known = {keyframe.frame for keyframe in region.keyframes if keyframe.is_human}
                of_region = self.human.get(name, {})
                self.human[name] = {frame: box for frame, box in of_region.items() if frame in known}
                self.deleted.discard(name)
        for name, shown in self.page.regions.items():
            if name not in names and name in before:
                assert json.dumps(shown) == json.dumps(before[name]), "what was not answered is as it was"
        assert not self.deleted & {*self.page.regions}, "what was deleted stays so"
        for name in [name for name in self.human if "unlike" in self.page.regions[name].get("meta", {})]:
            assert name in asked or name not in names, "only the region with the line `unlike`, if it was edited"
            del self.human[name]
        for name, set_by_hand in self.human.items():
            for frame, box in set_by_hand.items():
                item = self.page.item(name, frame)
                assert {key: item[key] for key in box} == box
        numbers = [
            region["meta"]["track_id"] for region in self.page.regions.values() if "track_id" in region.get("meta", {})
        ]
        assert len(numbers) == len(set(numbers))

    def classes(self, name: str) -> list[str]:
        labels = self.page.regions[name]["value"].get("labels", [])
        return [label for label in labels if label != "▶ t"]

    def _name(self, number: int) -> str | None:
        names = [*self.page.regions]
        return names[number % len(names)] if names else None


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=12))
def test_the_law_of_answers(service_once, taken: list[tuple[Any, ...]]) -> None:
    witness = Witness(Page(service_once))
    for step in taken:
        witness.do(step)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.lists(steps, max_size=12))
def test_the_law_of_answers_to_unfinished_jobs(busy_service, taken: list[tuple[Any, ...]]) -> None:
    witness = Witness(Page(busy_service))
    for step in taken:
        witness.do(step)


@pytest.fixture
def service_once(make_service):
    return make_service(StubEngine(answering=FOUND), FakeVideo(count=40))


@pytest.fixture
def busy_service(make_service):
    engine = StubEngine(answering=FOUND, gate=lambda _: time.sleep(0.001))
    return make_service(engine, FakeVideo(count=40), response_timeout=0.02)
