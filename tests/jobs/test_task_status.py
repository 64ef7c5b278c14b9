"""What the live panel says of a task."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.errors import BadRequest
from backend.jobs.task_status import _describe_phase
from backend.service import Service
from tests.fakes import Gate, StubEngine
from tests.labelstudio.bodies import body, drawn, keyframe
from tests.predict.page import Page

MakeService = Callable[..., Service]


def ask(service: Service, region: str = "a", **task: Any) -> Any:
    request = body(drawn(keyframe(1), id=region), **task)
    return service.predict(request["tasks"], request["params"]["context"], request["label_config"], "3")


def read(service: Service, task: str = "7", project: str = "3") -> Any:
    time.sleep(0.25)  # one reading of the jobs serves for 0.2 s
    return service.task_status.read((project, task))


def wait_until_ended(service: Service, number: int) -> None:
    give_up = time.monotonic() + 30
    while not service.scheduler.job(number).has_ended:
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_a_task_goes_from_ready_to_done(make_service: MakeService) -> None:
    gate = Gate(30)
    service = make_service(StubEngine(gate=gate), response_timeout=0.3)
    assert (read(service).text, read(service).tone) == ("Ready (stub).", "idle")
    ask(service)
    ask(service, "b")
    status = read(service)
    assert status.text.startswith("Tracking 2 objects: 30 of ")
    assert (status.tone, status.running) == ("busy", 1)
    assert status.progress is not None
    assert 0 < status.progress < 1
    gate.open()
    for number in (1, 2):
        wait_until_ended(service, number)
    status = read(service)
    assert status.text == ("Done: 2 results are not on the page yet. To bring them, press t on a box of Car.")
    assert (status.tone, status.running) == ("done", None)
    ask(service)
    ask(service, "b")
    assert read(service).text == "Done: 100 of 100 frames."
    assert read(service, "8").text == "Ready (stub)."


def test_a_task_whose_jobs_wait_says_how_many_come_first(make_service: MakeService, monkeypatch) -> None:
    gate, videos = Gate(10), map(Path, "ab")
    service = make_service(StubEngine(gate=gate), response_timeout=0.2)
    monkeypatch.setattr("backend.labelstudio.media.MediaCache.fetch", lambda *_: next(videos))
    ask(service)
    ask(service, "b", id=8)
    assert read(service, "8").text == "Waiting to track 1 object: 1 job ahead."
    assert read(service, "8").tone == "busy"
    service.scheduler.cancel(1)
    gate.open()
    wait_until_ended(service, 1)
    assert re.fullmatch(r"Stopped after 1\d of 100 frames. What was tracked is kept.", read(service).text)


def until(condition: Callable[[], bool]) -> bool:
    give_up = time.monotonic() + 30
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.02)
    return True


def test_a_job_that_makes_no_frame_says_so_in_the_panel_on_the_status_page_and_in_the_log(
    make_service: MakeService, monkeypatch, caplog
) -> None:
    monkeypatch.setattr("backend.jobs.job.STALL_SECONDS", 0.3)
    monkeypatch.setattr("backend.jobs.stall_watch._EVERY", 0.05)
    caplog.set_level("INFO")
    gate = Gate(30)
    service = make_service(StubEngine(gate=gate), response_timeout=0.2)
    ask(service)
    sentence = "no frame for 0 min: memory may be short, or another program may use the device"
    assert until(lambda: read(service).text == f"There is {sentence}. It is tracking 1 object.")
    assert until(lambda: f"job 1 has made {sentence} (tracking, on stub" in caplog.text)
    assert service.job_status.overview()["jobs"][0]["stall"] == sentence
    gate.open()
    wait_until_ended(service, 1)
    assert service.job_status.overview()["jobs"][0]["stall"] is None
    assert until(lambda: "job 1 goes on, or has ended" in caplog.text)


@pytest.mark.parametrize(
    ("phase", "text"),
    [
        ("", "Starting, to track 1 object."),
        ("warming up", "Warming up, to track 1 object."),
        ("downloading its weights: 7 % of 3.4 GB, 9 min left", "Downloading its weights: 7 % of 3.4 GB, 9 min left. "),
    ],
)
def test_what_comes_before_the_first_frame_is_said_as_it_is(phase: str, text: str) -> None:
    assert _describe_phase(phase, "1 object").startswith(text)


def test_a_refused_request_and_a_failed_job_say_why(make_service: MakeService) -> None:
    service = make_service()
    service.task_status.record_answer(("3", "7"), BadRequest("draw the box\non the object"))
    assert (read(service).text, read(service).tone) == ("Not done: draw the box on the object", "failed")
    service.task_status.record_answer(("3", "7"))
    assert read(service).text == "Ready (stub)."


@pytest.mark.parametrize(
    ("status", "text", "tone"),
    [
        ("loading", "stub is loading. You can ask already: it starts as soon as it is ready.", "idle"),
        ("failed: no weights: give model_path", "The model is not loaded: no weights: give model_path", "failed"),
    ],
)
def test_a_model_that_is_not_ready_is_said(make_service: MakeService, status: str, text: str, tone: str) -> None:
    service = make_service()
    service.task_status._pool = type("Pool", (), {"name": "stub", "status": status})()
    assert (read(service).text, read(service).tone) == (text, tone)


def test_a_search_by_an_example_is_told_as_one_and_brought_by_its_box(make_service) -> None:
    gate = Gate(until=3)
    page = Page(make_service(StubEngine(gate=gate, answering={"like": {"a": range(99)}}), response_timeout=0.3))
    name = page.draw(x=70, y=70)
    page.command(name, "like")
    (project,) = {job.row.spec.project for job in page.service.scheduler.jobs(9)}
    told = read(page.service, project=project)
    assert told.text.startswith("Tracking what is like an example:")
    gate.open()
    wait_until_ended(page.service, 1)
    assert "press t on a box of Car" in read(page.service, project=project).text
