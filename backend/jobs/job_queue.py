"""The jobs that are in memory, and which of them is next; the scheduler locks it."""

from collections import OrderedDict
from collections.abc import Collection

from backend.jobs.job import Job

MAX_FETCHES = 4
"""How many videos are fetched at once, and how many batch jobs have theirs ahead of time."""
_MAX_BATCH_JOBS = 10_000
"""How many batch jobs may wait."""


class JobQueue:
    """Waiting jobs, the running one, and recent ones that a request may join.

    Attributes:
        waiting: jobs that are queued.
        running: the job that the worker runs.

    Args:
        max_waiting: how many jobs other than batch jobs may wait.
        max_recent: how many jobs are kept in memory; ended ones are dropped, the oldest first.
    """

    def __init__(self, max_waiting: int, max_recent: int) -> None:
        self.waiting: list[Job] = []
        self.running: Job | None = None
        self._recent: OrderedDict[tuple[str, str], Job] = OrderedDict()
        self._max_waiting, self._max_recent = max_waiting, max_recent

    def find(self, number: int) -> Job | None:
        """The waiting or running job with this number."""
        unfinished = [*self.waiting, *([self.running] if self.running else [])]
        return next((job for job in unfinished if job.number == number), None)

    # Recent jobs

    def recent(self, key: str, digest: str) -> Job | None:
        """The job for a digest, if it is in memory."""
        return self._recent.get((key, digest))

    def unfinished(self, key: str) -> list[Job]:
        """Jobs under a key that have not ended."""
        return [job for (other, _), job in self._recent.items() if other == key and not job.has_ended]

    def newest(self, key: str) -> Job | None:
        """The job under a key that was asked for last, if it is in memory."""
        return next((job for (other, _), job in reversed(self._recent.items()) if other == key), None)

    def newest_jobs(self) -> list[Job]:
        """The job of each key that was asked for last, of those in memory."""
        return list({key: job for (key, _), job in self._recent.items()}.values())

    def remember(self, job: Job) -> None:
        """Keep a job as the newest one."""
        name = job.row.key, job.row.digest
        self._recent[name] = job
        self._recent.move_to_end(name)
        if len(self._recent) > self._max_recent:
            ended = [name for name, other in self._recent.items() if other.has_ended]
            for name in ended[: len(self._recent) - self._max_recent]:
                del self._recent[name]

    def forget(self, key: str) -> None:
        """Drop the ended jobs under a key."""
        for name in [name for name, job in self._recent.items() if name[0] == key and job.has_ended]:
            del self._recent[name]

    # Order

    def overfull(self, batch: bool, replaced: Collection[Job]) -> int | None:
        """How many jobs wait if there is no room for another one; None if there is.

        Args:
            batch: the other one is a batch job.
            replaced: jobs that it replaces.
        """
        alike = [job for job in self.waiting if job not in replaced and job.row.batch == batch]
        # One job may run, whether it has started yet or not.
        waiting = len(alike) + (self.running is not None) - 1
        return waiting if waiting >= (_MAX_BATCH_JOBS if batch else self._max_waiting) else None

    def positions(self) -> dict[int, int]:
        """How many jobs come before each waiting one, by its number."""
        first = int(self.running is not None)
        return {job.number: place for place, job in enumerate(sorted(self.waiting, key=_order), first)}

    def next_to_run(self, is_engine_down: bool) -> Job | None:
        """The first job whose video is fetched.

        Args:
            is_engine_down: only jobs that a request waits for are run, to report the error; others wait.
        """
        ready = [job for job in self.waiting if job.video_path and (job.waiters or not is_engine_down)]
        return min(ready, key=_order, default=None)

    def is_overtaken(self, is_engine_down: bool) -> bool:
        """Whether a waiting job has a higher priority than the running one."""
        following = self.next_to_run(is_engine_down)
        return bool(following and self.running and _priority(following) < _priority(self.running))

    def next_to_fetch(self, fetching: Collection[int]) -> Job | None:
        """The first job whose video is missing and not being fetched.

        Of batch jobs only the next few are fetched, so that their videos do not fill the disk long before they are
        needed, and one at a time, so that a job that somebody waits for always finds a free thread.
        """
        ahead = sum(job.row.batch for job in self.waiting if job.video_path)
        is_fetching_batch = any(job.row.batch for job in self.waiting if job.number in fetching)
        may_fetch_batch = ahead < MAX_FETCHES and not is_fetching_batch
        missing = [
            job
            for job in self.waiting
            if not job.video_path and job.number not in fetching and (may_fetch_batch or not job.row.batch)
        ]
        return min(missing, key=_order, default=None)


def _priority(job: Job) -> int:
    """0: a request waits for it; 1: somebody asked for it; 2: a batch job."""
    return 0 if job.waiters else 2 if job.row.batch else 1


def _order(job: Job) -> tuple[int, int]:
    return _priority(job), job.number
