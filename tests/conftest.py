"""What several rooms' tests share."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

from backend.labelstudio.media import Media
from backend.service import Service
from backend.settings import Settings
from tests.fakes import FakeVideo, Gate, StubEngine, fake_path, thread_worker

# Machines are shared and noisy: no example has a deadline, and CI draws the same ones every time.
settings.register_profile("default", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("default")


@pytest.fixture
def make_service(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[Callable[..., Service]]:
    """Makes services over a stub engine and a video without a file; settings as keywords."""
    made: list[Service] = []

    def make(engine: StubEngine | None = None, video: FakeVideo | None = None, **values: Any) -> Service:
        monkeypatch.setattr(Media, "fetch", fake_path)
        monkeypatch.setattr("backend.jobs.worker.Video", lambda path, limits: video or FakeVideo())
        engine = engine or StubEngine()
        # Each in a folder of its own: two cannot work in one.
        service = Service(Settings(**{"data_dir": tmp_path / ("again" * len(made)), **values}), thread_worker(engine))
        service.engine = engine  # for tests alone: the service knows only the device that it runs on
        made.append(service)
        while service.status != engine.status:  # until the worker has told it
            time.sleep(0.001)
        return service

    yield make
    for service in made:
        if isinstance(service.engine.gate, Gate):
            service.engine.gate.open()
        service.close()
