"""The status page's data."""

import re
import time
from dataclasses import asdict

import cv2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from backend.engines.base import CacheUse
from backend.errors import BadRequest
from backend.labelstudio.frame_strip import SignedTask
from backend.video import Video
from tests.clips import write_clip
from tests.fakes import Gate, StubEngine
from tests.labelstudio.bodies import body, drawn, keyframe


def ask(service, **task):
    request = body(drawn(keyframe(1)), **task)
    return service.predict(request["tasks"], request["params"]["context"], request["label_config"], "3")


def test_a_job_is_described_from_start_to_end(make_service, tmp_path, monkeypatch) -> None:
    gate = Gate(30)
    engine = StubEngine(gate=gate, masks=True)
    engine.cache_use = lambda: CacheUse(frames=3, hits=1, misses=2)
    service = make_service(engine, response_timeout=0.3, show_masks=True)
    service.connections.connect("3", "http://studio.example", "t0ken")
    clip = write_clip(tmp_path / "film.mp4", frames=100, size=(320, 180)).path
    monkeypatch.setattr("backend.labelstudio.media.MediaCache.fetch", lambda *_: clip)
    ask(service)
    told = service.job_status.overview()
    assert (told["engine"], told["status"], told["running"], told["waiting"]) == ("stub", "ready", 1, 0)
    (worker,), (same,) = told["workers"], service.health()["workers"]
    assert worker == same | {"jobs": [1]}
    assert (worker["device"], worker["cache"]) == ("stub", asdict(CacheUse(frames=3, hits=1, misses=2)))
    assert b'\nsam3_cache_misses{worker="stub"} 2.0\n' in service.job_status.metrics()
    (job,) = told["jobs"]
    known = {
        "id": 1,
        "state": "running",
        "phase": "tracking",
        "kind": "box",
        "task": "7",
        "together": [],
        "worker": "stub",
    }
    assert known.items() <= job.items()
    assert (job["done"], job["total"], job["tracks"], job["picture"]) == (30, 100, 1, 29)
    assert job["task_url"] == "http://studio.example/projects/3/data?task=7"
    assert "t0ken" not in str(told)
    picture = cv2.imdecode(np.frombuffer(service.job_status.picture(1), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (180, 320, 3)
    plain = cv2.imdecode(np.frombuffer(service.job_status.picture(1), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert plain.std() > 5, "something is drawn"
    assert service.job_status.cancel(1)
    gate.open()
    while not service.scheduler.job(1).has_ended:
        time.sleep(0.01)
    job = service.job_status.job(1)
    assert (job["state"], job["phase"], job["picture"], job["error"]) == ("cancelled", "", None, None)
    assert job["done"] >= 30
    assert job["ended"] >= job["asked"]
    assert service.job_status.picture(1) is None
    assert service.job_status.resume(1)
    while service.job_status.job(1)["state"] != "done":
        time.sleep(0.01)
    assert (service.job_status.job(1)["done"], service.job_status.job(1)["tracks"]) == (100, 1)
    assert service.job_status.job(2) is None


def test_prometheus_can_read_the_metrics(make_service) -> None:
    service = make_service()
    ask(service)
    values = {
        sample.name + str(sample.labels.get("state", "")): sample.value
        for family in text_string_to_metric_families(service.job_status.metrics().decode())
        for sample in family.samples
    }
    assert values["sam3_frames_total"] == 100
    assert values["sam3_jobs_ended_totaldone"] == 1
    assert values["sam3_predict_seconds_count"] == 1
    assert values["sam3_device_ready"] == 1
    assert values["sam3_jobs_waiting"] == 0


def test_a_job_says_whose_it_is_and_whether_going_on_would_help(make_service, caplog) -> None:
    caplog.set_level("INFO", "backend")
    service = make_service(StubEngine(answering={"car": {}}))
    box = body(drawn(keyframe(1), labels=("Person",)), drafts=[{"id": 1, "user": "ann@example.com", "result": []}])
    box["tasks"][0]["data"]["video"] = "/data/upload/4/f2edb3a7-two%20cars.mp4"
    service.predict(box["tasks"], box["params"]["context"], box["label_config"], "3")
    late = body(drawn(keyframe(1000), id="late"))
    with pytest.raises(BadRequest):
        service.predict(late["tasks"], late["params"]["context"], late["label_config"], "3")
    failed, done = service.job_status.overview()["jobs"]
    known = ("what", "kind", "clip", "user", "project", "task")
    assert [done[key] for key in known] == ["Person", "box", "two cars.mp4", "ann@example.com", "3", "7"]
    assert (failed["state"], failed["resumable"]) == ("failed", False), "the same prompt fails again"
    assert "job 2 of task 7, box: failed" in service.job_status.job(2)["log"][0]


def test_a_cut_video_is_tracked_as_far_as_it_reads_and_that_is_told(make_service, tmp_path, monkeypatch) -> None:
    clip = write_clip(tmp_path / "film.mp4", frames=100).path
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) // 2])
    service = make_service(StubEngine(), video=Video(clip), response_timeout=20)
    ask(service)
    (job,) = service.job_status.overview()["jobs"]
    assert job["state"] == "done"
    assert job["done"] == job["total"] == len(Video(clip)) < 100
    assert re.fullmatch(r"the video is cut off: it can be read for [\d.]+ of 4.0 s", job["damage"])
    assert job["damage"] in service.task_status.read(SignedTask("3", "7")).text
