"""Tracks before anybody asks: queued once, answered from what is kept, posted once."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import request

from backend.labelstudio.keyframe import parse_keyframes
from backend.service import Service
from tests.fakes import Gate, StubEngine
from tests.labelstudio.bodies import CONFIG, body, drawn, keyframe
from tests.labelstudio.studio import PROJECT, TOKEN, Studio

FOUND = {"car": {"x": range(5, 60), "y": range(40, 100)}, "person": {}, "dog": {"z": range(100)}}


@pytest.fixture
def studio() -> Iterator[Studio]:
    with Studio(CONFIG) as studio:
        yield studio


@pytest.fixture
def serving(make_service: Callable[..., Service], studio: Studio) -> Callable[..., Service]:
    def serve(gate: Gate | None = None, **settings: Any) -> Service:
        known = {"label_studio_url": studio.url, "label_studio_api_key": TOKEN, "pre_annotate": "labels"}
        return make_service(StubEngine(answering=FOUND, gate=gate), **{**known, **settings})

    return serve


def task(number: int = 7, **data: Any) -> dict[str, Any]:
    return {"id": number, "data": {"video": "/data/upload/1/clip.mp4", "fps": 25, **data}}


def asked(service: Service, *tasks: dict[str, Any]) -> list[Any]:
    return service.predict(list(tasks) or [task()], None, CONFIG, "3")


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_off_it_says_and_does_nothing(serving) -> None:
    service = serving(pre_annotate="off")
    assert asked(service) == []
    assert service.scheduler.jobs(9) == []


def test_it_is_queued_once_and_posted_once(serving, studio: Studio) -> None:
    gate = Gate(50)
    service = serving(gate)
    began = time.monotonic()
    for _ in range(3):
        assert asked(service) == []
    assert time.monotonic() - began < service.settings.response_timeout, "nobody waits"
    gate.open()
    until(lambda: studio.predictions)
    (prediction,) = studio.predictions
    assert (prediction["task"], prediction["model_version"]) == (7, "stub-1")
    assert [region["value"]["labels"] for region in prediction["result"]] == [["Car"], ["Car"]]
    assert [region["meta"]["track_id"] for region in prediction["result"]] == [1, 2]
    first = parse_keyframes(prediction["result"][0]["value"]["sequence"])
    assert (first[0].frame, first[-1].frame, first[-1].enabled) == (6, 60, False)
    (job,) = service.scheduler.jobs(9)
    assert (job.row.batch, job.state) == (True, "done")
    # Asked for again it is not answered, too: Label Studio would have it twice. Deleted there, it is given once more.
    assert asked(service) == []
    time.sleep(0.2)
    assert len(studio.predictions) == 1
    studio.predictions.clear()
    assert asked(service) == []
    until(lambda: studio.predictions)
    assert studio.predictions[0]["result"] == prediction["result"]


@pytest.mark.parametrize("status", [400, 404, 413])
def test_what_label_studio_will_never_take_is_not_offered_for_ever_but_answered(serving, studio, status: int) -> None:
    service = serving()
    studio.failing = lambda: ("no", status) if request.method == "POST" else None
    asked(service)
    until(lambda: service.store.latest(1)[0].posted)
    ((answer),) = asked(service)
    assert len(answer["result"]) == 2


def test_tasks_are_answered_in_their_places(serving, studio: Studio) -> None:
    service = serving()
    asked(service, task(7))
    until(lambda: studio.predictions and service.store.latest(1)[0].posted)
    studio.failing = lambda: ("no", 400) if request.method == "POST" else None
    studio.predictions.clear()
    asked(service, task(7))
    until(lambda: service.store.latest(1)[0].posted)
    nothing, found, broken = asked(service, task(8), task(7), {"id": 9, "data": {}})
    assert (nothing, broken) == ([], [])
    assert len(found["result"]) == 2


def test_a_field_of_the_task_may_hold_the_words(serving, studio: Studio) -> None:
    service = serving(pre_annotate="prompt")
    assert asked(service, task(7, prompt="dog, nothing"), task(8), task(9, prompt=["dog"])) == []
    until(lambda: len(studio.predictions) == 2)
    assert {one["task"] for one in studio.predictions} == {7, 9}
    assert [one["meta"]["phrase"] for one in studio.predictions[0]["result"]] == ["dog"]


def test_a_label_studio_that_has_it_already_gets_no_other(serving, studio: Studio) -> None:
    studio.predictions.append({"task": 7, "model_version": "stub-1", "result": []})
    service = serving()
    asked(service)
    until(lambda: service.scheduler.jobs(1)[0].state == "done" and not service.store.unposted())
    assert len(studio.predictions) == 1


def test_what_was_not_taken_is_posted_later(serving, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.predict.preannotation._RETRY_SECONDS", 0.05)
    studio.failing = lambda: ("busy", 503)
    service = serving()
    asked(service)
    until(lambda: any(path == "/api/predictions" for _, path, _ in studio.seen))
    studio.failing = lambda: None
    until(lambda: studio.predictions)
    assert len(studio.predictions) == 1


def test_what_was_accepted_is_posted_by_the_next_process(serving, studio: Studio, tmp_path) -> None:
    gate = Gate(50)
    service = serving(gate, data_dir=tmp_path / "same")
    asked(service)
    until(lambda: service.scheduler.jobs(1)[0].progress()[0] == 50)
    gate.open()
    service.close()
    serving(data_dir=tmp_path / "same")
    until(lambda: studio.predictions)
    assert len(studio.predictions) == 1


def test_who_asks_goes_first(serving, studio: Studio) -> None:
    gate = Gate(50)
    service = serving(gate)
    asked(service, task(8))
    until(lambda: service.scheduler.jobs(1)[0].progress()[0] == 50)
    gate.open()
    request = body(drawn(keyframe(1)))
    (answer,) = service.predict(request["tasks"], request["params"]["context"], CONFIG, "3")
    assert "partial" not in answer["result"][0]["meta"]
    until(lambda: studio.predictions)


def test_start_training_annotates_the_whole_project_once(serving, studio: Studio) -> None:
    for number in range(3):
        studio.add_task({"video": f"/data/{number}.mp4", "fps": 25})
    service = serving()
    for _ in range(2):
        service.preannotation.train({"id": PROJECT, "label_config": CONFIG})
        until(lambda: len(studio.predictions) == 3)
    time.sleep(0.1)
    assert sorted(one["task"] for one in studio.predictions) == [1, 2, 3]
    off = serving(pre_annotate="off")
    off.preannotation.train({"id": PROJECT, "label_config": CONFIG})
    assert off.scheduler.jobs(9) == []


def posted(service: Service, studio: Studio) -> None:
    until(lambda: studio.predictions and not service.store.unposted())


def replaced(prediction: dict[str, Any], **changes: Any) -> list[dict[str, Any]]:
    """A prediction's regions as an annotation has them."""
    return [one | {"origin": "manual", **changes} for one in prediction["result"]]


def test_what_is_annotated_already_keeps_its_identity_and_no_used_number_is_given(serving, studio: Studio) -> None:
    service = serving()
    asked(service)
    posted(service, studio)
    (made,) = studio.predictions
    first, second = replaced(made)
    older = [first | {"id": "older", "meta": {"track_id": 4}}]
    newest = [first | {"id": "newest", "meta": {"track_id": 8}}]
    skipped = [second | {"id": "skipped", "meta": {"track_id": 2}}]
    studio.annotations[7] = [
        {"id": 1, "result": newest, "updated_at": "2026-11-25T10:00:00Z"},
        {"id": 2, "result": older, "updated_at": "2026-11-24T10:00:00Z"},
        {"id": 3, "result": skipped, "updated_at": "2026-11-26T10:00:00Z", "was_cancelled": True},
    ]
    studio.drafts[7] = [{"id": 1, "result": [second | {"id": "draft", "meta": {"track_id": 11}}, {"type": "textarea"}]}]
    studio.predictions.clear()
    asked(service)
    posted(service, studio)
    (again,) = studio.predictions
    assert [(one["id"], one["meta"]["track_id"]) for one in again["result"]] == [("newest", 8), (second["id"], 12)]
    assert again["neighbors"] == {"phrases": ["car", "person"], "last": 12}


def test_an_earlier_prediction_counts_for_more_than_an_annotation(serving, studio: Studio) -> None:
    service = serving()
    asked(service)
    posted(service, studio)
    (made,) = studio.predictions
    studio.annotations[7] = [{"id": 1, "result": replaced(made, meta={"track_id": 5}, id="theirs")[:1]}]
    made["model_version"] = "stub-0"
    asked(service)
    until(lambda: len(studio.predictions) == 2)
    ids = [[(one["id"], one["meta"]["track_id"]) for one in each["result"]] for each in studio.predictions]
    assert ids[0] == ids[1]


def test_ids_stay_different_where_the_jobs_own_is_anothers_by_now(serving, studio: Studio) -> None:
    service = serving()
    asked(service)
    posted(service, studio)
    (made,) = studio.predictions
    first, second = replaced(made)
    studio.annotations[7] = [{"id": 1, "result": [first | {"id": second["id"]}]}]
    studio.predictions.clear()
    asked(service)
    posted(service, studio)
    ids = [one["id"] for one in studio.predictions[0]["result"]]
    assert ids[0] == second["id"]
    assert ids[1] not in (first["id"], second["id"])


def test_a_prediction_of_this_model_that_is_not_known_to_be_for_other_words_is_left(serving, studio: Studio) -> None:
    service = serving()
    asked(service)
    posted(service, studio)
    studio.predictions[0]["neighbors"] = None
    assert service.preannotation.has_prediction(service.connections.client("3"), 7, ("dog",))
    studio.predictions[0]["neighbors"] = {"phrases": ["car"]}
    assert not service.preannotation.has_prediction(service.connections.client("3"), 7, ("dog",))
    assert service.preannotation.has_prediction(service.connections.client("3"), 7)
    studio.predictions.append(studio.predictions[0] | {"neighbors": {"phrases": ["dog"]}})
    assert not service.preannotation.has_prediction(service.connections.client("3"), 7, ("dog",)), (
        "the other is still to go"
    )


def test_a_stale_prediction_that_cannot_be_taken_away_now_goes_later(serving, studio: Studio, monkeypatch) -> None:
    monkeypatch.setattr("backend.predict.preannotation._RETRY_SECONDS", 0.05)
    studio.predictions.append({"id": 99, "task": 7, "model_version": "stub-1", "neighbors": {"phrases": ["bus"]}})
    studio.failing = lambda: ("busy", 503) if request.method == "DELETE" else None
    service = serving()
    asked(service)
    until(lambda: sum(method == "DELETE" for method, _ in studio.changes) > 1)
    assert len(studio.predictions) == 2
    assert asked(service) == [], "Label Studio has it, so it is not answered"
    studio.failing = lambda: None
    until(lambda: len(studio.predictions) == 1 and not service.store.unposted())
    assert studio.predictions[0]["neighbors"]["phrases"] == ["car", "person"]
    assert sum(method == "POST" for method, _ in studio.changes) == 1
