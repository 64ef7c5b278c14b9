"""Chooses the keyframes of long results as their jobs go and when they end, so that a request only reads them."""

import logging
import queue
import threading
import time
from contextlib import suppress

from backend.errors import where
from backend.jobs.job import Job
from backend.jobs.scheduler import Scheduler
from backend.predict.results import TextResult
from backend.settings import Settings

log = logging.getLogger(__name__)

_LONG = 50_000
"""Boxes; keyframes of fewer are chosen in a moment, when somebody asks."""
_EVERY = 5.0
"""Seconds from one look at the running jobs to the next."""
_SHARE = 10
"""So many times as long as a look took it waits for the next one."""


class KeyframeChooser:
    """A thread; what it chooses is kept in the job's `ResolvedJob.memo`, which is stored when the job has ended."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ended: queue.Queue[Job | None] = queue.Queue()

    def start(self, scheduler: Scheduler) -> None:
        """Start the thread."""
        threading.Thread(target=self._loop, args=(scheduler,), name="keyframes", daemon=True).start()

    def close(self) -> None:
        """End the thread, at the latest after the jobs that have ended by now."""
        self._ended.put(None)

    def add(self, job: Job) -> None:
        """Choose the keyframes of a job that has ended."""
        if job.row.spec.phrases:
            self._ended.put(job)

    def _loop(self, scheduler: Scheduler) -> None:
        pause = _EVERY
        while True:
            with suppress(queue.Empty):
                job = self._ended.get(timeout=pause)
                if job is None:
                    return
                self._choose(job)
                continue
            start = time.monotonic()
            for job in scheduler.running():
                if job.row.spec.phrases and job.box_count >= _LONG:
                    self._choose(job)
            pause = max(_EVERY, _SHARE * (time.monotonic() - start))

    def _choose(self, job: Job) -> None:
        try:
            TextResult(job, self._settings).choose()
        except Exception as error:
            log.error("the keyframes of job %d are not chosen ahead: %s", job.number, where(error))
