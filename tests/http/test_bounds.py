"""What a request claims costs nothing: it is refused or bounded before memory is taken for it."""

import threading
import time
import tracemalloc

import pytest

from backend.errors import StudioError
from backend.http.app import create_app
from backend.http.serving import _MAX_DEPTH, _MAX_ITEMS
from backend.labelstudio.label_config import _MAX_LENGTH
from tests.fakes import Gate, StubEngine
from tests.labelstudio.bodies import CONFIG, body, drawn, keyframe


@pytest.mark.parametrize("claim", [10**6 + 1, 10**7, 4 * 10**7, 10**8, 10**30])
def test_a_frame_that_no_video_has_takes_no_memory(make_service, claim: int) -> None:
    """An 8 kB request with one such keyframe took gigabytes while the video was not open yet."""
    service = make_service(StubEngine(gate=Gate(0)), response_timeout=0)
    client = create_app(service).test_client()
    region = drawn(keyframe(1), keyframe(claim))
    region["value"]["framesCount"] = claim
    tracemalloc.start()
    try:
        assert client.post("/predict", json=body(region)).status_code in (200, 400)
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("path", ["/predict", "/setup", "/validate", "/webhook"])
def test_many_items_and_deep_ones_are_refused(make_service, path: str) -> None:
    client = create_app(make_service()).test_client()
    for content, sentence in (
        (b'{"a":[' + b"[]," * _MAX_ITEMS + b"[]]}", "over 2500000 items"),
        (b'{"a":' + b"[" * _MAX_DEPTH + b"]" * _MAX_DEPTH + b"}", "nested over"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "must be a JSON object"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "must be a JSON object"),
    ):
        answer = client.post(path, data=content, content_type="application/json")
        assert (answer.status_code, sentence in answer.json["error"]) == (400, True)


def test_a_label_config_has_a_length(make_service) -> None:
    client = create_app(make_service()).test_client()
    answer = client.post("/validate", json={"config": CONFIG + " " * _MAX_LENGTH})
    assert (answer.status_code, "shorten it" in answer.json["error"]) == (400, True)


def test_a_project_is_gone_through_once_at_a_time(make_service, monkeypatch) -> None:
    service = make_service(pre_annotate="labels")
    started: list[str] = []
    is_over = threading.Event()

    def wait(project: str) -> None:
        started.append(project)
        is_over.wait(30)
        raise StudioError("it would have gone on")

    monkeypatch.setattr(service.connections, "require_client", wait)
    client = create_app(service).test_client()
    for project in [1] * 100 + [2] * 100 + list(range(3, 100)):
        sent = {"action": "START_TRAINING", "project": {"id": project, "label_config": CONFIG}}
        assert client.post("/webhook", json=sent).status_code == 200
    threads = [thread for thread in threading.enumerate() if thread.name == "annotate"]
    is_over.set()
    for thread in threads:
        thread.join()
    assert sorted(started) == [str(number) for number in range(1, 9)]
    assert client.post("/webhook", json=sent).status_code == 200
    while len(started) < 9:
        time.sleep(0.01)


@pytest.mark.parametrize("name", [[], {}, 3, None, ["a"]])
def test_a_control_of_any_type_is_no_error_of_ours(make_service, name: object) -> None:
    client = create_app(make_service()).test_client()
    region = drawn(keyframe(1))
    text = {"id": region["id"], "type": "textarea", "from_name": name, "to_name": name, "value": {"text": ["both"]}}
    answer = client.post("/predict", json=body(region, text))
    assert answer.status_code in (200, 400)
