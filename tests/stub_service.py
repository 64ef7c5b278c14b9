"""A whole service over a stub engine. Not in `fakes`, which worker processes import too and have to start fast."""

import time
from collections.abc import Iterable

from backend.jobs.job import Job
from backend.jobs.worker_pool import WorkerPool
from backend.service import Service
from backend.settings import Settings
from tests.fakes import Gate, StubEngine, thread_worker


class StubService(Service):
    """Its engine can be inspected; the service itself knows only the worker."""

    def __init__(self, settings: Settings, engine: StubEngine) -> None:
        super().__init__(settings, WorkerPool([thread_worker(engine)]))
        self.engine = engine
        self._wait = self.scheduler.wait
        setattr(self.scheduler, "wait", self._wait_at_gate)  # noqa: B010 (mypy: a method is replaced)

    def _wait_at_gate(self, jobs: Iterable[Job], seconds: float) -> None:
        """Count the seconds from when the engine stands at its gate, so that no slow machine answers too early."""
        jobs, gate, give_up = list(jobs), self.engine.gate, time.monotonic() + 30
        while isinstance(gate, Gate) and not gate.held and time.monotonic() < give_up:
            if self.status != "ready" or self.scheduler.trouble or all(job.has_ended for job in jobs):
                break
            time.sleep(0.002)
        self._wait(jobs, seconds)
