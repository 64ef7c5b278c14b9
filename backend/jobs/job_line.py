"""Waiting jobs in order: by rank, and of one rank in turns of their tasks."""

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable

from backend.jobs.job import Job

WAITED_FOR, ASKED, BATCH = range(3)
RANKS = (WAITED_FOR, ASKED, BATCH)
"""A request waits for the job; somebody asked for it; nobody did.

Of the first two ranks, tasks take turns: a task that asks for much gets no more of the device than one that asks for
little. Of the last, the oldest job is first.
"""

Task = tuple[str, str]
"""Ids of a project and of a task of it."""


class Turns:
    """How many frames the device has processed for each task, as far as that decides whose turn it is."""

    def __init__(self) -> None:
        self._frames: dict[Task, int] = {}

    def of(self, task: Task) -> int:
        """How many frames count for a task."""
        return self._frames.get(task, 0)

    def count(self, task: Task, frames: int) -> None:
        """The device has processed more frames for a task."""
        self._frames[task] = self.of(task) + frames

    def join(self, task: Task, others: Collection[Task]) -> None:
        """A task asks again while these do. Turns that it did not take before are not saved up."""
        if not others:
            self._frames.clear()
        else:
            self._frames[task] = max(self.of(task), min(map(self.of, others)))


class JobLine:
    """Jobs by rank: numbers in order.

    Attributes:
        tasks: numbers by task, for each of the first two ranks.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._batch: list[int] = []
        self.tasks: tuple[dict[Task, list[int]], ...] = ({}, {})

    def add(self, rank: int, job: Job) -> None:
        """Add a job in a rank."""
        numbers = self._batch if rank == BATCH else self.tasks[rank].setdefault(task_of(job), [])
        insort(numbers, job.number)

    def remove(self, rank: int, job: Job) -> None:
        """Remove a job from its rank."""
        numbers = self._batch if rank == BATCH else self.tasks[rank][task_of(job)]
        del numbers[bisect_left(numbers, job.number)]
        if rank != BATCH and not numbers:
            del self.tasks[rank][task_of(job)]

    def count(self, rank: int) -> int:
        """How many jobs a rank has."""
        return len(self._batch) if rank == BATCH else sum(map(len, self.tasks[rank].values()))

    def count_older(self, number: int) -> int:
        """How many batch jobs are older than this one."""
        return bisect_left(self._batch, number)

    def first(self, ranks: Iterable[int]) -> int | None:
        """The number of the job whose turn it is, of the first of these ranks that has any; None: no job."""
        for rank in ranks:
            if rank == BATCH and self._batch:
                return self._batch[0]
            if rank != BATCH and self.tasks[rank]:
                return min((self._turns.of(task), numbers[0]) for task, numbers in self.tasks[rank].items())[1]
        return None


def rank_of(job: Job) -> int:
    """One of `RANKS`."""
    return WAITED_FOR if job.waiters else BATCH if job.row.batch else ASKED


def task_of(job: Job) -> Task:
    """The task that a job is of."""
    return job.row.spec.project, job.row.spec.task
