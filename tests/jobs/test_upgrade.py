"""A database that version 0.1.0 wrote, in `jobs_v1.sql`: it opens, and its jobs are joined and continued.

Three requests were sent to a stub engine: a text prompt and a command, which were completed, and a box, which was
stopped after 41 of 100 frames.
"""

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np

from tests.fakes import StubEngine
from tests.labelstudio.bodies import body, drawn, keyframe

DUMP = Path(__file__).with_name("jobs_v1.sql")
CONFIG = (Path(__file__).resolve().parents[2] / "label_config.xml").read_text()
TEXT = {"from_name": "text_prompt", "to_name": "video", "type": "textarea", "origin": "manual"}


def requests() -> list[dict[str, Any]]:
    """What was asked of the old version, by job number."""
    box = drawn(keyframe(1), id="short")
    value = {key: kept for key, kept in box["value"].items() if key != "labels"}
    line = {**box, "type": "textarea", "from_name": "region_prompt", "value": {**value, "text": ["from 1 to 60"]}}
    bodies = [body({"id": "line", "value": {"text": ["car"]}, **TEXT}, id=9), body(box, line, id=8)]
    return [{**request, "label_config": CONFIG} for request in (*bodies, body(drawn(keyframe(1))))]


def ask(service, request: dict[str, Any]) -> list[dict[str, Any]]:
    (answer,) = service.predict(request["tasks"], request["params"]["context"], request["label_config"], "3")
    return answer["result"]


def test_an_old_database_opens_and_its_jobs_are_continued(make_service, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as file:
        file.executescript(DUMP.read_text())
    file.close()
    service = make_service(StubEngine(answering={"car": {"x": range(5, 60)}}), response_timeout=10)
    text, command, box = (ask(service, request) for request in requests())
    assert [job.state for job in service.scheduler.jobs(9)] == ["done"] * 3, "every request joined its job"
    assert service.engine.frames == list(range(41, 100)), "the box goes on where it stopped; the rest is on disk"
    assert [region["value"]["sequence"][-1]["frame"] for region in (*text[:1], *command[:1], *box)] == [60, 60, 100]
    boxes, _ = service.scheduler.job(3).resolved.propagation.tracks()["object"].at(np.arange(100))
    assert boxes[:, 0].tolist() == [64 + frame for frame in range(100)]
    store = service.store
    assert (store.records.is_click_positive("7", "p"), store.records.connection("3")) == (
        False,
        ("http://studio.example", "t0ken"),
    )
