"""All workers of one server: their status as one engine, and the videos that each of them has."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from backend.engines.base import FAILED_PREFIX
from backend.errors import SettingsError
from backend.jobs.preview_router import PreviewRouter
from backend.jobs.video_homes import VideoHomes
from backend.jobs.worker_client import WorkerClient

_END_SECONDS = 2.0
"""How long to wait until killed workers have ended."""
_STATUSES = ("ready", "warming up", "loading")
"""From the one that counts for all if one worker has it."""


class WorkerPool:
    """Workers of the same engine, at least one.

    Attributes:
        workers: in the order in which they are shown.
        homes: which of them has which video.
        previews: what prompts would select; any thread may ask.
        name, version, model_version: of the engine.
        least: how many of the workers always run, the first ones; the others do when they are needed.

    Args:
        release: called when all workers have ended for good.
    """

    def __init__(
        self,
        workers: Sequence[WorkerClient],
        *,
        least: int | None = None,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self.workers = tuple(workers)
        self.least, self._release = len(self.workers) if least is None else least, release
        first = self.workers[0]
        self.name, self.version, self.model_version = first.name, first.version, first.model_version
        self.homes = VideoHomes()
        self.previews = PreviewRouter(self.workers, self.homes)
        for number, worker in enumerate(self.workers):
            worker.on_end = partial(self._forget, number)

    @property
    def status(self) -> str:
        """The engine's status, as `backend.engines.base` defines it: the best one of all workers."""
        statuses = [worker.status for worker in self.workers]
        return next((status for status in _STATUSES if status in statuses), statuses[0])

    @property
    def is_down(self) -> bool:
        """Whether all workers have failed."""
        return self.status.startswith(FAILED_PREFIX)

    def may_take(self, number: int) -> bool:
        """Whether a worker may take jobs now: its model is ready, or no other worker is nearer to that."""
        worker = self.workers[number]
        if worker.status == "ready" or self.status == "ready":
            return worker.status == "ready"
        if self.is_down:
            return True
        is_next = worker.is_running or not any(other.is_running for other in self.workers)
        return is_next and not self.has_failed(number)

    def has_failed(self, number: int) -> bool:
        """Whether a worker could not load the model."""
        return self.workers[number].status.startswith(FAILED_PREFIX)

    def describe_engine(self) -> str:
        """The engine's name, with its status unless it is ready."""
        return self.name if self.status == "ready" else f"{self.name} is {self.status}"

    def check_engine(self) -> None:
        """Raises SettingsError if no worker could load the model."""
        if self.is_down:
            raise SettingsError(self.status.removeprefix(FAILED_PREFIX))

    def describe_workers(self) -> list[dict[str, Any]]:
        """Each worker as JSON: device, status, memory and cache."""
        return [
            {
                "device": worker.device,
                "status": worker.status if worker.is_running or number < self.least else "off",
                "memory": dict(zip(("used", "total"), memory, strict=True)) if (memory := worker.memory) else None,
                "cache": asdict(cache) if (cache := worker.cache) else None,
            }
            for number, worker in enumerate(self.workers)
        ]

    def start(self) -> None:
        """Start the workers that always run.

        Raises:
            SettingsError: an engine cannot be made, or workers keep dying before it is ready.
        """
        for worker in self.workers[: self.least]:
            worker.start()

    def close(self) -> None:
        """Kill all workers for good."""
        for worker in self.workers:
            worker.close()
        until = time.monotonic() + _END_SECONDS
        for worker in self.workers:
            worker.join(until - time.monotonic())
        self._release()

    def _forget(self, number: int) -> None:
        """A worker has ended, and with it what it made of frames."""
        self.homes.forget(number)
        self.previews.forget(number)
