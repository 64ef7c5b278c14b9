"""The runners of all workers, and which of them have to stop their jobs."""

import time
from collections.abc import Callable
from pathlib import Path

from backend.jobs.ended_results import EndedResults
from backend.jobs.executor import JobExecutor
from backend.jobs.job_ends import JobEnds
from backend.jobs.job_queue import JobQueue
from backend.jobs.job_runner import JobRunner
from backend.jobs.metrics import Metrics
from backend.jobs.placement import Placement
from backend.jobs.store import Store
from backend.jobs.worker_pool import WorkerPool
from backend.video import VideoLimits

_CLOSE_SECONDS = 6.0
"""How long `join` waits for the sessions' states."""


class JobRunners:
    """One for each worker of a pool.

    Args:
        limits: for videos.
        masks: keep masks.
        forget_file: deletes a file that is not a video.
    """

    def __init__(
        self,
        queue: JobQueue,
        ends: JobEnds,
        pool: WorkerPool,
        store: Store,
        results: EndedResults,
        metrics: Metrics,
        limits: VideoLimits,
        forget_file: Callable[[Path], None],
        *,
        masks: bool,
    ) -> None:
        self._pool = pool
        self._closed = False
        self._placement = Placement(queue, pool)

        def runner(number: int) -> JobRunner:
            slot, worker = queue.slots[number], pool.workers[number]
            executor = JobExecutor(worker, store, limits, metrics, masks=masks)
            tools = queue, self._placement, ends, worker, store, executor, results
            return JobRunner(slot, *tools, self.preempt, forget_file)

        self._runners = [runner(number) for number in range(len(pool.workers))]

    def start(self) -> None:
        """Start the threads."""
        for runner in self._runners:
            runner.start()

    def close(self) -> None:
        """Stop the running jobs soon; call it with `JobQueue.changed` locked."""
        self._closed = True
        for runner in self._runners:
            runner.close()
        self.preempt()

    def join(self) -> None:
        """Wait until the running jobs are saved, then kill the workers."""
        until = time.monotonic() + _CLOSE_SECONDS
        for runner in self._runners:
            runner.join(until - time.monotonic())
        self._pool.close()
        for runner in self._runners:
            runner.end()

    def preempt(self) -> None:
        """Stop jobs that were cancelled, those that another job overtakes, and those whose worker is not ready.

        Call it with `JobQueue.changed` locked, whenever one of these may be so, or when a job may join others.
        """
        overtaken = self._placement.overtaken()
        for runner in self._runners:
            slot = runner.slot
            runner.stop(self._closed or slot is overtaken or not self._pool.may_take(slot.number))
