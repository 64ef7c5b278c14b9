"""What several rooms' tests share."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backend.labelstudio.media import Media
from backend.service import Service
from backend.settings import Settings
from tests.fakes import FakeVideo, StubEngine, fake_path


@pytest.fixture
def make_service(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[Callable[..., Service]]:
    """Makes services over a stub engine and a video without a file; `settings` as keywords."""
    made: list[Service] = []

    def make(engine: StubEngine | None = None, video: FakeVideo | None = None, **settings: Any) -> Service:
        monkeypatch.setattr(Media, "fetch", fake_path)
        monkeypatch.setattr("backend.service.Video", lambda path, limits: video or FakeVideo())
        made.append(Service(Settings(data_dir=tmp_path, **settings), engine or StubEngine()))
        return made[-1]

    yield make
    for service in made:
        service.close()
