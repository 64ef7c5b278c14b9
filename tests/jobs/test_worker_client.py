"""How long a worker may take to be ready."""

from types import SimpleNamespace

import pytest

from backend.jobs import worker_client
from backend.jobs.messages import Reply, Request, WorkerStatus
from backend.jobs.worker_client import WorkerClient


class TimedLink:
    """A worker whose statuses come at given times of a clock; it then ends.

    Attributes:
        limits: how long each reply was waited for.
    """

    def __init__(self, clock: SimpleNamespace, statuses: list[tuple[float, str]]) -> None:
        self._clock, self._statuses = clock, statuses
        self.limits: list[float | None] = []

    def send(self, request: Request) -> None:
        pass

    def kill(self) -> None:
        pass

    def receive(self, seconds: float | None = None) -> Reply | None:
        self.limits.append(seconds)
        if not self._statuses:
            raise EOFError
        self._clock.now, status = self._statuses.pop(0)
        return WorkerStatus(status, None, None)


def test_a_download_does_not_count_as_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(worker_client, "time", SimpleNamespace(monotonic=lambda: clock.now))
    waiting, downloading = "waiting for its weights: the hub is silent", "downloading its weights: 1 % of 3.4 GB"
    link = TimedLink(
        clock, [(50, "loading"), (60, waiting), (7000, downloading), (9000, "warming up"), (9040, "ready")]
    )
    client = WorkerClient(lambda: link, "stub", "1", 60, loading_timeout=100)
    client.start()
    client.join(30)
    assert link.limits == [100, 50, None, None, 100, None]
    assert client.status == "loading", "it ended when it was ready: the next one loads"
