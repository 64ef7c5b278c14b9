"""What several rooms' tests share."""

import gc
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import settings

from backend.labelstudio.media import MediaCache
from backend.settings import Settings
from tests.fakes import FakeVideo, Gate, StubEngine, fake_path
from tests.needs import THOROUGH
from tests.stub_service import StubService

# Machines are shared and noisy: no example has a deadline, and only THOROUGH=1 draws new ones every time.
settings.register_profile("default", deadline=None, max_examples=50, derandomize=True)
settings.register_profile("fast", settings.get_profile("default"), max_examples=20)
settings.register_profile("thorough", deadline=None, max_examples=400)
settings.load_profile("thorough" if THOROUGH else "default")

GROUPS = (
    "e2e/test_prompt",
    "e2e/test_[p-z]",
    "e2e/",
    r"benchmarks/test_quick\.py.*\[[a-j]",
    r"benchmarks/test_quick\.py",
)
"""What one worker runs: browser tests share a Label Studio and a Chromium; benchmarks would be one long file."""
SLOW_FILES = (
    *GROUPS,
    "test_docker.py",
    "test_packaging.py",
    "test_hosting.py",
    "predict/test_overwrite_policy.py",
    "engines/",
    "jobs/",
    "training/",
)
"""In the order in which they start, the longest first; the others follow."""


gc.disable()  # until all tests are collected: looking for garbage in PyTorch takes longer than importing it


def pytest_collection_finish() -> None:
    """Look for garbage again, but not in what was imported."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the slow files first: a long one that starts last keeps one worker waiting for the other."""
    items.sort(key=lambda item: [*SLOW_FILES, None].index(_first_match(SLOW_FILES, item.nodeid)))


def _first_match(patterns: Sequence[str], nodeid: str) -> str | None:
    return next((pattern for pattern in patterns if re.match(f"tests/{pattern}", nodeid)), None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker whole files, and all files of a group that shares a Label Studio and a Chromium."""
    from xdist.scheduler import LoadScopeScheduling

    class FileScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _first_match(GROUPS, nodeid) or nodeid.partition("::")[0]

    return FileScheduling(config, log)


@pytest.fixture
def make_service(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[Callable[..., StubService]]:
    """Makes services over a stub engine and a video without a file; settings as keywords."""
    made: list[StubService] = []

    def make(engine: StubEngine | None = None, video: FakeVideo | None = None, **values: Any) -> StubService:
        monkeypatch.setattr(MediaCache, "fetch", fake_path)
        monkeypatch.setattr("backend.labelstudio.videos.probe_video", lambda *_: None)
        monkeypatch.setattr("backend.jobs.worker.Video", lambda path, limits: video or FakeVideo())
        engine = engine or StubEngine()
        # Each in a folder of its own: two cannot work in one.
        service = StubService(Settings(**{"data_dir": tmp_path / ("again" * len(made)), **values}), engine)
        made.append(service)
        while service.status != engine.status:  # until the worker has told it
            time.sleep(0.001)
        return service

    yield make
    for service in made:
        if isinstance(service.engine.gate, Gate):
            service.engine.gate.open()
        service.close()


@pytest.fixture
def make_interactive(make_service, monkeypatch: pytest.MonkeyPatch, tmp_path) -> Callable[..., StubService]:
    """As `make_service`, with a video that interactive sessions can open."""

    def make(engine: StubEngine | None = None, video: FakeVideo | None = None, **values: Any) -> StubService:
        service = make_service(engine, video, **values)
        file = tmp_path / "clip.mp4"
        file.touch()
        monkeypatch.setattr(MediaCache, "fetch", lambda *_: file)
        monkeypatch.setattr("backend.labelstudio.videos.Video", lambda *_, **__: video or FakeVideo())
        return service

    return make
