"""Which job runs on which worker.

A worker takes the first job in turn. Of jobs of one rank it prefers those whose video it has, or nobody has; a job that
stands before them is passed over for that only a few times. So a task's jobs stay where the video is cached, and yet no
worker is idle while a job waits that no other worker is about to take.
"""

from pathlib import Path
from typing import Protocol

from backend.jobs.job import Job
from backend.jobs.job_line import RANKS, WAITED_FOR, rank_of
from backend.jobs.job_queue import JobQueue
from backend.jobs.slots import Slot
from backend.jobs.video_homes import VideoHomes

_MAX_PASSED_OVER = 8
"""So often a job may be passed over for one whose video a worker has."""


class Workers(Protocol):
    """What placing jobs needs to know of the workers."""

    homes: VideoHomes

    def may_take(self, number: int) -> bool:
        """Whether a worker may take jobs now."""
        ...

    least: int

    def has_failed(self, number: int) -> bool:
        """Whether a worker cannot run jobs, now or later."""
        ...

    @property
    def is_down(self) -> bool:
        """Whether all workers have failed."""
        ...


class Placement:
    """Chooses jobs; call it with `JobQueue.changed` locked.

    While all workers have failed, only jobs that a request waits for are run, to report the error; others wait.
    """

    def __init__(self, queue: JobQueue, workers: Workers) -> None:
        self._queue, self._workers, self._homes = queue, workers, workers.homes

    def next_to_run(self, slot: Slot) -> Job | None:
        """The job that a worker starts when nothing runs on it."""
        if not self._workers.may_take(slot.number):
            return None
        for rank in self._ranks():
            if suspect := self._queue.first_suspect(rank):
                return suspect
            if (first := self._first(slot, rank)) is None:
                continue
            if self._is_at_home(slot, first.video_path) or first.passed_over >= _MAX_PASSED_OVER:
                return first
            own = self._queue.first_ready(
                rank, lambda path: self._is_at_home(slot, path) and not self._is_taken(slot, path)
            )
            return own or first
        return None

    def next_to_join(self, slot: Slot) -> Job | None:
        """The first waiting job that may run together with those that run."""
        if not slot.is_open or not self._workers.may_take(slot.number):
            return None
        jobs = (self._queue.first_ready(rank, lambda path: path == slot.video) for rank in self._ranks())
        return next((job for job in jobs if job), None)

    def overtaken(self) -> Slot | None:
        """The slot whose jobs have to make room for a waiting one, which no free worker takes and which cannot join."""
        slots = [slot for slot in self._queue.slots if self._workers.may_take(slot.number)]
        following = self._queue.first_to_run(self._ranks())
        if following is None or any(slot.is_free or self.next_to_join(slot) is following for slot in slots):
            return None
        home = self._homes.get(following.video_path)
        overtaken = [slot for slot in slots if slot.may_be_interrupted(following) and slot.is_overtaken_by(following)]
        return max(overtaken, key=lambda slot: (slot.best_rank, slot.number == home, slot.changed_at), default=None)

    def is_needed(self, slot: Slot) -> bool:
        """Whether a worker has to run: it always does, or more videos wait than those before it will take."""
        before = self._queue.slots[: slot.number]
        free = sum(not other.running and not self._workers.has_failed(other.number) for other in before)
        joined = {other.video for other in self._queue.slots if other.is_open}
        return slot.number < self._workers.least or len(self._queue.ready_videos - joined) > free

    def note_start(self, slot: Slot, job: Job) -> None:
        """A worker takes a waiting job, which is still in the queue."""
        first = self._first(slot, rank_of(job))
        if first and first is not job and not (slot.running or job.worker_deaths):
            first.passed_over += 1
        job.passed_over = 0
        if job.video_path:
            self._homes.put(job.video_path, slot.number)

    def _ranks(self) -> tuple[int, ...]:
        return (WAITED_FOR,) if self._workers.is_down else RANKS

    def _first(self, slot: Slot, rank: int) -> Job | None:
        return self._queue.first_ready(rank, lambda path: not self._is_taken(slot, path))

    def _is_at_home(self, slot: Slot, path: Path | None) -> bool:
        """Whether a worker has a video, or no other has."""
        return self._homes.get(path) in (None, slot.number)

    def _is_taken(self, slot: Slot, path: Path) -> bool:
        """Whether another worker is about to take the jobs of a video: it runs some of them, or has it and is free."""
        home = self._homes.get(path)
        others = (other for other in self._queue.slots if other is not slot and self._workers.may_take(other.number))
        return any(
            (other.is_open and other.video == path) or (other.number == home and other.is_free) for other in others
        )
