"""The ends of jobs on their way to disk: a job has ended when its end is in memory, whatever the disk says."""

import logging
import threading
from collections import deque
from collections.abc import Callable

from backend.errors import BackendError, StoreError
from backend.jobs.job import Job
from backend.jobs.job_queue import JobQueue
from backend.jobs.metrics import Metrics
from backend.jobs.rows import State
from backend.jobs.store import Store

log = logging.getLogger(__name__)

_MAX_AT_ONCE = 1000
"""How many ends are saved in one transaction."""


class JobEnds:
    """Ends jobs, and saves their ends in order; what cannot be saved yet is saved later.

    After a restart, a job whose end was not saved runs again, and finds that nothing of it is missing.

    Args:
        on_done: called with every job that is done, once that is saved.
    """

    def __init__(self, queue: JobQueue, store: Store, metrics: Metrics, on_done: Callable[[Job], None]) -> None:
        self._queue, self._store, self._metrics, self._on_done = queue, store, metrics, on_done
        self._pending: deque[Job] = deque()
        # Held while ends are written. `JobQueue.changed` may be locked neither before nor after it.
        self._writing = threading.Lock()

    def end(self, job: Job, state: State, error: BackendError | None = None) -> None:
        """End a job; call it with `JobQueue.changed` locked, and `flush` afterwards, without."""
        job.end(state, job.cancel_reason if state == "cancelled" else error)
        self._queue.note_end(job)
        self._pending.append(job)
        self._metrics.ended.labels(state).inc()
        for phase, seconds in job.phase_seconds.items():
            self._metrics.phase_seconds.labels(phase).observe(seconds)
        _log_end(job)

    def flush(self) -> None:
        """Save all ends.

        Raises:
            StoreError: they cannot be saved now; they are kept.
        """
        with self._writing:
            while self._pending:
                ended = [job for job, _ in zip(list(self._pending), range(_MAX_AT_ONCE), strict=False)]
                self._store.set_ended(
                    (job.number, job.state, str(job.error) if job.error else None, job.ended_at) for job in ended
                )
                for job in ended:
                    self._pending.popleft()
                    if job.state == "done":
                        self._on_done(job)

    def try_flush(self) -> bool:
        """As `flush`; False: they cannot be saved now, which the store tells."""
        try:
            self.flush()
        except StoreError:
            return False
        return True


def _log_end(job: Job) -> None:
    spec, (done, total) = job.row.spec, job.progress()
    spent = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in job.phase_seconds.items() if seconds >= 0.05)
    reason = f": {' '.join(str(job.error).split())}" if job.error else ""
    log.info(
        "job %d of task %s, %s: %s, %d of %d frames (%s)%s",
        *(job.number, spec.task, spec.kind, job.state, done, total, spent or "no time spent", reason),
    )
