"""What several rooms' tests share."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

from backend.labelstudio.media import Media
from backend.service import Service
from backend.settings import Settings
from tests.fakes import FakeVideo, StubEngine, fake_path

# Machines are shared and noisy: no example has a deadline, and CI draws the same ones every time.
settings.register_profile("default", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("default")


@pytest.fixture
def make_service(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[Callable[..., Service]]:
    """Makes services over a stub engine and a video without a file; settings as keywords."""
    made: list[Service] = []

    def make(engine: StubEngine | None = None, video: FakeVideo | None = None, **values: Any) -> Service:
        monkeypatch.setattr(Media, "fetch", fake_path)
        monkeypatch.setattr("backend.labelstudio.videos.Video", lambda path, limits: video or FakeVideo())
        made.append(Service(Settings(data_dir=tmp_path, **values), engine or StubEngine()))
        return made[-1]

    yield make
    for service in made:
        service.close()
