"""Controls that are the annotators' own, beside boxes that are tracked."""

from typing import Any

import pytest

from backend.service import Service
from tests.fakes import StubEngine
from tests.labelstudio.bodies import CONFIG, asked_again, body, drawn, keyframe

OWN = """<TextArea name="story" toName="video"/><TextArea name="remark" toName="video" perRegion="true"/>
  <Choices name="side" toName="video" perRegion="true"><Choice value="left"/></Choices></View>"""


@pytest.fixture
def engine() -> StubEngine:
    return StubEngine(answering={"a red car": {"a": range(100)}})


@pytest.fixture
def service(make_service, engine: StubEngine) -> Service:
    return make_service(engine)


def ask(service: Service, *results: dict[str, Any]) -> list[dict[str, Any]]:
    request = body(*results)
    config = CONFIG.replace("</View>", OWN)
    predictions = service.predict(request["tasks"], request["params"]["context"], config, request["project"])
    return predictions[0]["result"] if predictions else []


def linked(box: dict[str, Any], kind: str, name: str, value: Any) -> dict[str, Any]:
    """A result of a per-region control, as the page sends it: with a copy of the box."""
    return {**box, "type": kind, "from_name": name, "value": {**box["value"], **value} if value else value}


def test_a_description_is_neither_searched_nor_written(service: Service, engine: StubEngine) -> None:
    text = {"type": "textarea", "from_name": "story", "to_name": "video", "origin": "manual", "id": "t"}
    assert ask(service, {**text, "value": {"text": ["a red car"]}}) == []
    assert engine.frames == []


def test_what_is_said_of_a_box_comes_back_with_its_track(service: Service) -> None:
    box = drawn(keyframe(1))
    remark = linked(box, "textarea", "remark", {"text": ["seen from behind"]})
    side = linked(box, "choices", "side", {"choices": ["left"]})
    empty = linked(box, "textarea", "remark", None)
    track, *others = ask(service, box, remark, side, empty)
    assert track["value"]["sequence"][-1]["frame"] == 100
    assert [(one["id"], one["from_name"], one["value"]) for one in others] == [
        (box["id"], "remark", {"text": ["seen from behind"], "labels": ["Car"]}),
        (box["id"], "side", {"choices": ["left"], "labels": ["Car"]}),
        (box["id"], "remark", None),
    ]
    again, *others = ask(service, asked_again(track), remark)
    assert (again["value"]["sequence"], len(others)) == (track["value"]["sequence"], 1)


def test_a_class_of_its_own_result_comes_back_in_the_region(service: Service) -> None:
    box = drawn(keyframe(1), labels=())
    del box["value"]["labels"]
    person = linked(box, "labels", "videoLabels", {"labels": ["Person"]})
    (track,) = ask(service, box, person)
    assert track["value"]["labels"] == ["Person"]
