"""Bodies as Label Studio 1.23.2 sent them, recorded in a browser and named after the gesture."""

import json
from pathlib import Path
from typing import Any

import pytest

from backend.http.app import create_app
from backend.labelstudio.commands import Command
from backend.labelstudio.label_config import parse_label_config as parse_config
from backend.labelstudio.request import PredictRequest, parse_prompt_field, parse_request
from backend.labelstudio.segments import cut_segments
from backend.predict.response_cache import ResponseCache
from backend.tracks.frame_range import FrameRange
from tests.fakes import FakeVideo, StubEngine

REQUESTS = Path(__file__).parent / "requests"


def recorded(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((REQUESTS / f"{name}.json").read_text())
    return body


def read(name: str) -> PredictRequest:
    body = recorded(name)
    parts = body["tasks"], body["params"]["context"], parse_config(body["label_config"])
    return parse_request(*parts, parse_prompt_field(*parts))


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
    (asked,) = interaction.region_prompts
    region = asked.region
    assert asked.classes == classes
    assert {item.frame for item in region.keyframes if item.is_human} == humans
    assert {item.frame for item in region.keyframes if item.is_corrected} == corrected
    assert [segment.kept is not None for segment in cut_segments(region, "forward")] == kept


def test_the_second_box_is_asked_for_and_the_first_is_counted() -> None:
    interaction = read("second_box_class_key")
    assert len(recorded("second_box_class_key")["params"]["context"]["result"]) == 2
    assert interaction.track_ids == {1}


@pytest.mark.parametrize("name", [path.stem for path in sorted(REQUESTS.glob("*.json"))])
def test_every_body_is_answered(make_service, name: str) -> None:
    body = recorded(name)
    path = "/setup" if name == "setup" else "/webhook" if "action" in body else "/predict"
    engine = StubEngine(answering={"star": {"star 1": range(1000)}, "circle": {"circle 1": range(1000)}})
    answer = create_app(make_service(engine, FakeVideo(count=100))).test_client().post(path, json=body)
    assert answer.status_code == 200
    if path == "/predict":
        context = body["params"]["context"]
        results = [region for prediction in answer.json["results"] for region in prediction["result"]]
        boxes = [region["id"] for region in results if region["type"] == "videorectangle"]
        interaction = read(name) if context else None
        if interaction and interaction.region_prompts:
            assert boxes == [interaction.region_prompts[0].region.id]
        else:
            assert bool(boxes) == bool(interaction)


def test_clicks_are_read_with_their_frames_and_signs() -> None:
    (clicked,) = read("clicked_on_another_picture").click_prompts
    assert [(click.frame, click.positive) for click in clicked.clicks] == [(1, True), (1, False), (51, True)]
    (clicked,) = read("clicked_after_reload").click_prompts
    assert [click.positive for click in clicked.clicks] == [None, None, True, True], "Label Studio forgets them"


def test_a_page_that_was_loaded_again_still_says_which_clicks_were_negative(make_service) -> None:
    interaction = read("clicked_after_reload")
    memory = ResponseCache(make_service().store)
    clicks = memory.sign_clicks(interaction.task, interaction.click_prompts[0].clicks, interaction.page)
    assert [click.positive for click in clicks] == [True, False, True, True]
    assert memory.region_id(interaction.task, interaction.click_prompts[0], interaction.page) in interaction.page


def test_a_line_of_words_is_the_last_one_and_ours_are_told_apart() -> None:
    first, second = read("words").prompt_field, read("words_second_line").prompt_field
    assert (first.text, first.own, first.is_marked) == ("star", ("star",), False)
    assert (second.text, second.own, second.is_marked) == ("all at 40", ("star", "all at 40"), True)
    assert first.id == second.id


def test_a_regions_line_is_its_command() -> None:
    (asked,) = read("line_of_a_region").region_prompts
    assert asked.command == Command(within=FrameRange(1, 50))
    assert asked.region.meta["phrase"] == "star"
