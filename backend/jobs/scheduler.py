"""Schedules jobs on one worker: deduplicates, prioritises, pre-empts and resumes them.

Threads: those of requests; some that fetch videos; and `scheduler`, which alone runs jobs on the worker.
Locks, in the only order in which one is taken under another: `Scheduler._changed`, the worker client's, the store's.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from backend.engines.base import FAILED_PREFIX
from backend.errors import BackendError, BadVideo, Busy, MediaError, SettingsError, where
from backend.jobs.executor import JobExecutor
from backend.jobs.job import Job, estimate_seconds
from backend.jobs.job_queue import MAX_FETCHES, JobQueue
from backend.jobs.metrics import Metrics
from backend.jobs.rows import JobRow, State
from backend.jobs.spec import JobSpec
from backend.jobs.store import Store
from backend.jobs.worker_client import WorkerClient, WorkerDied
from backend.video import VideoLimits

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 6.0
"""How long `close` waits for the session's state."""
_IDLE_SECONDS = 1.0
"""How often an idle worker is checked."""
_EARLIEST_ESTIMATE, _ESTIMATE_EVERY = 2.0, 0.25
"""When a waiting call first asks whether its jobs will end in time, and how often: seconds."""
_MAX_WORKER_DEATHS = 3
"""After so many deaths of the worker in a row a job fails."""
_MAX_WAITS = 64
"""How many calls of `wait` may last at once."""
_PRUNE_EVERY = 64
"""The store is pruned after so many ended jobs."""

FetchVideo = Callable[[JobSpec, Callable[[], bool]], Path]
"""Returns the file of a job's video and fetches it if needed; the second argument says whether to give up."""


class Scheduler:
    """Runs jobs one at a time: first those that a request waits for, batch jobs last.

    Args:
        worker, store: used by no other scheduler.
        fetch: gets a job's video.
        forget: deletes a file that is not a video.
        limits: for videos.
        queue: how many jobs may wait.
        masks: keep masks.
        max_recent: how many jobs are kept in memory for requests to join.
        on_done: called with every job that is done.
    """

    def __init__(
        self,
        worker: WorkerClient,
        store: Store,
        fetch: FetchVideo,
        forget: Callable[[Path], None],
        limits: VideoLimits,
        *,
        queue: int,
        metrics: Metrics,
        masks: bool = False,
        max_recent: int = 512,
        on_done: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self._worker, self._store, self._metrics = worker, store, metrics
        self._fetch, self._forget_file = fetch, forget
        self._executor = JobExecutor(worker, store, limits, metrics, masks=masks)
        self._on_done = on_done
        self._waits = threading.Semaphore(_MAX_WAITS)
        self._changed = threading.Condition()
        self._queue = JobQueue(queue, max_recent)
        self._fetching: set[int] = set()
        self._is_stopping = False
        self._closed = False
        self._ended_count = 0
        self._is_pruning_due = False
        self._thread = threading.Thread(target=self._run_loop, name="scheduler", daemon=True)
        with self._changed:
            for row in store.unfinished():
                self._enqueue(row)
        self._thread.start()
        for _ in range(MAX_FETCHES):
            threading.Thread(target=self._fetch_loop, name="fetch", daemon=True).start()

    # For requests

    def submit(
        self, key: Sequence[str], digest: str, spec: JobSpec, *, batch: bool = False, post: str | None = None
    ) -> Job:
        """The job for `digest`: an existing one, or a new one that replaces the unfinished jobs under `key`.

        Raises:
            Busy: too many jobs are waiting.
        """
        name = _key_text(key)
        with self._changed:
            job = self._queue.recent(name, digest)
            replaced = [other for other in self._queue.unfinished(name) if other is not job]
            row = self._store.find(name, digest)
            if job and job.state == "done" and row:
                self._queue.remember(job)
            elif job and not job.has_ended:
                job.uncancel()
            elif row and row.state == "done":
                job = self._load(row)
                self._queue.remember(job)
            else:
                if (waiting := self._queue.overfull(batch, replaced)) is not None:
                    raise Busy(f"{waiting} tracks are waiting for the device: try again in a little while")
                if row:  # a job that was cancelled or failed continues where it stopped
                    self._store.set_state(row.number, "queued")
                    row = self._store.job(row.number)
                job = self._enqueue(
                    row or self._store.add(name, digest, spec, self._worker.model_version, batch=batch, post=post)
                )
            for other in replaced:
                self._cancel(other)
            return job

    def newest(self, key: Sequence[str]) -> Job | None:
        """The job that was last submitted under `key`."""
        name = _key_text(key)
        with self._changed:
            job = self._queue.newest(name)
            row = None if job else self._store.newest(name)
            return self._load(row) if row else job

    def forget(self, key: Sequence[str]) -> None:
        """Let no request join the ended jobs under `key`."""
        name = _key_text(key)
        with self._changed:
            self._queue.forget(name)
            self._store.forget(name)

    def wait(self, jobs: Iterable[Job], seconds: float) -> None:
        """Wait until all of these jobs have ended, at most for `seconds`; meanwhile they have the highest priority.

        Returns early if the jobs are not expected to end in time, and at once if too many calls are waiting.
        """
        jobs, start = list(jobs), time.monotonic()
        unfinished = jobs.copy()
        if not self._waits.acquire(blocking=False):
            return
        self._change_waiters(jobs, 1)
        try:
            while unfinished and (left := start + seconds - time.monotonic()) > 0:
                if unfinished[0].wait(min(left, _ESTIMATE_EVERY)):
                    del unfinished[0]
                elif time.monotonic() - start > _EARLIEST_ESTIMATE and (estimate_seconds(unfinished) or 0.0) > left:
                    return
        finally:
            self._change_waiters(jobs, -1)
            self._waits.release()

    def _change_waiters(self, jobs: Iterable[Job], change: int) -> None:
        with self._changed:
            for job in jobs:
                job.waiters += change
            self._preempt()

    def cancel(self, number: int) -> bool:
        """Stop a job; its results are kept. False: there is no such job."""
        with self._changed:
            job = self._queue.find(number)
            if job:
                self._cancel(job)
            return job is not None or self._store.job(number) is not None

    def resume(self, number: int) -> bool:
        """Continue a job that was cancelled or failed. False: there is no such job."""
        with self._changed:
            row = self._store.job(number)
            if row and row.state in ("cancelled", "failed"):
                self._store.set_state(number, "queued")
                self._enqueue(self._store.job(number) or row)
            return row is not None

    def jobs(self, limit: int) -> list[Job]:
        """The newest jobs, newest first."""
        with self._changed:
            return [self._queue.find(row.number) or self._load(row) for row in self._store.latest(limit)]

    def recent_jobs(self) -> tuple[list[Job], dict[int, int]]:
        """The newest job of each key that is in memory, and how many jobs come before each waiting one, by number."""
        with self._changed:
            return self._queue.newest_jobs(), self._queue.positions()

    def job(self, number: int) -> Job | None:
        """One job."""
        with self._changed:
            row = self._store.job(number)
            return self._queue.find(number) or (self._load(row) if row else None)

    def counts(self) -> dict[str, int]:
        """How many jobs wait and run."""
        with self._changed:
            return {"waiting": len(self._queue.waiting), "running": int(self._queue.running is not None)}

    def close(self) -> None:
        """Save the running job, end the worker and close the store; unfinished jobs continue when it is next opened."""
        with self._changed:
            self._closed = True
            self._preempt()
            self._changed.notify_all()
        if self._worker.status == "ready":
            self._thread.join(_CLOSE_SECONDS)
        self._worker.close()
        self._thread.join(_CLOSE_SECONDS / 8)
        self._store.close()

    # Called with `_changed` locked

    def _load(self, row: JobRow) -> Job:
        return Job(row, self._executor.load)

    def _enqueue(self, row: JobRow) -> Job:
        job = self._load(row)
        self._queue.remember(job)
        if row.model != self._worker.model_version:
            self._end(job, "failed", BackendError("the job was started with another model: ask for it again"))
        else:
            job.enter_phase("waiting")
            self._queue.waiting.append(job)
            self._changed.notify_all()
        return job

    def _cancel(self, job: Job) -> None:
        job.cancel()
        if job in self._queue.waiting:
            self._queue.waiting.remove(job)
            self._end(job, "cancelled")
            self._changed.notify_all()
        self._preempt()

    def _preempt(self) -> None:
        """Stop the running job if it was cancelled, another job has priority, or the scheduler closes."""
        running = self._queue.running
        if running is None or self._is_stopping:
            return
        if self._closed or running.is_cancelled or self._queue.is_overtaken(self._is_engine_down()):
            self._is_stopping = True
            self._worker.stop()

    def _is_engine_down(self) -> bool:
        return self._worker.status.startswith(FAILED_PREFIX)

    def _next_to_run(self) -> Job | None:
        return self._queue.next_to_run(self._is_engine_down())

    def _end(self, job: Job, state: State, error: BackendError | None = None) -> None:
        try:
            self._store.set_state(job.number, state, str(error) if error else None)
        except Exception as failure:  # a full disk: the job ends all the same, and runs again after a restart
            log.error("the end of job %d could not be saved: %s", job.number, where(failure))
        job.end(state, error)
        self._metrics.ended.labels(state).inc()
        for phase, seconds in job.phase_seconds.items():
            self._metrics.phase_seconds.labels(phase).observe(seconds)
        _log_end(job)
        self._ended_count += 1
        if self._ended_count % _PRUNE_EVERY == 0:
            self._is_pruning_due = True

    # Threads

    def _fetch_loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._queue.next_to_fetch(self._fetching))
                job = self._queue.next_to_fetch(self._fetching)
                if self._closed or job is None:
                    return
                self._fetching.add(job.number)
                job.enter_phase("fetching")
            self._fetch_video(job)

    def _fetch_video(self, job: Job) -> None:
        error: BackendError | None = None
        try:
            path = self._fetch(job.row.spec, lambda: job.is_cancelled or self._closed)
        except BackendError as raised:
            error = raised
        except Exception as raised:
            log.error("a video could not be fetched: %s", where(raised))
            error = MediaError("the video could not be fetched; see the server log")
        with self._changed:
            self._fetching.discard(job.number)
            if self._closed or job not in self._queue.waiting:
                return
            if error:
                self._queue.waiting.remove(job)
                self._end(job, "failed", error)
                return
            job.enter_phase("waiting")
            job.video_path = path
            self._preempt()
            self._changed.notify_all()

    def _run_loop(self) -> None:
        while True:
            with self._changed:
                self._queue.running = None
                self._changed.wait_for(lambda: self._closed or self._next_to_run(), _IDLE_SECONDS)
                job = self._next_to_run()
                if self._closed:
                    return
            if job is None:
                self._idle()
                continue
            with self._changed:
                if self._closed or job not in self._queue.waiting:
                    continue
                self._queue.waiting.remove(job)
                self._queue.running, self._is_stopping = job, False
                self._worker.next_run()
                job.state = "running"
                self._changed.notify_all()  # the video of another batch job may be fetched
            self._run(job)

    def _idle(self) -> None:
        """Restart a worker that has died, so that no request waits for the model to load; prune the store."""
        try:
            with suppress(SettingsError):  # /health reports it
                self._worker.start()
            if self._is_pruning_due:
                self._is_pruning_due = False
                self._store.prune()
        except Exception as error:
            log.error("the worker could not be started, or the store not pruned: %s", where(error))

    def _run(self, job: Job) -> None:
        """Run a job until it ends or is pre-empted, then end or queue it."""
        state: State | None = None
        error: BackendError | None = None
        try:
            state = "done" if self._executor.run(job) else "cancelled" if job.is_cancelled else None
        except WorkerDied:
            job.worker_deaths += 1
            self._metrics.worker_deaths.inc(not self._closed)
            if job.is_cancelled:
                state = "cancelled"
            elif job.worker_deaths >= _MAX_WORKER_DEATHS and not self._closed:
                state, error = "failed", _deaths_error(job)
        except BackendError as raised:
            state, error = "failed", raised.with_traceback(None)  # its frames would keep the run's memory alive
            if isinstance(raised, BadVideo) and job.video_path:
                self._forget_file(job.video_path)
        except Exception as raised:
            log.error("a job failed: %s", where(raised))
            state, error = "failed", BackendError("the job failed unexpectedly; see the server log")
        with self._changed:
            if state in (None, "cancelled"):  # it may have been cancelled or asked for again just now
                state = "cancelled" if job.is_cancelled else None
            if state:
                self._executor.keep_results(job)
                self._end(job, state, error)
                job.resolved = None
            elif not self._closed:
                job.state = "queued"
                job.enter_phase("waiting")
                self._queue.waiting.append(job)
        if state == "done":
            self._on_done(job)


def _key_text(key: Sequence[str]) -> str:
    return json.dumps(list(key))


def _deaths_error(job: Job) -> BackendError:
    frames = job.resolved.propagation.done if job.resolved else 0
    return BackendError(
        f"the engine process ended {_MAX_WORKER_DEATHS} times during this job, after {frames} frames; see the server "
        "log. Its results so far are kept"
    )


def _log_end(job: Job) -> None:
    spec, (done, total) = job.row.spec, job.progress()
    spent = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in job.phase_seconds.items() if seconds >= 0.05)
    reason = f": {' '.join(str(job.error).split())}" if job.error else ""
    log.info(
        "job %d of task %s, %s: %s, %d of %d frames (%s)%s",
        *(job.number, spec.task, spec.kind, job.state, done, total, spent or "no time spent", reason),
    )
