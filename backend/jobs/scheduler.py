"""What requests ask of the jobs: submit, join, wait, cancel, resume, list. The package's docstring draws its parts."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from backend.errors import BackendError, Conflict, StoreError
from backend.jobs.ended_results import EndedResults
from backend.jobs.job import Job, is_late
from backend.jobs.job_ends import JobEnds
from backend.jobs.job_queue import JobQueue
from backend.jobs.job_runners import JobRunners
from backend.jobs.metrics import Metrics
from backend.jobs.rows import UNFINISHED, JobRow
from backend.jobs.spec import JobSpec
from backend.jobs.stall_watch import StallWatch
from backend.jobs.store import Store
from backend.jobs.store_keeper import StoreKeeper
from backend.jobs.video_fetcher import FetchVideo, VideoFetcher
from backend.jobs.worker_pool import WorkerPool
from backend.video import VideoLimits

_EARLIEST_ESTIMATE, _ESTIMATE_EVERY = 2.0, 0.25
"""When a waiting call first asks whether its jobs will end in time, and how often: seconds."""
_MAX_WAITS = 64
"""How many calls of `wait` may last at once."""


class Scheduler:
    """Runs jobs on workers, those of one video together: first those that a request waits for, batch jobs last.

    Methods that change what is on disk may raise StoreError, and then have changed nothing.

    Args:
        pool, store: used by no other scheduler.
        fetch: gets a job's video.
        forget: deletes a file that is not a video.
        limits: for videos.
        queue: how many jobs may wait.
        masks: keep masks.
        max_recent: how many ended jobs are kept in memory for requests to join.
        on_done: called with every job that is done.
    """

    def __init__(
        self,
        pool: WorkerPool,
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
        self._pool, self._store = pool, store
        self._queue = JobQueue(queue, max_recent, len(pool.workers))
        self._ends = JobEnds(self._queue, store, metrics, on_done)
        self._results = EndedResults(store)
        self._runners = JobRunners(
            self._queue, self._ends, pool, store, self._results, metrics, limits, forget, masks=masks
        )
        self._fetcher = VideoFetcher(self._queue, self._ends, fetch, self._runners.preempt)
        self._keeper = StoreKeeper(self._queue, self._ends, store, self._results)
        self._stalls = StallWatch(self.running)
        self._waits = threading.Semaphore(_MAX_WAITS)
        # Held while a request looks for its job on disk and adds it, so that two with the same prompt get one job.
        self._asking = threading.Lock()
        self._closed = False
        rows = store.unfinished()
        with self._queue.changed:
            for row in rows:
                self._enqueue(row)
        self._runners.start()
        self._fetcher.start()
        self._keeper.start()
        self._stalls.start()

    # For requests

    def submit(
        self,
        key: Sequence[str],
        digest: str,
        spec: JobSpec,
        *,
        batch: bool = False,
        post: str | None = None,
        replaces: bool = True,
    ) -> Job:
        """The job for `digest`: an existing one, or a new one.

        Args:
            replaces: it cancels the other unfinished jobs under `key`.

        Raises:
            Busy: too many jobs are waiting.
            StoreError: the job cannot be saved.
        """
        name = json.dumps([*key])
        with self._asking:
            with self._queue.changed:
                replaced = self._queue.unfinished(name) if replaces else []
            job = self._join(name, digest) or self._find_or_add(name, digest, spec, batch, post, replaced)
            with self._queue.changed:
                for other in replaced:
                    if other is not job and not other.has_ended:
                        self._cancel(other, Conflict(f"the prompt was changed: job {job.number} replaces it"))
        self._ends.try_flush()  # of those that it replaces
        return job

    def _join(self, name: str, digest: str) -> Job | None:
        """The unfinished job for a digest; None: there is none."""
        with self._queue.changed:
            job = self._queue.recent(name, digest)
            if job is None or job.has_ended:
                return None
            job.uncancel()
            return job

    def _find_or_add(
        self, name: str, digest: str, spec: JobSpec, batch: bool, post: str | None, replaced: Sequence[Job]
    ) -> Job:
        self._ends.flush()
        row = self._store.find(name, digest)
        if row and row.state == "done":
            with self._queue.changed:
                recent = self._queue.recent(name, digest)
                job = recent if recent and recent.state == "done" else self._load(row)
                self._queue.remember(job)
            if batch or self._results.check(job):
                return job
            row = self._store.job(row.number)  # what is damaged is computed once more
        with self._queue.changed:
            self._queue.check_room(batch, replaced)
        if row:  # a job that was cancelled or failed continues where it stopped
            self._store.requeue(row.number)
            row = self._store.job(row.number)
        row = row or self._store.add(name, digest, spec, self._pool.model_version, batch=batch, post=post)
        with self._queue.changed:
            return self._enqueue(row)

    def newest(self, key: Sequence[str]) -> Job | None:
        """The job that was last submitted under `key`."""
        name = json.dumps([*key])
        with self._queue.changed:
            job = self._queue.newest(name)
        row = None if job else self._store.newest(name)
        return self._load(row) if row else job

    def newest_under(self, key: Sequence[str], limit: int) -> list[Job]:
        """The newest jobs whose keys begin with these parts, newest first; those that have ended long ago, too."""
        rows = self._store.newest_under(f"{json.dumps([*key])[:-1]}, ", limit)
        with self._queue.changed:
            return [self._current(row) for row in rows]

    def forget(self, key: Sequence[str]) -> None:
        """Let no request join the ended jobs under `key`."""
        name = json.dumps([*key])
        with self._asking:
            self._ends.flush()
            self._store.forget(name)
            with self._queue.changed:
                self._queue.forget(name)

    def wait(self, jobs: Iterable[Job], seconds: float) -> None:
        """Wait until all of these jobs have ended, at most for `seconds`; meanwhile they have the highest priority.

        Returns early if the jobs are not expected to end in time, while nothing can be saved, or after `stop_waiting`,
        and at once if too many calls are waiting.
        """
        jobs, start = list(jobs), time.monotonic()
        unfinished = jobs.copy()
        if not self._waits.acquire(blocking=False):
            return
        self._change_waiters(jobs, 1)
        try:
            while unfinished and not self._closed and (left := start + seconds - time.monotonic()) > 0:
                if unfinished[0].wait(min(left, _ESTIMATE_EVERY)):
                    del unfinished[0]
                elif time.monotonic() - start > _EARLIEST_ESTIMATE and (self.trouble or is_late(unfinished, left)):
                    return
        finally:
            self._change_waiters(jobs, -1)
            self._waits.release()

    def stop_waiting(self) -> None:
        """End all calls of `wait`, now and later."""
        self._closed = True

    def _change_waiters(self, jobs: Iterable[Job], change: int) -> None:
        with self._queue.changed:
            for job in jobs:
                job.waiters += change
                self._queue.update_rank(job)
            self._runners.preempt()

    def cancel(self, number: int) -> bool:
        """Stop a job; its results are kept. False: there is no such job."""
        with self._queue.changed:
            job = self._queue.find(number)
            if job and not job.has_ended:
                self._cancel(job)
        self._ends.try_flush()
        return job is not None or self._store.job(number) is not None

    def resume(self, number: int) -> bool:
        """Continue a job that was cancelled or failed. False: there is no such job.

        Raises:
            Busy: too many jobs are waiting.
            StoreError: that the job waits cannot be saved.
        """
        with self._asking:
            self._ends.flush()
            row = self._store.job(number)
            if row and row.state in ("cancelled", "failed"):
                with self._queue.changed:
                    self._queue.check_room(row.batch)
                self._store.requeue(number)
                row = self._store.job(number) or row
                with self._queue.changed:
                    self._enqueue(row)
        self._ends.try_flush()
        return row is not None

    def jobs(self, limit: int) -> list[Job]:
        """The newest jobs, newest first."""
        rows = self._store.latest(limit)
        with self._queue.changed:
            return [self._current(row) for row in rows]

    def task_jobs(self, project: str, task: str) -> list[tuple[Job, int]]:
        """The newest job of each key of a task, of those in memory, and how many jobs come before it."""
        with self._queue.changed:
            return [(job, self._queue.position(job)) for job in self._queue.task_jobs(project, task)]

    def job(self, number: int) -> Job | None:
        """One job."""
        row = self._store.job(number)
        with self._queue.changed:
            return self._current(row) if row else None

    def running(self) -> list[Job]:
        """The jobs that the workers run."""
        with self._queue.changed:
            return self._queue.running

    def counts(self) -> dict[str, int]:
        """How many jobs wait and run."""
        with self._queue.changed:
            return {"waiting": self._queue.waiting_count, "running": len(self._queue.running)}

    @property
    def trouble(self) -> StoreError | None:
        """Why nothing can be saved now, so that jobs pause; None: it can."""
        return self._store.trouble or self._fetcher.trouble

    def close(self) -> None:
        """Save the running jobs, end the workers and close the store; unfinished jobs continue on the next start."""
        with self._queue.changed:
            self._closed = True
            self._runners.close()
            self._fetcher.close()
            self._queue.changed.notify_all()
        self._runners.join()
        self._stalls.close()
        self._keeper.close()
        self._store.close()

    # Called with `JobQueue.changed` locked

    def _load(self, row: JobRow) -> Job:
        return Job(row, self._results.load)

    def _current(self, row: JobRow) -> Job:
        """The job of a row: the one in memory, unless the row knows more."""
        job = self._queue.find(row.number)
        if job and (not job.has_ended or row.state in UNFINISHED):
            return job
        loaded = self._load(row)
        if job:
            loaded.damage = job.damage
            loaded.error = loaded.error and job.error  # the row has its text only
        return loaded

    def _enqueue(self, row: JobRow) -> Job:
        job = self._load(row)
        self._queue.remember(job)
        if row.model != self._pool.model_version:
            self._ends.end(job, "failed", Conflict("the job was started with another model: ask for it again"))
        else:
            job.enter_phase("waiting")
            self._queue.add(job)
            self._queue.changed.notify_all()
        return job

    def _cancel(self, job: Job, reason: BackendError | None = None) -> None:
        job.cancel(reason)
        if self._queue.is_waiting(job):
            self._queue.remove(job)
            self._ends.end(job, "cancelled")
            self._queue.changed.notify_all()
        self._runners.preempt()
