"""The protocol over HTTP: every answer is JSON, every mistake a clear 4xx."""

import base64
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from flask.testing import FlaskClient

from backend.http.app import create_app
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.frame_strip import SignedVideo, Signer
from backend.labelstudio.media import MediaCache
from backend.settings import Limits
from backend.video import Video
from tests.clips import read_code, write_clip
from tests.fakes import Gate, StubEngine, fake_path
from tests.labelstudio.bodies import CONFIG, body, drawn, keyframe


@pytest.fixture
def client(make_service) -> FlaskClient:
    return create_app(make_service()).test_client()


def test_browsers_get_the_status_page_and_all_others_json(make_service) -> None:
    client = create_app(make_service(basic_auth_user="ann", basic_auth_pass="right")).test_client()
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    for path in ("/", "/jobs", "/jobs/1/picture.jpg", "/metrics", "/web/status.js"):
        assert client.get(path, headers=browser).status_code == 401, path
    page = client.get("/", headers=browser, auth=("ann", "right"))
    assert (page.status_code, page.mimetype, page.headers["Vary"]) == (200, "text/html", "Accept")
    assert client.get("/", auth=("ann", "right")).json["status"] == "UP"
    assert client.get("/jobs", auth=("ann", "right")).json["jobs"] == []


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
        assert answer.json["settings"]["response_timeout"] == 10
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
    monkeypatch.setattr(
        "backend.labelstudio.media.MediaCache.fetch",
        lambda _self, url, client, _: clients.append(client) or fake_path(),
    )
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
            'no words: no TextArea of the video is named "text_prompt"',
            "no clicks: there is no strip of frames",
            "track key: track (t)",
        ],
    }


def test_a_body_over_the_limit_is_refused(make_service) -> None:
    client = create_app(make_service(limits=Limits(body=1000))).test_client()
    answer = client.post("/predict", json=body(drawn(*(keyframe(frame) for frame in range(1, 99)))))
    assert answer.status_code == 413
    assert answer.json["error"]


def test_a_full_queue_is_503_with_a_time(make_service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.jobs.slots._MAX_RUNNING", 1)
    gate = Gate(until=0)
    client = create_app(make_service(StubEngine(gate=gate), limits=Limits(queue=1), response_timeout=0.1)).test_client()
    for name in ("runs", "waits"):
        assert client.post("/predict", json=body(drawn(keyframe(1), id=name))).status_code == 200
    answer = client.post("/predict", json=body(drawn(keyframe(1), id="too many")))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    gate.open()


def test_health_and_setup_answer_while_a_prediction_waits(make_service) -> None:
    gate = Gate(until=0)
    app = create_app(make_service(StubEngine(gate=gate), response_timeout=30))
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


@pytest.mark.parametrize(
    ("status", "word"),
    [("loading", "loading"), ("warming up", "warming up"), ("ready", "ready"), ("failed: no /models", "not ready")],
)
def test_readiness_needs_no_password_and_tells_nothing_else(make_service, status: str, word: str) -> None:
    service = make_service(StubEngine(status=status), basic_auth_user="ann", basic_auth_pass="right")
    answer = create_app(service).test_client().get("/health/ready")
    assert (answer.status_code, answer.json) == (200 if status == "ready" else 503, {"status": word})


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


FILM = "/data/upload/7/film.mp4"


@pytest.fixture
def film(make_service, monkeypatch, tmp_path: Path) -> Callable[..., FlaskClient]:
    """Asks a server that finds a clip of 12 frames, 25 a second, at the address FILM; settings as keywords."""
    clip = write_clip(tmp_path / "film.mp4", frames=12, bframes=2, size=(96, 64)).path
    (tmp_path / "text.mp4").write_text("this is no video")

    def fetched(_self: MediaCache, url: str, client: LabelStudioClient | None, *_: object) -> Path:
        return clip if url == FILM else tmp_path / "text.mp4"

    def serving(**settings: Any) -> FlaskClient:
        monkeypatch.setattr("backend.service.Signer.from_settings", lambda settings: Signer(tmp_path / "secret"))
        service = make_service(**settings)
        monkeypatch.setattr(MediaCache, "fetch", fetched)
        monkeypatch.setattr("backend.labelstudio.videos.Video", Video)
        return create_app(service).test_client()

    return serving


@pytest.fixture
def address(tmp_path: Path) -> Callable[..., str]:
    """Addresses of frames, as `project prepare` writes them into a task."""
    signer = Signer(tmp_path / "secret")
    return lambda number, framerate=25.0, url=FILM: f"/frames/{signer.key(SignedVideo(url, framerate))}/{number}.jpg"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framerate", "number", "code"),
    [
        (25, 1, 0),
        (25, 8, 7),
        (25, 12, 11),
        (50, 1, 0),
        (50, 2, 0),
        (50, 15, 7),
        (50, 24, 11),
        (12.5, 2, 2),
        (12.5, 6, 10),
    ],
)
def test_a_frame_is_the_picture_that_the_page_shows_there(
    film, address, framerate: float, number: int, code: int
) -> None:
    answer = film().get(address(number, framerate))
    assert (answer.status_code, answer.mimetype) == (200, "image/jpeg")
    picture = cv2.imdecode(np.frombuffer(answer.data, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (64, 96, 3)
    assert read_code(picture) == code


def test_a_frame_may_be_shown_on_other_pages_and_is_kept_by_the_browser_alone(film, address) -> None:
    headers = film().get(address(3)).headers
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Cache-Control"] == "private, max-age=86400, immutable"


def test_frames_need_no_login_and_all_else_does(film, address) -> None:
    client = film(basic_auth_user="ann", basic_auth_pass="paßword")
    assert client.get(address(3)).status_code == 200
    assert client.get(f"{address(3)}/").status_code == 401
    assert client.post(address(3)).status_code == 401
    assert client.get("/health").status_code == 401


@pytest.mark.parametrize(
    "changed",
    [
        lambda key: "",
        lambda key: key[1:],
        lambda key: key[:-4],
        lambda key: key[:30] + ("A" if key[30] != "A" else "B") + key[31:],
        lambda key: "x",
        lambda key: "A" * len(key),
        lambda key: "%C3%A4" + key,
    ],
    ids=range(7),
)
def test_an_address_that_was_not_signed_here_is_refused(film, address, changed: Callable[[str], str]) -> None:
    _, _, key, name = address(3).split("/")
    answer = film().get(f"/frames/{changed(key)}/{name}")
    if changed(key):
        assert (answer.status_code, "has no valid signature" in answer.json["error"]) == (400, True)
    else:
        assert answer.status_code == 404
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_new_secret_ends_the_addresses_of_the_old_one(film, address, tmp_path: Path) -> None:
    client, known = film(), address(3)
    (tmp_path / "secret").write_bytes(b"another")
    assert client.get(known).status_code == 400
    assert client.get(address(3)).status_code == 200


@pytest.mark.parametrize(("number", "framerate"), [(0, 25), (13, 25), (25, 50), (10**30, 25)])
def test_a_frame_that_the_video_does_not_have_is_refused(film, address, number: int, framerate: float) -> None:
    answer = film().get(address(number, framerate))
    length = round(12 * framerate / 25)
    assert (answer.status_code, answer.json["error"]) == (400, f"there is no frame {number}: the video has {length}")
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("name", ["-1.jpg", "1.5.jpg", "x.jpg", "1.png", "1"])
def test_what_is_no_frame_is_not_found(film, address, name: str) -> None:
    assert film().get(address(1).replace("1.jpg", name)).status_code == 404


def test_a_video_that_cannot_be_read_is_said_to_be(film, address) -> None:
    answer = film().get(address(1, url="/data/upload/7/text.mp4"))
    assert answer.status_code == 422
    assert "no video that can be decoded" in answer.json["error"]


def test_a_rate_that_cannot_be_right_is_said_to_be(film, address) -> None:
    for framerate in (0.0, -25.0, float("inf"), 1e9):
        answer = film().get(address(1, framerate))
        assert (answer.status_code, "cannot be right" in answer.json["error"]) == (400, True)


def test_a_frame_is_fetched_with_the_token_of_the_settings_alone(film, address, monkeypatch) -> None:
    clients: list[LabelStudioClient | None] = []
    there = film()
    monkeypatch.setattr(MediaCache, "fetch", lambda _self, url, client, *_: clients.append(client))
    there.post("/setup", json=setup_body())
    there.get(address(1))
    ours = film(label_studio_url="http://studio.example", label_studio_api_key="t0ken")
    monkeypatch.setattr(MediaCache, "fetch", lambda _self, url, client, *_: clients.append(client))
    ours.get(address(1))
    assert [client and client.url for client in clients] == [None, "http://studio.example"]
