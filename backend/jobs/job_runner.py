"""The thread that runs jobs on one worker, those of one video together; it pauses while nothing can be saved.

A job joins those that run as soon as its video is fetched, whatever its rank: the worker lets those that somebody waits
for go first. Jobs of another video wait, or stop all of them.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from backend.errors import BackendError, BadVideo, SettingsError, StoreDamaged, StoreError, where
from backend.jobs.ended_results import EndedResults
from backend.jobs.executor import EndedRun, JobExecutor
from backend.jobs.job import Job
from backend.jobs.job_ends import JobEnds
from backend.jobs.job_line import rank_of
from backend.jobs.job_queue import JobQueue
from backend.jobs.placement import Placement
from backend.jobs.rows import State
from backend.jobs.slots import Slot
from backend.jobs.store import Store
from backend.jobs.worker_client import WorkerClient, WorkerDied

log = logging.getLogger(__name__)

_END_SECONDS = 0.75
"""How long the thread may go on when its worker was killed."""
_IDLE_SECONDS = 1.0
"""How often an idle worker is checked, and a store that cannot save."""
_LET_GO_SECONDS = 120.0
"""After so many seconds without a job a worker ends, unless it always runs."""
_START_FRAMES = 32
"""The start of a job counts like so many frames of its task, so that the others' first jobs come before its second."""
_MAX_WORKER_DEATHS = 3
"""After so many deaths of the worker in a row a job fails."""
_MAX_NODE_DEATHS = 10
"""The same for machines: it is hardly the job's fault, but it must not take down one after the other for ever."""
_JOIN_SECONDS = 2.0
"""For so long others may join those that run while a job of another video waits, of no lower rank."""


class JobRunner:
    """Runs jobs on one worker: one, and those of its video, until they end or another has a higher rank.

    Args:
        slot: the worker's.
        executor: the worker's.
        preempt: see `JobRunners.preempt`.
        forget_file: deletes a file that is not a video.
    """

    def __init__(
        self,
        slot: Slot,
        queue: JobQueue,
        placement: Placement,
        ends: JobEnds,
        worker: WorkerClient,
        store: Store,
        executor: JobExecutor,
        results: EndedResults,
        preempt: Callable[[], None],
        forget_file: Callable[[Path], None],
    ) -> None:
        self.slot, self.worker = slot, worker
        self._queue, self._placement, self._ends, self._store = queue, placement, ends, store
        self._executor, self._results, self._preempt, self._forget_file = executor, results, preempt, forget_file
        self._run_ids = count(1)
        self._needed_at = 0.0
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name=f"runner-{slot.number}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Start no further jobs, and give up what cannot be saved now; call it with `JobQueue.changed` locked."""
        self._closed = True
        self._executor.close()

    def join(self, seconds: float) -> None:
        """Wait until the running jobs are saved, if the model is ready; at most so long."""
        if self.worker.status == "ready":
            self._thread.join(max(seconds, 0.0))

    def end(self) -> None:
        """Wait until the thread has ended, which it does when its worker was killed for good."""
        self._thread.join(_END_SECONDS)

    def stop(self, all_jobs: bool) -> None:
        """Stop jobs that were cancelled, or all; let others join. Call it with `JobQueue.changed` locked."""
        slot = self.slot
        for job in slot.running:
            if (all_jobs or job.is_cancelled) and not job.is_stopping:
                job.is_stopping = True
                slot.changed_at = time.monotonic()
                self.worker.stop_run(job.run_id)
                self.worker.wake()
        if self._next():
            self.worker.wake()

    def _note_results(self, job: Job, frames: int) -> None:
        with self._queue.changed:
            self._queue.count_frames(job, frames)

    def _next(self) -> Job | None:
        """The job to start now."""
        if self._closed:
            return None
        slot, following = self.slot, self._placement.next_to_run(self.slot)
        if not slot.running:
            return following
        joining = self._placement.next_to_join(slot)
        # A job of another video has its turn, too, though others keep joining those that run.
        is_late = time.monotonic() - slot.changed_at >= _JOIN_SECONDS
        if joining and following and joining is not following and is_late and rank_of(following) <= rank_of(joining):
            return None
        return joining

    def _loop(self) -> None:
        queue = self._queue
        while True:
            with queue.changed:
                if not self.slot.running:
                    queue.changed.wait_for(lambda: self._closed or self._next(), _IDLE_SECONDS)
                is_running = bool(self.slot.running)
            if not is_running and not self._can_save():
                with queue.changed:
                    if queue.changed.wait_for(lambda: self._closed, _IDLE_SECONDS):
                        return
                continue
            with queue.changed:
                if self._closed and not is_running:
                    return
                if job := self._next():
                    self._start(job)
                    self._preempt()
            if job:
                self._end(self._executor.start(job))
            elif is_running:
                self._end(self._executor.advance(self._note_results))
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
        slot = self.slot
        self._placement.note_start(slot, job)
        self._queue.remove(job)
        if not slot.running:
            slot.changed_at = time.monotonic()
        slot.running.append(job)
        self._queue.count_frames(job, _START_FRAMES)
        job.run_id, job.is_stopping, job.state = next(self._run_ids), False, "running"
        job.worker = self.worker.device
        job.note_progress()
        self._queue.changed.notify_all()  # the video of another batch job may be fetched

    def _idle(self) -> None:
        """Start a worker that is needed, so that no request waits for the model to load, or let it go."""
        with self._queue.changed:
            self._preempt()  # the workers' statuses may have changed
            is_needed = self._placement.is_needed(self.slot)
        now = time.monotonic()
        self._needed_at = now if is_needed else max(self._needed_at, self.slot.changed_at)
        try:
            with suppress(SettingsError):  # /health reports it
                if is_needed:
                    self.worker.start()
                elif self.worker.is_running and now - self._needed_at > _LET_GO_SECONDS:
                    log.info("the worker %s has nothing to do and ends", self.worker.device)
                    self.worker.let_go()
        except Exception as error:
            log.error("the worker could not be started: %s", where(error))

    def _end(self, ended: Sequence[EndedRun]) -> None:
        """End jobs that do not run any more, or queue them again."""
        for job, outcome in ended:
            self._end_run(job, outcome)
        with self._queue.changed:
            self._preempt()
            if ended:
                self._queue.changed.notify_all()  # another worker may take what was stopped
        if ended:
            self._ends.try_flush()

    def _end_run(self, job: Job, outcome: bool | Exception) -> None:
        state, error = self._judge(job, outcome)
        with self._queue.changed:
            self.slot.running.remove(job)
            job.companions = ()
            if job.is_stopping:
                job.stop_seconds = time.monotonic() - self.slot.changed_at
            if state in (None, "cancelled"):  # it may have been cancelled or asked for again just now
                state = "cancelled" if job.is_cancelled else None
            if state:
                self._results.keep(job)
                self._ends.end(job, state, error)
                job.resolved = None
            elif not self._closed:
                job.state = "queued"
                job.enter_phase("waiting")
                self._queue.add(job)

    def _judge(self, job: Job, outcome: bool | Exception) -> tuple[State | None, BackendError | None]:
        """A job's state and error after its run; None: it was stopped and goes on later."""
        match outcome:
            case True:
                return "done", None
            case False:
                return None, None
            case WorkerDied():
                job.note_worker_death(outcome.with_node)
                if (error := _deaths_error(job)) and not self._closed and not job.is_cancelled:
                    return "failed", error
                return None, None
            case StoreDamaged():
                return "failed", outcome.with_traceback(None)
            case StoreError():  # this closes; until then, the executor waits
                return None, None
            case BackendError():
                if isinstance(outcome, BadVideo) and job.video_path:
                    self._forget_file(job.video_path)
                return "failed", outcome.with_traceback(None)  # its frames would keep the run's memory alive
        log.error("a job failed: %s", where(outcome))
        return "failed", BackendError("the job failed unexpectedly; see the server log")


def _deaths_error(job: Job) -> BackendError | None:
    """The error of a job whose workers have died too often; None: they have not."""
    if job.worker_deaths - job.node_deaths >= _MAX_WORKER_DEATHS:
        what = f"the engine process ended {_MAX_WORKER_DEATHS} times"
    elif job.node_deaths >= _MAX_NODE_DEATHS:
        what = f"{_MAX_NODE_DEATHS} machines were lost"
    else:
        return None
    frames = job.resolved.propagation.done if job.resolved else 0
    return BackendError(
        f"{what} during this job, after {frames} frames; see the server log. Its results so far are kept"
    )
