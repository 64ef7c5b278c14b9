"""X-AnyLabeling's Remote-Server over HTTP, with pictures that are kept as a video and a stub engine."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from backend.http.app import create_app
from backend.settings import Limits
from tests.fakes import Gate, StubEngine
from tests.jobs.test_scheduler import until
from tests.stub_service import StubService

WIDTH, HEIGHT, LENGTH = 320, 180, 40


def picture(number: int, suffix: str = ".jpg") -> str:
    content = np.full((HEIGHT, WIDTH, 3), number * 5, np.uint8)
    encoded = cv2.imencode(suffix, content)[1].tobytes()
    return f"data:image/{suffix[1:].replace('jpg', 'jpeg')};base64,{base64.b64encode(encoded).decode()}"


FRAMES = [picture(number) for number in range(LENGTH)]
HEADERS = {"Token": "", "Content-Type": "application/json"}
ENGINE = "stub"


class Client:
    """Sends what the client sends."""

    def __init__(self, service: StubService, token: str = "") -> None:
        self.service = service
        self.http = create_app(service).test_client()
        self.headers = HEADERS | {"Token": token}
        self.session = ""

    def post(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body)
        return self.http.post(f"/v1/video/{path}", data=data, headers=self.headers)

    def data(self, path: str, body: object = None) -> dict:
        response = self.post(path, body)
        assert response.status_code == 200, response.text
        assert response.json["success"] is True
        return response.json["data"]

    def refusal(self, path: str, body: object = None, status: int = 400) -> str:
        response = self.post(path, body)
        assert response.status_code == status, response.text
        assert response.json["success"] is False
        return response.json["error"]["message"]

    def init(self, frames: list[str] = FRAMES) -> dict:
        value = self.data("init", {"model": ENGINE, "frames": frames, "start_frame_index": 0})
        self.session = value["session_id"]
        return value

    def prompt(self, frame: int, **fields: Any) -> list[dict]:
        params = fields.pop("params", {"conf_threshold": 0.25, "epsilon_factor": 0.001})
        body = {"session_id": self.session, "model": ENGINE, "frame_index": frame, "params": params, **fields}
        value = self.data("prompt", body)
        assert value["frame_index"] == frame
        assert value["num_objects"] == len({shape["group_id"] for shape in value["masks"]})
        return value["masks"]

    def click(self, frame: int, *points: tuple[float, float], labels: list[int] | None = None, **fields) -> list[dict]:
        signs = labels or [1] * len(points)
        return self.prompt(frame, points=[list(point) for point in points], point_labels=signs, obj_id=10000, **fields)

    def stream(self, **fields: Any) -> list[dict]:
        response = self.post("propagate/stream", {"session_id": self.session, "model": ENGINE, **fields})
        assert response.mimetype == "text/event-stream", response.text
        return read_events(response.text)

    def results(self, **fields: Any) -> dict[int, list[dict]]:
        events = self.stream(**fields)
        assert (events[0]["type"], events[-1]["type"]) == ("started", "completed"), events
        return {int(frame): entry["masks"] for frame, entry in events[-1]["results"].items()}


def read_events(text: str) -> list[dict]:
    """As the client: lines that begin with "data: "; others are skipped."""
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


def hull(shape: dict) -> tuple[float, float, float, float]:
    points = np.array(shape["points"])
    return (*points.min(0).tolist(), *points.max(0).tolist())


@pytest.fixture
def make_client(make_service, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Client]:
    def make(engine: StubEngine | None = None, token: str = "", **values: Any) -> Client:
        service = make_service(engine or StubEngine(masks=True), doors=("x-anylabeling",), **values)
        from backend.video import Video

        monkeypatch.setattr("backend.jobs.worker.Video", Video)
        return Client(service, token)

    return make


@pytest.fixture
def client(make_client) -> Client:
    client = make_client()
    client.init()
    return client


def test_it_is_off_unless_the_settings_say_so(make_service) -> None:
    assert create_app(make_service()).test_client().get("/v1/models").status_code == 404


def test_the_model_has_the_widgets_that_its_engine_can_use(make_client, monkeypatch) -> None:
    client = make_client()
    models = client.http.get("/v1/models", headers=HEADERS).json["data"]
    (info,) = models.values()
    assert info["batch_processing_mode"] == "video"
    names = {widget["name"]: widget["value"] for widget in info["widgets"]}
    assert {
        "button_add_point",
        "button_remove_point",
        "button_finish_object",
        "edit_text",
        "button_send",
    } <= names.keys()
    assert (names["edit_conf"], names["mask_fineness_slider"]) == (0.25, 10)
    assert client.http.get(f"/v1/models/{ENGINE}/info", headers=HEADERS).json["data"]["model_id"] == ENGINE
    assert client.http.get("/v1/models/none/info", headers=HEADERS).status_code == 404
    monkeypatch.setattr("backend.xanylabeling.upload_sessions.knows_words", lambda name: False)
    (info,) = client.http.get("/v1/models", headers=HEADERS).json["data"].values()
    assert "edit_text" not in {widget["name"] for widget in info["widgets"]}


def test_a_folder_is_kept_once_and_known_again(make_client) -> None:
    client = make_client()
    first = client.init()
    assert (first["num_frames"], first["start_frame_index"]) == (LENGTH, 0)
    assert client.init()["session_id"] != first["session_id"]
    folder: Path = client.service.settings.data_dir / "uploads"
    assert len([path for path in folder.iterdir() if path.suffix != ".index"]) == 1
    client.init(FRAMES[:5])
    assert len([path for path in folder.iterdir() if path.suffix != ".index"]) == 2


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"model": ENGINE, "frames": []}, "no pictures"),
        ({"model": ENGINE}, "no pictures"),
        ({"model": "other", "frames": FRAMES[:2]}, "no model 'other'"),
        ({"model": ENGINE, "frames": ["data:image/jpeg;base64,AAAA"]}, "picture 0 cannot be read"),
        ({"model": ENGINE, "frames": ["x"]}, "picture 0 is not a data URI"),
        ([1], "must be a JSON object"),
    ],
)
def test_pictures_that_are_none(make_client, body: object, sentence: str) -> None:
    client = make_client()
    assert sentence in client.refusal("init", body)
    assert list((client.service.settings.data_dir / "uploads").glob("*.part")) == []


def test_pictures_have_a_limit_of_their_own(make_client) -> None:
    body = {"model": ENGINE, "frames": FRAMES, "start_frame_index": 0}
    size = len(json.dumps(body))
    assert make_client(limits=Limits(body=1000, upload=size)).init()["num_frames"] == LENGTH
    assert "limits.upload" in make_client(limits=Limits(upload=size - 1)).refusal("init", body)


def test_a_click_gives_a_polygon_and_further_ones_refine_it(client: Client) -> None:
    (shape,) = client.click(3, (0.5, 0.5))
    assert (shape["label"], shape["shape_type"], shape["group_id"]) == ("AUTOLABEL_OBJECT", "polygon", 1)
    assert shape["points"][0] == shape["points"][-1]
    assert hull(shape) == pytest.approx((140, 70, 180, 110), abs=1)
    (refined,) = client.click(3, (0.5, 0.5), (0.6, 0.5), labels=[1, 0])
    assert refined["group_id"] == 1
    (other,) = client.click(3, (0.2, 0.2))
    assert other["group_id"] == 2
    (elsewhere,) = client.click(5, (0.2, 0.2))
    assert elsewhere["group_id"] == 3, "the same clicks on another picture are another object"
    assert client.service.engine.encoded == [3, 5]


def test_words_of_several_classes_on_one_line(make_client) -> None:
    answering = {"car": {"car 1": range(LENGTH), "car 2": range(LENGTH)}, "bus": {"bus 1": range(LENGTH)}}
    client = make_client(StubEngine(masks=True, answering=answering))
    client.init()
    shapes = client.prompt(4, text_prompt="car, bus")
    assert sorted(shape["label"] for shape in shapes) == ["bus", "car", "car"]
    assert len({shape["group_id"] for shape in shapes}) == 3
    results = client.results(start_frame=4)
    assert sorted(results) == list(range(4, LENGTH))
    groups = {shape["group_id"]: shape["label"] for masks in results.values() for shape in masks}
    assert groups == {shape["group_id"]: shape["label"] for shape in shapes}, "numbers stay"


def test_objects_are_tracked_from_where_they_were_clicked(client: Client) -> None:
    client.click(5, (0.5, 0.5))
    client.click(10, (0.2, 0.5))
    results = client.results(start_frame=10)
    assert sorted(results) == list(range(5, LENGTH))
    assert [len(results[frame]) for frame in (5, 9, 10, 39)] == [1, 1, 2, 2]
    first = {shape["group_id"]: hull(shape) for shape in results[15]}
    assert first[1] == pytest.approx((150, 70, 190, 110), abs=1)
    assert first[2] == pytest.approx((49, 70, 89, 110), abs=1)


@pytest.mark.parametrize(("start", "end"), [(10, 20), (10, 10), (0, 39), (12, 99), (2, 6), (30, 35)])
def test_a_range_includes_both_ends(client: Client, start: int, end: int) -> None:
    client.click(10, (0.5, 0.5))
    results = client.results(start_frame=start, end_frame=end)
    assert sorted(results) == list(range(start, min(end, LENGTH - 1) + 1))


def test_progress_comes_in_order(client: Client) -> None:
    client.click(10, (0.5, 0.5))
    events = client.stream(start_frame=10)
    assert events[0] == {"type": "started", "total_frames": LENGTH, "start_frame_index": 10}
    shares = [event["progress"] for event in events if event["type"] == "progress"]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_second_run_doubles_nothing(client: Client) -> None:
    client.click(10, (0.5, 0.5))
    assert sorted(client.results(start_frame=10, end_frame=20)) == list(range(10, 21))
    assert client.results(start_frame=10, end_frame=20) == {}
    assert sorted(client.results(start_frame=10, end_frame=25)) == list(range(21, 26))
    client.click(10, (0.5, 0.5), (0.6, 0.5))
    assert sorted(client.results(start_frame=10, end_frame=20)) == list(range(10, 21)), "it was refined"


def test_what_was_computed_before_a_cancel_is_not_computed_again(make_client) -> None:
    gate = Gate(20)
    client = make_client(StubEngine(masks=True, gate=gate))
    client.init()
    client.click(0, (0.5, 0.5))
    lines: Any = client.post(
        "propagate/stream", {"session_id": client.session, "model": ENGINE, "start_frame": 0}
    ).iter_encoded()
    assert b"started" in next(lines)
    until(lambda: client.service.scheduler.jobs(1)[0].progress()[0] == 20)
    lines.close()
    gate.open()
    until(lambda: client.service.scheduler.jobs(1)[0].state == "cancelled")
    client.data(f"cleanup/{client.session}?model={ENGINE}")
    client.init()
    client.click(0, (0.5, 0.5))
    assert sorted(client.results(start_frame=0)) == list(range(LENGTH))
    assert len(client.service.engine.frames) <= LENGTH + 1
    assert len(client.service.scheduler.jobs(9)) == 1


def test_sliders_and_switches_have_effect(client: Client) -> None:
    params = {"conf_threshold": 0.95, "epsilon_factor": 0.001}
    assert client.click(3, (0.5, 0.5), params=params) == []
    assert client.results(start_frame=3, end_frame=5) == {}
    (rectangle,) = client.click(3, (0.5, 0.5), params={"show_masks": False})
    assert rectangle["shape_type"] == "rectangle"
    assert rectangle["points"] == [[140, 70], [180, 70], [180, 110], [140, 110]]


def test_a_task_without_a_stream(make_client) -> None:
    gate = Gate(20)
    client = make_client(StubEngine(masks=True, gate=gate))
    client.init()
    client.click(0, (0.5, 0.5))
    task = client.data("propagate", {"session_id": client.session, "model": ENGINE, "start_frame": 0})["task_id"]

    def status() -> dict:
        return client.http.get(f"/v1/video/status/{task}", headers=HEADERS).json["data"]

    until(lambda: status()["progress"] == 0.5)
    assert status()["status"] == "processing"
    gate.open()
    until(lambda: status()["status"] == "completed")
    assert status()["results"].keys() == {str(frame) for frame in range(LENGTH)}
    assert client.data(f"cancel/{task}") == {"message": "Task cancelled"}
    assert client.post("cancel/none").status_code == 404
    assert client.http.get("/v1/video/status/none", headers=HEADERS).status_code == 404


def test_a_failure_is_told_in_the_stream(make_client) -> None:
    def fail(frame: int) -> None:
        raise RuntimeError("/home/ann")

    client = make_client(StubEngine(masks=True, gate=fail))
    client.init()
    client.click(0, (0.5, 0.5))
    last = client.stream(start_frame=0)[-1]
    assert last["type"] == "error"
    assert "see the server log" in last["message"]


@pytest.mark.parametrize(
    ("path", "fields", "sentence"),
    [
        ("prompt", {"session_id": "none"}, "not known"),
        ("prompt", {"session_id": 5}, "not known"),
        ("prompt", {}, "there is no prompt"),
        ("prompt", {"text_prompt": " "}, "there is no prompt"),
        ("prompt", {"text_prompt": ".,"}, "there are no words"),
        ("prompt", {"frame_index": 40, "points": [[0.5, 0.5]], "point_labels": [1]}, "no picture 41"),
        ("prompt", {"frame_index": -1, "points": [[0.5, 0.5]], "point_labels": [1]}, "whole number"),
        ("prompt", {"points": [[0.5, 0.5]], "point_labels": []}, "the same length"),
        ("prompt", {"points": [[5, 0.5]], "point_labels": [1]}, "from 0 to 1"),
        ("prompt", {"points": ["x"], "point_labels": [1]}, "from 0 to 1"),
        ("prompt", {"points": [[0.5, 0.5]], "point_labels": [0]}, "positive point"),
        ("prompt", {"model": "other"}, "no model"),
        ("propagate/stream", {}, "nothing was prompted"),
        ("propagate", {"session_id": "none"}, "not known"),
        ("propagate", {"start_frame": "x"}, "whole number"),
    ],
)
def test_an_error_is_a_status_and_a_sentence(client: Client, path: str, fields: dict, sentence: str) -> None:
    body = {"session_id": client.session, "model": ENGINE, "frame_index": 0, **fields}
    assert sentence in client.refusal(path, body)


def test_a_range_that_ends_before_it_begins(client: Client) -> None:
    client.click(3, (0.5, 0.5))
    body = {"session_id": client.session, "model": ENGINE, "start_frame": 9, "end_frame": 3}
    assert "before it begins" in client.refusal("propagate/stream", body)


def test_a_session_that_is_closed_is_gone(client: Client) -> None:
    client.data(f"cleanup/{client.session}?model={ENGINE}")
    assert "not known" in client.refusal(f"cleanup/{client.session}?model={ENGINE}")


def test_the_key_is_the_password(make_client) -> None:
    values = {"basic_auth_user": "ann", "basic_auth_pass": "right"}
    assert make_client(token="right", **values).init()["num_frames"] == LENGTH
    client = make_client(token="wrong", **values)
    assert client.http.get("/v1/models", headers=client.headers).status_code == 401
    assert client.http.get("/v1/models", headers={"Token": ""}).status_code == 401
    assert client.http.get("/jobs", headers={"Token": "right"}).status_code == 401, "it opens these routes alone"
    for _ in range(12):
        answer = client.http.get("/v1/models", headers=client.headers)
    assert answer.status_code == 429


@pytest.mark.parametrize("header", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_no_web_page_may_ask(make_client, header: dict) -> None:
    client = make_client()
    response = client.http.post("/v1/video/init", data=json.dumps({"frames": FRAMES}), headers=HEADERS | header)
    assert response.status_code == 403
