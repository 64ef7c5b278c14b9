"""What runs on each worker: one slot a worker."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from backend.jobs.job import Job
from backend.jobs.job_line import rank_of

_MAX_RUNNING = 32
"""How many jobs of one video run together."""
_LEAST_SHARE = 5
"""A job that was interrupted runs at least for so many times what that took."""


@dataclass(slots=True, eq=False)
class Slot:
    """The jobs that one worker runs, all of one video; guarded by `JobQueue.changed`.

    Attributes:
        number: the worker's place in the pool.
        running: its jobs.
        changed_at: when the first of the running jobs was started, or the last one was told to stop.
    """

    number: int
    running: list[Job] = field(default_factory=list)
    changed_at: float = 0.0

    @property
    def video(self) -> Path | None:
        """The video of its jobs; None: there are none."""
        return self.running[0].video_path if self.running else None

    @property
    def is_free(self) -> bool:
        """Whether it takes another job now, or as soon as those that run have stopped."""
        return all(job.is_stopping for job in self.running)

    @property
    def is_open(self) -> bool:
        """Whether further jobs of its video may join those that run."""
        is_closed = any(job.worker_deaths or job.is_stopping for job in self.running)
        return 0 < len(self.running) < _MAX_RUNNING and not is_closed

    def may_be_interrupted(self, job: Job) -> bool:
        """Whether interrupting for a waiting job costs little.

        Tasks that overtake each other would else save and load states alone. One that has lost its worker does not wait
        for that: it was interrupted itself.
        """
        seconds = time.monotonic() - self.changed_at
        is_long = all(seconds >= _LEAST_SHARE * other.stop_seconds for other in self.running)
        return (is_long or job.worker_deaths > 0) and all(other.keeps_state for other in self.running)

    @property
    def best_rank(self) -> int:
        """The best rank of its jobs, of which there are some."""
        return min(map(rank_of, self.running))

    def is_overtaken_by(self, job: Job) -> bool:
        """Whether its jobs, of which there are some, have to make room for a waiting one of another video."""
        is_suspect = job.worker_deaths and not any(other.worker_deaths for other in self.running)
        return rank_of(job) < self.best_rank or bool(is_suspect and rank_of(job) == self.best_rank)
