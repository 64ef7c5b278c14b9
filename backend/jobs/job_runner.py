"""The thread that runs jobs on the worker, one at a time; it pauses while nothing can be saved."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from backend.engines.base import FAILED_PREFIX
from backend.errors import BackendError, BadVideo, SettingsError, StoreDamaged, StoreError, where
from backend.jobs.executor import JobExecutor
from backend.jobs.job import Job
from backend.jobs.job_ends import JobEnds
from backend.jobs.job_queue import JobQueue
from backend.jobs.metrics import Metrics
from backend.jobs.rows import State
from backend.jobs.store import Store
from backend.jobs.worker_client import WorkerClient, WorkerDied

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 6.0
"""How long `join` waits for the session's state."""
_IDLE_SECONDS = 1.0
"""How often an idle worker is checked, and a store that cannot save."""
_MAX_WORKER_DEATHS = 3
"""After so many deaths of the worker in a row a job fails."""
_LEAST_SHARE = 5
"""A job that was interrupted runs at least for so many times what that took."""


class JobRunner:
    """Runs the first job of the queue until it ends, or until another one has a higher rank.

    Args:
        forget_file: deletes a file that is not a video.
    """

    def __init__(
        self,
        queue: JobQueue,
        ends: JobEnds,
        worker: WorkerClient,
        store: Store,
        executor: JobExecutor,
        metrics: Metrics,
        forget_file: Callable[[Path], None],
    ) -> None:
        self._queue, self._ends, self._worker, self._store = queue, ends, worker, store
        self._executor, self._metrics, self._forget_file = executor, metrics, forget_file
        self._is_stopping = False
        self._changed_at = 0.0  # when the running job was started, or stopped
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="scheduler", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the running job soon; call it with `JobQueue.changed` locked."""
        self._closed = True
        self._executor.close()
        self.preempt()

    def join(self) -> None:
        """Wait until the running job is saved, then kill the worker."""
        if self._worker.status == "ready":
            self._thread.join(_CLOSE_SECONDS)
        self._worker.close()
        self._thread.join(_CLOSE_SECONDS / 8)

    def preempt(self) -> None:
        """Stop the running job if it was cancelled, another job has a higher rank, or this closes.

        Call it with `JobQueue.changed` locked, whenever one of these may be so.
        """
        running = self._queue.running
        if running is None or self._is_stopping:
            return
        if self._closed or running.is_cancelled or (self._may_interrupt(running) and self._is_overtaken()):
            self._is_stopping = True
            self._changed_at = time.monotonic()
            self._worker.stop()

    def _may_interrupt(self, running: Job) -> bool:
        """Whether interrupting costs little: tasks that overtake each other would else save and load states alone."""
        seconds = time.monotonic() - self._changed_at
        return running.keeps_state and seconds >= _LEAST_SHARE * running.stop_seconds

    def _is_overtaken(self) -> bool:
        return self._queue.is_overtaken(self._is_engine_down())

    def _note_results(self, job: Job, frames: int) -> None:
        with self._queue.changed:
            self._queue.count_frames(job, frames)
            self.preempt()

    def _is_engine_down(self) -> bool:
        return self._worker.status.startswith(FAILED_PREFIX)

    def _next(self) -> Job | None:
        return self._queue.next_to_run(self._is_engine_down())

    def _loop(self) -> None:
        queue = self._queue
        while True:
            with queue.changed:
                queue.running = None
                queue.changed.wait_for(lambda: self._closed or self._next(), _IDLE_SECONDS)
            if not self._can_save():
                with queue.changed:
                    if queue.changed.wait_for(lambda: self._closed, _IDLE_SECONDS):
                        return
                continue
            with queue.changed:
                if self._closed:
                    return
                if job := self._next():
                    self._start(job)
            if job:
                self._run(job)
            else:
                self._idle()

    def _can_save(self) -> bool:
        """Whether results can be saved; if so, ended jobs are."""
        try:
            self._ends.flush()
            if self._store.trouble:
                self._store.check()
        except StoreError:
            return False
        return True

    def _start(self, job: Job) -> None:
        self._queue.remove(job)
        self._queue.running, self._is_stopping, self._changed_at = job, False, time.monotonic()
        self._worker.next_run()
        job.state = "running"
        self._queue.changed.notify_all()  # the video of another batch job may be fetched

    def _idle(self) -> None:
        """Restart a worker that has died, so that no request waits for the model to load."""
        try:
            with suppress(SettingsError):  # /health reports it
                self._worker.start()
        except Exception as error:
            log.error("the worker could not be started: %s", where(error))

    def _run(self, job: Job) -> None:
        """Run a job until it ends or is pre-empted, then end or queue it."""
        state, error = self._execute(job)
        with self._queue.changed:
            if self._is_stopping:
                job.stop_seconds = time.monotonic() - self._changed_at
            if state in (None, "cancelled"):  # it may have been cancelled or asked for again just now
                state = "cancelled" if job.is_cancelled else None
            if state:
                self._executor.keep_results(job)
                self._ends.end(job, state, error)
                job.resolved = None
            elif not self._closed:
                job.state = "queued"
                job.enter_phase("waiting")
                self._queue.add(job)
            self._queue.running = None
        self._ends.try_flush()

    def _execute(self, job: Job) -> tuple[State | None, BackendError | None]:
        """Run a job; returns its last state and error. None: it was stopped and goes on later."""
        try:
            is_complete = self._executor.run(job, partial(self._note_results, job))
            return ("done" if is_complete else "cancelled" if job.is_cancelled else None), None
        except WorkerDied:
            job.worker_deaths += 1
            self._metrics.worker_deaths.inc(not self._closed)
            if job.is_cancelled:
                return "cancelled", None
            if job.worker_deaths >= _MAX_WORKER_DEATHS and not self._closed:
                return "failed", _deaths_error(job)
            return None, None
        except StoreDamaged as raised:
            return "failed", raised.with_traceback(None)
        except StoreError:  # this closes; until then, the executor waits
            return None, None
        except BackendError as raised:
            if isinstance(raised, BadVideo) and job.video_path:
                self._forget_file(job.video_path)
            return "failed", raised.with_traceback(None)  # its frames would keep the run's memory alive
        except Exception as raised:
            log.error("a job failed: %s", where(raised))
            return "failed", BackendError("the job failed unexpectedly; see the server log")


def _deaths_error(job: Job) -> BackendError:
    frames = job.resolved.propagation.done if job.resolved else 0
    return BackendError(
        f"the engine process ended {_MAX_WORKER_DEATHS} times during this job, after {frames} frames; see the server "
        "log. Its results so far are kept"
    )
