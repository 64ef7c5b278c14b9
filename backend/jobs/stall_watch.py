"""The thread that logs which jobs make no frames."""

import logging
import threading
from collections.abc import Callable, Iterable

from backend.jobs.job import Job

log = logging.getLogger(__name__)

_EVERY = 5.0
"""Seconds from one look to the next."""


class StallWatch:
    """Logs once when a job stalls, and once when it goes on.

    Args:
        running: the jobs that run now.
    """

    def __init__(self, running: Callable[[], Iterable[Job]]) -> None:
        self._running = running
        self._stalled: set[int] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="stall-watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def look(self) -> None:
        """Log what has changed since the last look."""
        stalled = {job.number: job for job in self._running() if job.stall}
        for number in sorted(stalled.keys() - self._stalled):
            job = stalled[number]
            log.warning("job %d has made %s (%s, on %s)", number, job.stall, job.phase, job.worker)
        for number in sorted(self._stalled - stalled.keys()):
            log.info("job %d goes on, or has ended", number)
        self._stalled = set(stalled)

    def _loop(self) -> None:
        while not self._closed.wait(_EVERY):
            self.look()
