"""The thread that keeps the store in order, while jobs run as well as while none does."""

import logging
import threading
from dataclasses import replace

from backend.errors import StoreError, where
from backend.jobs.ended_results import EndedResults
from backend.jobs.job_ends import JobEnds
from backend.jobs.job_queue import JobQueue
from backend.jobs.store import Store

log = logging.getLogger(__name__)

_EVERY = 5.0
"""Seconds from one look to the next."""


class StoreKeeper:
    """Saves ends of jobs, what was fetched and which keyframes were chosen; deletes what is old or too much."""

    def __init__(self, queue: JobQueue, ends: JobEnds, store: Store, results: EndedResults) -> None:
        self._queue, self._ends, self._store, self._results = queue, ends, store, results
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="store-keeper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Save what is not saved yet, and end the thread."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._thread.join()
        self._try_keep()

    def _loop(self) -> None:
        while not self._closed.wait(_EVERY):
            self._try_keep()

    def _try_keep(self) -> None:
        try:
            self._keep()
        except StoreError:
            pass  # the store tells it, and the next look comes
        except Exception as error:
            log.error("the store was not kept in order: %s", where(error))

    def _keep(self) -> None:
        self._ends.flush()
        if self._store.trouble:
            self._store.check()
        with self._queue.changed:
            fetched = [job for job in self._queue.ended_jobs() if job.is_fetched and not job.row.is_fetched]
        if fetched:
            self._store.set_fetched([job.number for job in fetched])
            for job in fetched:
                job.row = replace(job.row, is_fetched=True)
        self._results.save_memos()
        self._store.prune()
