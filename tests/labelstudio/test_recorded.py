"""Bodies as Label Studio 1.23.2 sent them, recorded in a browser and named after the gesture."""

import json
from pathlib import Path
from typing import Any

import pytest

from backend.app import create_app
from backend.labelstudio.config import parse as parse_config
from backend.labelstudio.interactions import Interaction, parse
from backend.labelstudio.segments import cut
from tests.fakes import FakeVideo

REQUESTS = Path(__file__).parent / "requests"


def recorded(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((REQUESTS / f"{name}.json").read_text())
    return body


def read(name: str) -> Interaction:
    body = recorded(name)
    return parse(body["tasks"], body["params"]["context"], parse_config(body["label_config"]))


@pytest.mark.parametrize(
    ("name", "classes", "humans", "corrected", "kept"),
    [
        # Drawn, clicked, t: nothing but the person's box.
        ("box_drawn_t", ("Car",), {1}, {1}, [True, False]),
        # A class given to a track that had none, by an answer without labels: all of it stays.
        ("tracked_class_key", ("Car",), {1}, set(), [True, True]),
        # Dragged where there was no keyframe: Label Studio copied the next one's fingerprint into it.
        ("dragged_between_keyframes_t", ("Car",), {1, 40}, {40}, [True, False, False]),
        # Drawn while another track of the same class is shown, which is not asked for.
        ("second_box_class_key", ("Car",), {1}, {1}, [True, False]),
        # Submitted, reloaded, t: still known for what they are.
        ("reloaded_t", ("Car",), {1, 40}, set(), [True, True, True]),
    ],
)
def test_the_gesture_is_understood(name, classes, humans, corrected, kept) -> None:
    interaction = read(name)
    assert interaction.framerate == pytest.approx(25)
    (asked,) = interaction.asked
    region = asked.region
    assert asked.classes == classes
    assert {item.frame for item in region.items if item.is_human} == humans
    assert {item.frame for item in region.items if item.is_corrected} == corrected
    assert [segment.kept is not None for segment in cut(region, "forward")] == kept


def test_the_second_box_is_asked_for_and_the_first_is_counted() -> None:
    interaction = read("second_box_class_key")
    assert len(recorded("second_box_class_key")["params"]["context"]["result"]) == 2
    assert interaction.track_ids == {1}


@pytest.mark.parametrize("name", [path.stem for path in sorted(REQUESTS.glob("*.json"))])
def test_every_body_is_answered(make_service, name: str) -> None:
    body = recorded(name)
    path = "/setup" if name == "setup" else "/webhook" if "action" in body else "/predict"
    answer = create_app(make_service(video=FakeVideo(count=100))).test_client().post(path, json=body)
    assert answer.status_code == 200
    if path == "/predict":
        context = body["params"]["context"]
        results = [region for prediction in answer.json["results"] for region in prediction["result"]]
        assert [region["id"] for region in results] == ([read(name).asked[0].region.id] if context else [])
