"""The protocol over HTTP: every answer is JSON, every mistake a clear 4xx."""

import base64
import json
import threading
import time
from typing import Any

import pytest
from flask.testing import FlaskClient

from backend.app import create_app
from backend.settings import Limits
from tests.fakes import Gate, StubEngine
from tests.labelstudio.bodies import CONFIG, body, drawn, keyframe


@pytest.fixture
def client(make_service) -> FlaskClient:
    return create_app(make_service()).test_client()


def setup_body(**changes: Any) -> dict[str, Any]:
    """As Label Studio 1.23.2 sends it."""
    known = {"project": "3.1795331021", "schema": CONFIG, "hostname": "http://127.0.0.1:8085", "access_token": "t0ken"}
    return known | {"extra_params": None} | changes


def test_the_first_look(client: FlaskClient) -> None:
    for path in ("/", "/health"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.json["status"] == "UP"
        assert answer.json["engine"] == "stub"
        assert answer.json["settings"]["answer_within"] == 10
    for method in (client.get, client.post):
        assert method("/versions").json == {"versions": ["stub-1"]}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"extra_params": {"a": 1}},
        {"extra_params": '{"a": 1}'},
        {"schema": "<View><broken"},
        {"schema": "<View/>"},
        {"schema": None},
        {"access_token": None, "hostname": None},
        {"project": None},
    ],
)
def test_setup_answers_whatever_the_project_is_like(client: FlaskClient, changes: dict) -> None:
    answer = client.post("/setup", json=setup_body(**changes))
    assert (answer.status_code, answer.json) == (200, {"model_version": "stub-1"})


def test_the_token_of_setup_fetches_the_tasks_of_that_project_alone(make_service, monkeypatch) -> None:
    clients = []
    service = make_service()
    monkeypatch.setattr("backend.labelstudio.media.Media.fetch", lambda _self, url, client, _: clients.append(client))
    app = create_app(service).test_client()
    app.post("/setup", json=setup_body())
    app.post("/predict", json=body(drawn(keyframe(1))))
    app.post("/predict", json=body(drawn(keyframe(1), id="other")) | {"project": "4.1795331021"})
    assert [known and known.url for known in clients] == ["http://127.0.0.1:8085", None]


def test_a_prediction(client: FlaskClient) -> None:
    answer = client.post("/predict", json=body(drawn(keyframe(1))), headers={"Authorization": "Bearer something"})
    assert answer.status_code == 200
    (prediction,) = answer.json["results"]
    assert prediction["model_version"] == "stub-1"
    assert prediction["result"][0]["value"]["sequence"][-1]["frame"] == 100


@pytest.mark.parametrize("params", [None, {}, {"context": None}, {"login": None, "password": None, "context": None}])
def test_without_a_context_there_is_nothing_to_say(client: FlaskClient, params: object) -> None:
    answer = client.post("/predict", json=body() | {"params": params})
    assert (answer.status_code, answer.json["results"]) == (200, [])


@pytest.mark.parametrize(
    ("path", "sent", "status", "sentence"),
    [
        ("/predict", {"data": "not json"}, 400, "must be a JSON object"),
        ("/predict", {"json": [1]}, 400, "must be a JSON object"),
        ("/predict", {"json": {}}, 400, "holds no tasks"),
        ("/predict", {"json": body() | {"params": {"context": [1]}}}, 400, "must be an object or null"),
        ("/predict", {"json": body(drawn(keyframe(1))) | {"label_config": "<View><"}}, 400, "not valid XML"),
        ("/predict", {"json": body(drawn(keyframe(1))) | {"label_config": None}}, 400, "not valid XML"),
        ("/predict", {"json": body(drawn(keyframe(1))) | {"tasks": [3]}}, 400, "holds no task"),
        ("/predict", {"json": body(drawn(keyframe(101)))}, 400, "no frame 101"),
        ("/predict", {"json": body({"type": "rectanglelabels"})}, 400, "draw a VideoRectangle box"),
        ("/setup", {"data": "x"}, 400, "must be a JSON object"),
        ("/webhook", {"data": "x"}, 400, "must be a JSON object"),
        ("/validate", {"json": {"config": "<View/>"}}, 400, "no Video tag"),
        ("/nowhere", {"json": {}}, 404, "Not Found"),
        ("/health", {"json": {}}, 405, "Method Not Allowed"),
    ],
)
def test_a_mistake_gets_its_status_and_a_sentence(client, path: str, sent: dict, status: int, sentence: str) -> None:
    answer = client.post(path, **sent)
    assert answer.status_code == status
    assert sentence in answer.json["error"]


@pytest.mark.parametrize(
    "sent", [{"action": "START_TRAINING"}, {"action": "ANNOTATION_CREATED", "project": {"id": 1}}, {}]
)
def test_a_webhook_is_heard(client: FlaskClient, sent: dict) -> None:
    assert client.post("/webhook", json=sent).status_code == 200


def test_a_valid_config_is_said_to_be(client: FlaskClient) -> None:
    assert client.post("/validate", json={"config": CONFIG}).json == {
        "status": "ok",
        "understood": [
            "boxes: box",
            "no words: there is no TextArea on the video",
            "no clicks: there is no strip of frames",
            "track key: track (t)",
        ],
    }


def test_a_body_over_the_limit_is_refused(make_service) -> None:
    client = create_app(make_service(limits=Limits(body=1000))).test_client()
    answer = client.post("/predict", json=body(drawn(*(keyframe(frame) for frame in range(1, 99)))))
    assert answer.status_code == 413
    assert answer.json["error"]


def test_a_full_queue_is_503_with_a_time(make_service) -> None:
    gate = Gate(until=0)
    client = create_app(make_service(StubEngine(gate=gate), limits=Limits(queue=1), answer_within=0.1)).test_client()
    for name in ("runs", "waits"):
        assert client.post("/predict", json=body(drawn(keyframe(1), id=name))).status_code == 200
    answer = client.post("/predict", json=body(drawn(keyframe(1), id="too many")))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    gate.open()


def test_health_and_setup_answer_while_a_prediction_waits(make_service) -> None:
    gate = Gate(until=0)
    app = create_app(make_service(StubEngine(gate=gate), answer_within=30))
    waiting = threading.Thread(target=lambda: app.test_client().post("/predict", json=body(drawn(keyframe(1)))))
    waiting.start()
    while not app.test_client().get("/health").json["jobs"]["running"]:
        time.sleep(0.01)
    assert app.test_client().post("/setup", json=setup_body()).status_code == 200
    assert waiting.is_alive()
    gate.open()
    waiting.join()


@pytest.mark.parametrize(
    "status", ["loading", "warming up", "ready", "failed: there is no folder sam3: set model_path"]
)
def test_health_shows_how_far_the_model_is(make_service, status: str) -> None:
    answer = create_app(make_service(StubEngine(status=status))).test_client().get("/health")
    assert (answer.status_code, answer.json["status"], answer.json["model"]) == (200, "UP", status)


def test_a_model_that_could_not_be_loaded_answers_every_prediction_with_the_mend(make_service) -> None:
    client = create_app(
        make_service(StubEngine(status="failed: there is no folder sam3: set model_path"))
    ).test_client()
    for _ in range(2):
        answer = client.post("/predict", json=body(drawn(keyframe(1))))
        assert (answer.status_code, answer.json["error"]) == (500, "there is no folder sam3: set model_path")
    assert client.get("/health").status_code == 200


def test_an_unforeseen_error_tells_nothing(client: FlaskClient, monkeypatch, caplog) -> None:
    def broken(*_: object) -> None:
        raise KeyError("/home/ann/secret")

    monkeypatch.setattr("backend.service.Service.predict", broken)
    answer = client.post("/predict", json=body(drawn(keyframe(1))))
    assert answer.status_code == 500
    assert "secret" not in answer.text + caplog.text
    assert "KeyError at" in caplog.text


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Basic " + base64.b64encode(b"ann:wrong").decode(), 401),
        ("Basic " + base64.b64encode(b"bob:pa\xc3\x9fword").decode(), 401),
        ("Basic " + base64.b64encode("ann:paßword".encode()).decode(), 200),
        ("Basic %%%", 401),
        ("Basic", 401),
        ("Bearer abc", 401),
    ],
)
def test_basic_authentication_guards_everything(make_service, header: str | None, status: int) -> None:
    client = create_app(make_service(basic_auth_user="ann", basic_auth_pass="paßword")).test_client()
    headers = {"Authorization": header} if header else {}
    for path in ("/health", "/versions", "/"):
        answer = client.get(path, headers=headers)
        assert answer.status_code == status
        assert status == 200 or "Basic" in answer.headers["WWW-Authenticate"]
    assert "paßword" not in json.dumps(client.get("/health", headers=headers).json, ensure_ascii=False)


def nested(**value: Any) -> dict[str, Any]:
    return body(drawn(keyframe(1)) | value)


def valued(**value: Any) -> dict[str, Any]:
    return nested(value=drawn(keyframe(1))["value"] | value)


HUGE = 10**400


@pytest.mark.parametrize(
    "sent",
    [
        nested(meta={"human": [[1]], "track_id": True, "ends": "x"}),
        nested(meta={"human": ["a", None], "track_id": HUGE, "partial": 3}),
        nested(meta=[1]),
        nested(score=HUGE),
        nested(score=float("nan")),
        valued(framesCount=HUGE, duration=float("inf")),
        valued(sequence=[keyframe(1, x=HUGE)]),
        valued(sequence=[keyframe(1) | {"frame": HUGE}]),
        valued(sequence=[keyframe(1, time=HUGE)]),
        valued(sequence=[keyframe(1, time=1e-6)]),
        valued(sequence=[keyframe(1, time=None)]) | {"tasks": [{"data": {"video": "/x", "fps": 0}}]},
        nested() | {"tasks": [{"id": None, "data": {"video": "http://\ud800", "fps": 25}}]},
    ],
    ids=range(12),
)
def test_strange_values_end_in_an_answer_or_a_4xx_and_in_real_json(client: FlaskClient, sent: dict) -> None:
    answer = client.post("/predict", data=json.dumps(sent), content_type="application/json")
    assert answer.status_code in (200, 400)

    def refused(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    json.loads(answer.text, parse_constant=refused)


@pytest.mark.parametrize("path", ["/predict", "/setup", "/webhook", "/validate"])
def test_a_body_that_is_nested_without_end_is_a_mistake(client: FlaskClient, path: str) -> None:
    assert client.post(path, data="[" * 200_000, content_type="application/json").status_code == 400
