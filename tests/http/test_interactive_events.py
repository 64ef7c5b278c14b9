"""The events of Label Studio's interactive mode over HTTP, as its page sends them."""

import base64
import json
import threading
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from backend.errors import Busy, StoreError
from backend.http.app import create_app
from backend.jobs.spec import OBJECT_TRACK
from backend.predict import interactive_events
from tests.fakes import FakeVideo, Gate, StubEngine
from tests.jobs.test_scheduler import until
from tests.stub_service import StubService

CONFIG = """<View><Video name="video" value="$video" framerate="25"/><VideoRectangle name="box" toName="video"/>
<Labels name="labels" toName="video"><Label value="Car"/><Label value="Bus"/></Labels></View>"""
IMAGES = """<View><Image name="image" value="$image"/>
<BrushLabels name="b" toName="image"><Label value="A"/></BrushLabels></View>"""
TASK = {"id": 7, "data": {"video": "/clip.mp4"}}


def point(x: float, y: float, positive: bool | None = None) -> dict:
    return {"type": "keypointlabels", "value": {"x": x, "y": y} | ({} if positive is None else {"positive": positive})}


def box(x: float, y: float, width: float, height: float) -> dict:
    return {"type": "rectanglelabels", "value": {"x": x, "y": y, "width": width, "height": height}}


BOX = box(50, 50, 10, 10)


class Page:
    """Sends events as the page does through Label Studio, which adds the task and the label config."""

    def __init__(self, service: StubService) -> None:
        self.service = service
        self.client = create_app(service).test_client()

    def post(self, context: Any, task: Mapping = TASK, config: str = CONFIG, project: str = "3.1700000000"):
        body = {"tasks": [task], "project": project, "label_config": config, "params": {"context": context}}
        return self.client.post("/predict", json=body)

    def ask(self, event: str | None = None, task: Mapping = TASK, config: str = CONFIG, **fields: Any) -> list[dict]:
        """The items of the only prediction."""
        response = self.post(({"event": event} if event else {}) | fields, task, config)
        assert response.status_code == 200, response.text
        (prediction,) = response.json["results"]
        assert prediction["score"] == 0.0
        return prediction["result"]

    def value(self, event: str | None = None, **fields: Any) -> dict:
        (item,) = self.ask(event, **fields)
        assert item["origin"] == "manual"
        assert len(item["id"]) == 8
        return item["value"]

    def refusal(self, context: Any, **more: Any) -> str:
        """The sentence that the page shows."""
        response = self.post(context, **more)
        assert 400 <= response.status_code < 500, response.text
        return response.json["error"]

    def track(self, **fields: Any) -> str:
        value = self.value("track", **({"frame": 1, "result": [BOX]} | fields))
        return value["session_id"]

    def poll(self, session_id: str) -> dict:
        return self.value("track_progress", session_id=session_id)

    def follow(self, session_id: str) -> dict[int, tuple[float, ...]]:
        """Poll until done: boxes in percent by the LS frame on which the page sets them."""
        keyframes: dict[int, tuple[float, ...]] = {}
        while True:
            answer = self.poll(session_id)
            assert answer["error"] is None, answer
            keyframes |= read_keyframes(answer["frames"])
            if answer["done"]:
                return keyframes


def read_keyframes(frames: list[dict], framerate: float = 25) -> dict[int, tuple[float, ...]]:
    """As the page reads them: the frame from the time, the box from the mask; black ones are skipped."""
    keyframes = {}
    for frame in frames:
        if found := mask_box(frame):
            keyframes[max(1, round(frame["time_ms"] / 1000 * framerate) + 1)] = found
    return keyframes


def mask_of(value: Mapping[str, Any]) -> Any:
    head, _, data = value["imageDataURL"].partition(",")
    assert head == "data:image/png;base64"
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (value["height"], value["width"])
    assert set(np.unique(picture)) <= {0, 255}
    return np.asarray(picture) > 127


def mask_box(value: Mapping[str, Any]) -> tuple[float, ...] | None:
    mask = mask_of(value)
    if not mask.any():
        return None
    (height, width), rows, columns = mask.shape, np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    corner = columns[0] / width * 100, rows[0] / height * 100
    return *corner, (columns[-1] - columns[0] + 1) / width * 100, (rows[-1] - rows[0] + 1) / height * 100


@pytest.fixture
def make_page(make_interactive, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Page]:
    monkeypatch.setattr(interactive_events, "_PACE_SECONDS", 0.0)
    monkeypatch.setattr(interactive_events, "_POLL_SECONDS", 0.01)
    return lambda *arguments, **values: Page(make_interactive(*arguments, **values))


@pytest.fixture
def page(make_page) -> Page:
    return make_page()


# Capabilities


@pytest.mark.parametrize("config", [CONFIG, IMAGES, "", "<View"])
def test_capabilities_need_no_config(page: Page, config: str) -> None:
    (item,) = page.ask("capabilities", config=config)
    assert item["type"] == "capabilities"
    assert "from_name" not in item
    assert item["value"]["prompts"] == ["point", "box"]
    assert item["value"]["targets"] == [{"tag": "VideoRectangle", "output": "bbox", "features": ["track"]}]
    assert item["value"]["model_info"] == {"name": "STUB", "version": "1"}


def test_capabilities_need_no_task(page: Page) -> None:
    response = page.client.post("/predict", json={"tasks": [], "params": {"context": {"event": "capabilities"}}})
    assert response.json["results"][0]["result"][0]["type"] == "capabilities"


# Prewarm


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"frame": 1}, range(21)),
        ({"frame": 11, "window": 5}, range(10, 16)),
        ({"frame": 11, "window": 0}, range(10, 11)),
        ({"frame": 98}, range(97, 100)),
        ({"frame": 1, "window": 999}, range(21)),
        ({"frame": 11, "window": 5, "direction": "backward"}, range(5, 11)),
        ({"frame": 3, "direction": "backward"}, range(3)),
        ({"frame": 11, "window": 2, "direction": "sideways"}, range(10, 13)),
        ({"frame": 0, "window": 1}, range(2)),
        ({"window": 1}, range(2)),
        ({"frame": 50, "time_ms": 122, "window": 0}, range(3, 4)),
        ({"time_ms": 10**9, "window": 3}, range(99, 100)),
    ],
)
def test_prewarm_names_each_frame_once_and_encodes_it(page: Page, fields: dict, expected: range) -> None:
    value = page.value("prewarm", **fields)
    assert sorted(value["cached"] + value["pending"]) == list(expected)
    assert (value["status"], value["frame_count"]) == ("ok", 100)
    until(lambda: page.value("prewarm", **fields) == value | {"cached": list(expected), "pending": []})
    assert sorted(page.service.engine.encoded) == list(expected)


@pytest.mark.parametrize(
    ("window", "error"),
    [("5", "window must be an integer"), (1.5, "window must be an integer"), (-1, "window must be >= 0")],
)
def test_a_window_that_is_none(page: Page, window: object, error: str) -> None:
    (item,) = page.ask("prewarm", frame=1, window=window)
    assert (item["type"], item["value"]) == ("prewarm_ack", {"status": "error", "error": error})


@pytest.mark.parametrize("config", [IMAGES, ""])
def test_prewarm_on_any_config_is_acknowledged(page: Page, config: str) -> None:
    (item,) = page.ask("prewarm", task={"id": 1, "data": {"image": "/a.png"}}, config=config, frame=1)
    assert item["value"] == {"status": "ok", "cached": [], "pending": []}


# Clicks


def test_a_click_has_no_event_and_gets_a_mask(page: Page) -> None:
    (item,) = page.ask(result=[point(50, 50)], frame=4, time_ms=122.0)
    assert (item["type"], item["from_name"], item["to_name"]) == ("bitmask", "box", "video")
    mask = mask_of(item["value"])
    assert mask.shape == (360, 640)
    assert mask.sum() == 1600
    assert page.service.engine.encoded == [3]
    assert page.service.scheduler.jobs(5) == []


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ([point(50, 50)], (300, 160, 40, 40)),
        ([{"value": {"x": 50, "y": 50}}], (300, 160, 40, 40)),
        ([point(10, 50, False), point(50, 50, True)], (300, 160, 40, 40)),
        ([box(25, 25, 50, 50)], (160, 90, 320, 180)),
        ([box(0, 0, 5, 5), box(25, 25, 50, 50)], (160, 90, 320, 180)),
        ([{"value": {"x": 25, "y": 25, "width": 50, "height": 50}}], (160, 90, 320, 180)),
        ([{"type": "brush", "value": {}}, None, {"value": 3}, point(50, 50)], (300, 160, 40, 40)),
    ],
)
def test_prompts_in_every_form(page: Page, result: list, expected: tuple[int, ...]) -> None:
    for event in (None, "predict"):
        found = mask_box(page.value(event, result=result, frame=1))
        assert found == pytest.approx((expected[0] / 6.4, expected[1] / 3.6, expected[2] / 6.4, expected[3] / 3.6))


def test_several_clicks_are_one_object_and_cost_one_pass(page: Page) -> None:
    for clicks in ([point(50, 50)], [point(50, 50), point(30, 30, False)], [point(50, 50), point(60, 60)]):
        page.value(result=clicks, frame=9)
    assert page.service.engine.encoded == [8]


@pytest.mark.parametrize("result", [[], [{"type": "brush", "value": {"rle": []}}], [{"value": {"x": "1", "y": 2}}], 5])
def test_without_prompts_there_is_nothing(page: Page, result: object) -> None:
    assert page.ask(frame=1, result=result) == []


def test_what_selects_nothing_is_black(make_page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StubEngine, "preview", lambda *_: [])
    assert not mask_of(make_page().value(result=[point(50, 50)], frame=1)).any()


# The frame on screen


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        ({"frame": 4}, 3),
        ({}, 0),
        ({"frame": 0}, 0),
        ({"frame": 4, "time_ms": 0}, 0),
        ({"frame": 1, "time_ms": 159 * 40 % 4000 + 2}, 59),
        ({"frame": 1, "time_ms": 119.999}, 2),
        ({"frame": 1, "time_ms": 120.0}, 3),
        ({"frame": 1, "time_ms": -5}, 0),
        ({"frame": 1, "time_ms": 1e9}, 99),
        ({"frame": 4, "time_ms": None}, 3),
        ({"frame": 4, "time_ms": "122"}, 3),
        ({"frame": 4, "time_ms": True}, 3),
    ],
)
def test_a_time_counts_more_than_a_number_and_is_never_rounded_up(page: Page, fields: dict, source: int) -> None:
    page.value("predict", result=[point(50, 50)], **fields)
    assert page.service.engine.encoded == [source]


def test_every_frame_whose_start_the_page_seeks_is_that_frame(page: Page) -> None:
    for frame in range(1, 101, 7):
        page.value(result=[point(50, 50)], frame=1, time_ms=(frame - 1) / 25 * 1000 + 2)
    assert page.service.engine.encoded == list(range(0, 100, 7))


# Tracks


def test_a_track_becomes_few_keyframes_at_the_right_frames(page: Page) -> None:
    value = page.value("track", frame=11, time_ms=402.0, result=[BOX], max_frames=89, direction="forward")
    assert (value["total_frames"], value["fps"], value["duration_ms"]) == (90, 25.0, 4000.0)
    assert len(value["session_id"]) == 12
    keyframes = page.follow(value["session_id"])
    assert {11, 100} <= keyframes.keys()
    assert len(keyframes) <= 90 / 5
    for frame, found in keyframes.items():
        assert found == pytest.approx(((320 + frame - 11) / 6.4, 50, 10, 10))
    (job,) = page.service.scheduler.jobs(5)
    assert (job.state, job.row.spec.kind, job.row.spec.task, job.row.spec.project) == ("done", "box", "7", "3")


@pytest.mark.parametrize(
    ("fields", "frames"),
    [
        ({"direction": "forward", "max_frames": 5}, range(51, 57)),
        ({"direction": "backward", "max_frames": 5}, range(46, 52)),
        ({"direction": "both", "max_frames": 5}, range(46, 57)),
        ({"direction": "sideways", "max_frames": 5}, range(51, 57)),
        ({"max_frames": 0}, range(51, 52)),
        ({"max_frames": 999}, range(51, 101)),
        ({"direction": "backward"}, range(1, 52)),
        ({"direction": "both"}, range(1, 101)),
        ({"max_duration_ms": 200}, range(51, 57)),
        ({"max_duration_ms": 200, "max_frames": 50}, range(51, 57)),
        ({"max_duration_ms": 0}, range(51, 52)),
        ({"max_duration_ms": 1e8}, range(51, 101)),
    ],
)
def test_how_far_a_track_goes(page: Page, fields: dict, frames: range) -> None:
    value = page.value("track", frame=51, result=[BOX], **fields)
    assert value["total_frames"] == len(frames)
    keyframes = page.follow(value["session_id"])
    assert (min(keyframes), max(keyframes)) == (frames.start, frames.stop - 1)
    assert 51 in keyframes
    assert sorted(set(page.service.engine.frames)) == [frame - 1 for frame in frames]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"max_frames": -1}, "max_frames must be an integer >= 0"),
        ({"max_frames": 1.5}, "max_frames must be an integer >= 0"),
        ({"max_frames": "9"}, "max_frames must be an integer >= 0"),
        ({"max_duration_ms": -1}, "max_duration_ms must be a number >= 0"),
        ({"max_duration_ms": "9", "max_frames": 3}, "max_duration_ms must be a number >= 0"),
    ],
)
def test_a_length_that_is_none(page: Page, fields: dict, error: str) -> None:
    (item,) = page.ask("track", frame=1, result=[BOX], **fields)
    assert (item["type"], item["value"]) == ("track_error", {"error": error, "done": True})


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"result": []}, "nothing to track"),
        ({"result": [box(120, 0, 10, 10)]}, "outside the picture"),
        ({"result": [BOX], "frame": 101}, "there is no frame 101"),
        ({"result": [BOX], "frame": "x"}, "not a whole number"),
    ],
)
def test_a_track_that_cannot_start_says_why_where_the_page_shows_it(page: Page, fields: dict, sentence: str) -> None:
    answer = page.poll(page.track(**fields))
    assert answer["done"] is True
    assert sentence in answer["error"]
    assert page.service.scheduler.jobs(5) == []


@pytest.mark.slow
def test_keyframes_come_while_the_track_goes_on(make_page) -> None:
    gate = Gate(40)
    page = make_page(StubEngine(gate=gate, seen=lambda frame: frame % 20 != 19))
    session_id = page.track()
    first = page.poll(session_id)
    assert read_keyframes(first["frames"]).keys() >= {1}
    assert (first["done"], first["error"]) == (False, None)
    until(lambda: page.service.scheduler.jobs(1)[0].progress()[0] == 40)
    more = page.poll(session_id)
    assert 19 in read_keyframes(more["frames"])
    assert more["produced"] == 40
    assert more["total"] >= len(read_keyframes(more["frames"]))
    gate.open()
    keyframes = page.follow(session_id)
    assert max(keyframes) == 99, "on frame 100 the object is not seen"


def test_a_gap_is_left_out(make_page) -> None:
    page = make_page(StubEngine(seen=lambda frame: not 30 <= frame < 50))
    keyframes = page.follow(page.track())
    assert not keyframes.keys() & set(range(31, 51))
    assert {1, 30, 51, 100} <= keyframes.keys()


def test_a_lost_answer_comes_again(make_page) -> None:
    page = make_page(StubEngine(seen=lambda frame: frame % 10 < 5))
    session_id = page.track()
    until(lambda: page.service.scheduler.jobs(1)[0].has_ended)
    lost = page.poll(session_id)
    assert lost["done"] is True
    again = page.poll(session_id)
    assert again["done"] is True
    assert again["frames"] == lost["frames"]
    assert page.poll(session_id)["frames"] == []


def test_many_keyframes_come_in_several_answers(make_page, monkeypatch: pytest.MonkeyPatch) -> None:
    page = make_page(StubEngine(seen=lambda frame: frame % 2 == 0))
    monkeypatch.setattr(interactive_events, "_MAX_KEYFRAMES", 20)
    session_id = page.track()
    until(lambda: page.service.scheduler.jobs(1)[0].has_ended)
    answers = [page.poll(session_id) for _ in range(3)]
    assert [answer["done"] for answer in answers] == [False, False, True]
    assert [len(answer["frames"]) for answer in answers] == [20, 40, 30], "each repeats the one before"


def test_the_page_never_counts_more_keyframes_than_it_was_told_to_expect(make_page) -> None:
    gate = Gate(40)
    page = make_page(StubEngine(gate=gate, seen=lambda frame: frame % 10 < 5))
    session_id = page.track()
    count, is_done = 0, False
    while not is_done:
        answer = page.poll(session_id)
        count += len(answer["frames"])  # it counts each mask that it makes a keyframe of, also one that comes again
        assert count <= answer["total"]
        gate.open()
        is_done = answer["done"]
    assert count == answer["total"]


@pytest.mark.parametrize("session_id", ["", "nothing", "0123456789ab", None, 5, {"a": 1}])
def test_a_session_that_is_none(page: Page, session_id: object) -> None:
    assert page.value("track_progress", session_id=session_id) == {"error": "session not found", "done": True}
    assert page.value("track_cancel", session_id=session_id) == {"status": "not_found"}


@pytest.mark.parametrize("event", ["track_progress", "track_cancel"])
def test_a_session_belongs_to_its_task(make_page, event: str) -> None:
    gate = Gate(10)
    page = make_page(StubEngine(gate=gate))
    session_id = page.track()
    for body in ({"task": TASK | {"id": 8}}, {"project": "4.1"}):
        response = page.post({"event": event, "session_id": session_id}, **body)
        value = response.json["results"][0]["result"][0]["value"]
        assert value in ({"error": "session not found", "done": True}, {"status": "not_found"})
    assert not page.service.scheduler.jobs(1)[0].is_cancelled


def test_a_cancelled_track_keeps_what_it_has(make_page) -> None:
    gate = Gate(40)
    page = make_page(StubEngine(gate=gate))
    session_id = page.track()
    until(lambda: page.service.scheduler.jobs(1)[0].progress()[0] == 40)
    assert page.value("track_cancel", session_id=session_id) == {"status": "cancelled"}
    gate.open()
    keyframes = page.follow(session_id)
    assert {1, max(keyframes)} <= keyframes.keys()
    assert 40 <= max(keyframes) <= 42
    (job,) = page.service.scheduler.jobs(5)
    assert job.state == "cancelled"


def test_many_tracks_wait_in_the_queue_and_all_end(make_page) -> None:
    gate = Gate(10)
    page = make_page(StubEngine(gate=gate))
    sessions = [page.track(result=[box(5 * number, 10, 8, 8)]) for number in range(8)]
    assert len({*sessions}) == 8
    gate.open()
    for number, session_id in enumerate(sessions):
        assert page.follow(session_id)[1] == pytest.approx((5 * number, 10, 8, 8), abs=0.2)


def test_a_full_queue_is_a_sentence(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise Busy("64 tracks wait: try again later")

    monkeypatch.setattr(page.service.scheduler, "submit", refuse)
    assert page.poll(page.track()) == {"error": "64 tracks wait: try again later", "done": True}


def test_a_track_that_fails_gives_its_keyframes_first_and_then_the_sentence(make_page) -> None:
    gate = Gate(30)

    def fail(frame: int) -> None:
        gate(frame)
        if frame == 30:
            raise RuntimeError("/home/ann")

    page = make_page(StubEngine(gate=fail))
    session_id = page.track()
    until(lambda: page.service.scheduler.jobs(1)[0].progress()[0] == 30)
    gate.open()
    until(lambda: page.service.scheduler.jobs(1)[0].has_ended)
    first = page.poll(session_id)
    assert (first["done"], first["error"]) == (False, None)
    assert {1, 30} <= read_keyframes(first["frames"]).keys()
    last = page.poll(session_id)
    assert last["done"] is True
    assert "see the server log" in last["error"]


def test_a_restart_in_the_middle_goes_on(make_interactive, tmp_path) -> None:
    gate = Gate(40)
    service = make_interactive(StubEngine(gate=gate), data_dir=tmp_path / "kept")
    page = Page(service)
    session_id = page.track()
    until(lambda: service.scheduler.jobs(1)[0].progress()[0] == 40)
    threading.Timer(0.1, gate.open).start()
    service.close()
    again = Page(make_interactive(StubEngine(), data_dir=tmp_path / "kept"))
    keyframes = again.follow(session_id)
    assert {1, 100} <= keyframes.keys()
    (job,) = again.service.scheduler.jobs(5)
    boxes, _ = job.resolved.propagation.tracks()[OBJECT_TRACK].at(np.arange(100))
    assert boxes[:, 0].tolist() == [320 + frame for frame in range(100)]


def test_a_progress_that_fails_is_held(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[float] = []

    def refuse(key: object) -> None:
        raise StoreError("the disk is full")

    # The module's own name: in the module `time`, every thread's `sleep` would be replaced.
    monkeypatch.setattr(interactive_events, "time", SimpleNamespace(sleep=held.append))
    monkeypatch.setattr(page.service.scheduler, "newest", refuse)
    response = page.post({"event": "track_progress", "session_id": "x"})
    assert (response.status_code, response.json) == (503, {"error": "the disk is full"})
    assert held == [interactive_events._HOLD_SECONDS]


# Release, and what is not understood


def test_release_forgets_the_video_and_leaves_tracks_alone(make_page) -> None:
    gate = Gate(10)
    page = make_page(StubEngine(gate=gate))
    page.value("prewarm", frame=1, window=1)
    session_id = page.track()
    assert len(page.service.interactive) == 1
    (item,) = page.ask("release")
    assert (item["type"], item["value"]) == ("release_ack", {"status": "released"})
    assert len(page.service.interactive) == 0
    gate.open()
    assert 100 in page.follow(session_id)


@pytest.mark.parametrize(
    ("context", "sentence"),
    [
        ({"event": "explode"}, "the event 'explode' is not known"),
        ({"event": ["track"]}, "is not known"),
        ({"event": None}, "is not known"),
        ({"frame": 1, "result": [point(50, 50, False)]}, "positive point"),
        ({"frame": 1, "result": [box(0, 0, 0, 0)]}, "outside the picture"),
        ({"frame": 500, "result": [point(50, 50)]}, "there is no frame 500"),
        ({"frame": [1], "result": [point(50, 50)]}, "not a whole number"),
        ({"frame": 10**30, "result": [point(50, 50)]}, "there is no frame"),
        ({"event": "prewarm", "frame": 10**9}, "there is no frame"),
    ],
)
def test_what_is_not_understood_is_a_sentence(page: Page, context: dict, sentence: str) -> None:
    assert sentence in page.refusal(context)


@pytest.mark.parametrize("event", ["prewarm", "predict", "track_progress", "track_cancel", "release"])
@pytest.mark.parametrize("task", [{}, {"id": 1}, {"id": 1, "data": 5}])
def test_a_task_that_is_none(page: Page, event: str, task: dict) -> None:
    assert "holds no task" in page.refusal({"event": event, "frame": 1, "result": [BOX]}, task=task)


def test_a_config_without_boxes_is_a_sentence(page: Page) -> None:
    assert "Video" in page.refusal({"frame": 1, "result": [point(5, 5)]}, config=IMAGES)


def test_while_the_model_loads_a_click_says_so(make_page) -> None:
    response = make_page(StubEngine(status="loading")).post({"frame": 1, "result": [point(50, 50)]})
    assert response.status_code == 503
    assert "loading" in response.json["error"]


@pytest.mark.parametrize("task_id", ["seven", 7, 7.5, None, [7]])
def test_a_task_may_have_any_id(make_page, task_id: object) -> None:
    page = make_page()
    (item,) = page.ask("track", task=TASK | {"id": task_id}, frame=1, result=[BOX])
    (answer,) = page.ask("track_progress", task=TASK | {"id": task_id}, session_id=item["value"]["session_id"])
    assert answer["value"]["error"] is None


def test_other_requests_are_no_events(page: Page) -> None:
    region = {
        "id": "abc",
        "from_name": "box",
        "to_name": "video",
        "type": "videorectangle",
        "origin": "manual",
        "value": {
            "labels": ["Car"],
            "sequence": [
                {"frame": 1, "enabled": True, "x": 10, "y": 10, "width": 10, "height": 10, "rotation": 0, "time": 0.04}
            ],
        },
    }
    response = page.post({"result": [region]})
    (prediction,) = response.json["results"]
    assert prediction["result"][0]["type"] == "videorectangle"


# The page's own order of calls


def test_the_order_of_calls_of_a_person_who_clicks_and_tracks(make_page) -> None:
    video = FakeVideo(count=60)
    page = make_page(StubEngine(step=2.0), video)
    assert "track" in page.value("capabilities")["targets"][0]["features"]
    page.value("prewarm", frame=20, window=20, direction="forward")
    clicks = [point(50, 50)]
    page.value(result=clicks, frame=20, time_ms=19 * 40 + 2.0)
    clicks.append(point(52, 52))
    accepted = mask_box(page.value(result=clicks, frame=20, time_ms=19 * 40 + 2.0))
    assert accepted
    assert page.service.engine.encoded[0] == 19
    tracked = page.value(
        "track",
        frame=20,
        time_ms=762.0,
        max_frames=40,
        max_duration_ms=1638.0,
        direction="both",
        result=[box(*accepted)],
    )
    keyframes = {20: accepted} | page.follow(tracked["session_id"])
    page.value("release")
    assert len(keyframes) <= 60 / 5
    assert (min(keyframes), max(keyframes)) == (1, 60)
    frames = sorted(keyframes)
    for frame in range(1, 61, 6):
        left = np.interp(frame, frames, [keyframes[one][0] for one in frames])
        assert left == pytest.approx(accepted[0] + 2 * (frame - 20) / 6.4, abs=0.5)


def test_a_video_whose_frames_the_page_counts_otherwise(make_page) -> None:
    """The config says 24 frames a second, the file has 25: what the page shows is what is tracked."""
    page = make_page(StubEngine(), FakeVideo(count=100, rate=25))
    config = CONFIG.replace('framerate="25"', 'framerate="24"')
    (item,) = page.ask("track", config=config, frame=49, time_ms=2002.0, result=[BOX])
    answer = page.ask("track_progress", config=config, session_id=item["value"]["session_id"])[0]["value"]
    keyframes = read_keyframes(answer["frames"], 24)
    assert keyframes[49] == pytest.approx((50, 50, 10, 10))
    assert json.loads(json.dumps(answer))["frames"][0]["frame"] == 50


# The region that the page makes


TRACKING = CONFIG.replace(
    "</View>",
    """<Labels name="cmd" toName="video" choice="multiple">
<Label value="track (t)" hotkey="t"/></Labels></View>""",
)


def made_region(page: Page, **fields: Any) -> dict:
    """The region that the page makes of a track: a keyframe for each mask, hidden after the last one."""
    keyframes = page.follow(page.track(frame=20, result=[BOX], **fields))
    last = max(keyframes)
    sequence = [keyframe(frame, keyframes[frame]) for frame in sorted(keyframes)]
    if last < 60:
        sequence.append(keyframe(last + 1, keyframes[last], enabled=False))
    value = {"labels": ["Bus"], "sequence": sequence, "framesCount": 60, "duration": 2.4}
    names = {"from_name": "box", "to_name": "video", "type": "videorectangle"}
    return {"id": "made", "origin": "manual", "value": value, **names}


def keyframe(frame: int, found: tuple[float, ...], enabled: bool = True) -> dict:
    box = dict(zip(("x", "y", "width", "height"), found, strict=True))
    return {"frame": frame, "enabled": enabled, "rotation": 0, "time": frame / 25, **box}


def press_t(page: Page, region: dict) -> dict:
    (prediction,) = page.post({"result": [region]}, config=TRACKING).json["results"]
    (found,) = [one for one in prediction["result"] if one["type"] == "videorectangle"]
    return found


def test_a_region_that_the_page_made_of_a_track_is_that_track(make_page) -> None:
    page = make_page(StubEngine(step=2.0), FakeVideo(count=60))
    region = made_region(page, direction="both")
    computed = len(page.service.engine.frames)
    found = press_t(page, region)
    assert len(page.service.engine.frames) == computed, "it is tracked already"
    assert found["meta"]["track_id"] == 1
    assert found["score"] > 0
    assert found["value"]["labels"] == ["Bus"]
    frames = [one["frame"] for one in found["value"]["sequence"]]
    assert (min(frames), max(frames)) == (1, 60)
    assert found["meta"]["human"] == [20]
    again = press_t(page, found | {"origin": "prediction-changed"})
    assert again["value"] == found["value"]


def test_a_restart_does_not_forget_what_it_was_made_of(make_page, make_interactive, tmp_path) -> None:
    page = make_page(StubEngine(step=2.0), FakeVideo(count=60))
    region = made_region(page, direction="both")
    page.service.close()
    page = Page(make_interactive(StubEngine(step=2.0), FakeVideo(count=60), data_dir=tmp_path))
    found = press_t(page, region)
    assert not page.service.engine.frames, "it is tracked already"
    assert found["meta"]["track_id"] == 1
    assert found["meta"]["human"] == [20]
    assert page.service.scheduler.newest_under(["7", "reg"], 9) == []


def test_a_correction_of_such_a_region_is_kept_and_tracked_from(make_page) -> None:
    page = make_page(StubEngine(step=2.0), FakeVideo(count=60))
    region = made_region(page, direction="both")
    (moved,) = [one for one in region["value"]["sequence"] if one["frame"] == 60]
    moved |= {"y": 20.0, "x": moved["x"] - 20}
    found = press_t(page, region)
    assert found["meta"]["track_id"] == 1
    (kept,) = [one for one in found["value"]["sequence"] if one["frame"] == 60]
    assert (kept["x"], kept["y"]) == (moved["x"], 20.0)
    assert found["meta"]["human"] == [20, 60]


def test_a_region_that_a_person_drew_is_no_such_track(make_page) -> None:
    page = make_page(StubEngine(step=2.0), FakeVideo(count=60))
    region = made_region(page, direction="forward")
    for one in region["value"]["sequence"]:
        one["y"] += 10
    found = press_t(page, region)
    assert found["meta"]["human"] == [one["frame"] for one in region["value"]["sequence"]]


def begun_region(found: tuple[float, ...]) -> dict:
    """As the page makes it before it tracks; with Auto-Annotation on, Label Studio itself asks about it, too."""
    value = {"labels": ["Bus"], "sequence": [keyframe(1, found)], "framesCount": 60, "duration": 2.4}
    names = {"from_name": "box", "to_name": "video", "type": "videorectangle"}
    return {"id": "made", "origin": "manual", "value": value, **names}


def ask_about(page: Page, region: dict) -> list[dict]:
    results = page.post({"result": [region]}).json["results"]
    return [one for prediction in results for one in prediction["result"]]


@pytest.mark.parametrize("is_asked_first", [False, True])
def test_a_region_that_the_page_begins_to_track_is_left_to_it(make_page, is_asked_first: bool) -> None:
    gate = Gate(10)
    page = make_page(StubEngine(gate=gate, step=2.0), FakeVideo(count=60))
    region = begun_region((50, 50, 10, 10))
    answers: list[list[dict]] = []
    asking = threading.Thread(target=lambda: answers.append(ask_about(page, region)))
    if is_asked_first:
        asking.start()
        until(lambda: page.service.scheduler.jobs(1))
    session_id = page.track()
    if not is_asked_first:
        asking.start()
        asking.join(30)
    gate.open()
    keyframes = page.follow(session_id)
    asking.join(30)
    assert answers == [[]]
    region["value"]["sequence"] = [keyframe(frame, keyframes[frame]) for frame in sorted(keyframes)]
    computed = len(page.service.engine.frames)
    whole = press_t(page, region)
    assert whole["meta"]["human"] == [1]
    assert "partial" not in whole["meta"]
    assert max(one["frame"] for one in whole["value"]["sequence"]) == 60
    assert len(page.service.engine.frames) == computed, "it is tracked already"


def test_t_tracks_a_region_whose_track_was_stopped_at_once(make_page) -> None:
    gate = Gate(0)
    page = make_page(StubEngine(gate=gate, step=2.0), FakeVideo(count=60))
    page.value("track_cancel", session_id=page.track())
    gate.open()
    until(lambda: page.service.scheduler.jobs(1)[0].has_ended)
    found = press_t(page, begun_region((50, 50, 10, 10)))
    assert max(one["frame"] for one in found["value"]["sequence"]) == 60
