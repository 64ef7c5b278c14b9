"""The jobs that are in memory, which of them is next, and the lock that guards both."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Set
from pathlib import Path

from backend.errors import Busy
from backend.jobs.job import Job
from backend.jobs.job_line import ASKED, BATCH, RANKS, WAITED_FOR, JobLine, Task, Turns, rank_of, task_of
from backend.jobs.slots import Slot

MAX_AHEAD = 4
"""For each worker, how many batch jobs have their videos ahead of time."""
MAX_BATCH_FETCHES = 8
"""How many videos of batch jobs are fetched at once, at most; and not more than there are workers."""
_MAX_BATCH_JOBS = 10_000
"""How many batch jobs may wait."""


class JobQueue:
    """Waiting jobs, running ones, and recent ones that a request may join.

    No method takes longer with thousands of batch jobs than with few. Call them only with `changed` locked.

    Attributes:
        changed: guards this object and the jobs' states; notified when a thread may have something new to do. Nobody
            reads or writes the disk while holding it.
        slots: what runs on each worker.

    Args:
        max_waiting: how many jobs other than batch jobs may wait.
        max_recent: how many ended jobs are kept in memory.
        workers: how many there are.
    """

    def __init__(self, max_waiting: int, max_recent: int, workers: int) -> None:
        self.changed = threading.Condition()
        self.slots = tuple(Slot(number) for number in range(workers))
        self._max_waiting, self._max_recent = max_waiting, max_recent
        self._jobs: dict[int, Job] = {}
        self._ended: OrderedDict[int, Job] = OrderedDict()
        # The newest job is last.
        self._by_key: dict[str, OrderedDict[str, Job]] = {}
        self._by_task: dict[Task, OrderedDict[str, None]] = {}
        # Every waiting job is in one line, in the rank that is noted here.
        self._turns = Turns()
        self._unfetched, self._fetching, self._ready = (JobLine(self._turns) for _ in range(3))
        # Those in which a worker died run alone, and before others of their rank: then all can run together again.
        self._suspects = JobLine(self._turns)
        self._ready_by_video: dict[Path, JobLine] = {}
        self._places: dict[int, tuple[JobLine, int]] = {}
        self._waiting_batch = 0
        self._active = Counter[Task]()  # waiting jobs other than batch jobs

    # Jobs in memory

    def find(self, number: int) -> Job | None:
        """The job with this number, if it is in memory."""
        return self._jobs.get(number)

    def recent(self, key: str, digest: str) -> Job | None:
        """The job for a digest, if it is in memory."""
        jobs = self._by_key.get(key)
        return jobs.get(digest) if jobs else None

    def unfinished(self, key: str) -> list[Job]:
        """Jobs under a key that have not ended."""
        return [job for job in self._by_key.get(key, {}).values() if not job.has_ended]

    def newest(self, key: str) -> Job | None:
        """The job under a key that was asked for last, if it is in memory."""
        jobs = self._by_key.get(key)
        return jobs[next(reversed(jobs))] if jobs else None

    def task_jobs(self, project: str, task: str) -> list[Job]:
        """The newest job of each region of a task, and those of all text prompts, of those in memory.

        That of the key that was asked last is last.
        """
        by_key = [list(self._by_key[key].values()) for key in self._by_task.get((project, task), ())]
        return [job for jobs in by_key for job in jobs if job is jobs[-1] or job.row.spec.phrases]

    def remember(self, job: Job) -> None:
        """Keep a job as the newest one of its key."""
        row = job.row
        jobs = self._by_key.setdefault(row.key, OrderedDict())
        if (other := jobs.get(row.digest)) and other is not job and other.has_ended:
            self._drop(other)
            jobs = self._by_key.setdefault(row.key, OrderedDict())
        jobs[row.digest] = self._jobs[job.number] = job
        jobs.move_to_end(row.digest)
        keys = self._by_task.setdefault(task_of(job), OrderedDict())
        keys[row.key] = None
        keys.move_to_end(row.key)
        if job.has_ended:
            self.note_end(job)

    def note_end(self, job: Job) -> None:
        """A job that is in memory has ended; the oldest such jobs are dropped."""
        if self._jobs.get(job.number) is job:
            self._ended[job.number] = job
            self._ended.move_to_end(job.number)
        while len(self._ended) > self._max_recent:
            self._drop(self._ended[next(iter(self._ended))])

    def ended_jobs(self) -> list[Job]:
        """Jobs in memory that have ended."""
        return list(self._ended.values())

    def forget(self, key: str) -> None:
        """Drop the ended jobs under a key."""
        for job in [job for job in self._by_key.get(key, {}).values() if job.has_ended]:
            self._drop(job)

    def _drop(self, job: Job) -> None:
        row, task = job.row, task_of(job)
        self._ended.pop(job.number, None)
        if self._jobs.get(job.number) is job:
            del self._jobs[job.number]
        jobs = self._by_key.get(row.key, OrderedDict())
        if jobs.get(row.digest) is job:
            del jobs[row.digest]
        if not jobs:
            self._by_key.pop(row.key, None)
            keys = self._by_task.get(task, OrderedDict())
            keys.pop(row.key, None)
            if not keys:
                self._by_task.pop(task, None)

    @property
    def running(self) -> list[Job]:
        """The jobs that run, on all workers."""
        return [job for slot in self.slots for job in slot.running]

    # Waiting jobs

    @property
    def waiting_count(self) -> int:
        """How many jobs wait."""
        return len(self._places)

    def is_waiting(self, job: Job) -> bool:
        """Whether a job waits."""
        return job.number in self._places and self._jobs.get(job.number) is job

    def add(self, job: Job) -> None:
        """Let a job wait; it is remembered."""
        self._jobs[job.number] = job
        if not job.row.batch:
            if not self._active[task_of(job)]:
                self._turns.join(task_of(job), self._active)
            self._active[task_of(job)] += 1
        self._put(job, self._line(job))
        self._waiting_batch += job.row.batch

    def remove(self, job: Job) -> None:
        """A job waits no longer."""
        self._take(job)
        self._waiting_batch -= job.row.batch
        if not job.row.batch:
            self._active[task_of(job)] -= 1
            if not self._active[task_of(job)]:
                del self._active[task_of(job)]

    def start_fetch(self, job: Job) -> None:
        """A waiting job's video is being fetched."""
        self._take(job)
        self._put(job, self._fetching)

    def end_fetch(self, job: Job) -> None:
        """A waiting job's video is no longer being fetched: it is there if `job.video_path` is set."""
        self._take(job)
        self._put(job, self._line(job))

    def count_frames(self, job: Job, frames: int) -> None:
        """The device has processed so many frames for a job."""
        self._turns.count(task_of(job), frames)

    def update_rank(self, job: Job) -> None:
        """Another number of requests waits for a job."""
        if self.is_waiting(job):
            line = self._take(job)
            self._put(job, line)

    def _line(self, job: Job) -> JobLine:
        """The line of a job whose video is not being fetched."""
        if not job.video_path:
            return self._unfetched
        return self._suspects if job.worker_deaths else self._ready

    def _put(self, job: Job, line: JobLine) -> None:
        rank = rank_of(job)
        self._places[job.number] = line, rank
        line.add(rank, job)
        if line is self._ready and job.video_path:
            self._ready_by_video.setdefault(job.video_path, JobLine(self._turns)).add(rank, job)

    def _take(self, job: Job) -> JobLine:
        line, rank = self._places.pop(job.number)
        line.remove(rank, job)
        if line is self._ready and job.video_path:
            alike = self._ready_by_video[job.video_path]
            alike.remove(rank, job)
            if alike.first(RANKS) is None:
                del self._ready_by_video[job.video_path]
        return line

    @property
    def ready_videos(self) -> Set[Path]:
        """The videos of waiting jobs that are fetched."""
        return self._ready_by_video.keys()

    # Order

    def check_room(self, batch: bool, replaced: Collection[Job] = ()) -> None:
        """Raises Busy if there is no room for another job; the arguments are those of `overfull`."""
        if (waiting := self.overfull(batch, replaced)) is not None:
            raise Busy(f"{waiting} tracks are waiting for the device: try again in a little while")

    def overfull(self, batch: bool, replaced: Collection[Job] = ()) -> int | None:
        """How many jobs wait if there is no room for another one; None if there is.

        Args:
            batch: the other one is a batch job.
            replaced: jobs that it replaces.
        """
        alike = self._waiting_batch if batch else self.waiting_count - self._waiting_batch
        alike -= sum(self.is_waiting(job) and job.row.batch == batch for job in replaced)
        # One job may run on each worker, whether it has started yet or not.
        waiting = alike - sum(not slot.running for slot in self.slots)
        return waiting if waiting >= (_MAX_BATCH_JOBS if batch else self._max_waiting) else None

    def position(self, job: Job) -> int:
        """How many jobs come before a waiting one; 0: none, or it does not wait."""
        if not self.is_waiting(job):
            return 0
        _, rank = self._places[job.number]
        lines = (self._unfetched, self._fetching, self._ready, self._suspects)
        before = len(self.running) + sum(line.count(better) for line in lines for better in range(rank))
        if rank == BATCH:
            return before + sum(line.count_older(job.number) for line in lines)
        tasks: dict[Task, list[int]] = {}
        for task, numbers in (item for line in lines for item in line.tasks[rank].items()):
            tasks[task] = sorted([*tasks.get(task, ()), *numbers])
        own = task_of(job)
        turn = tasks[own].index(job.number), self._turns.of(own), tasks[own][0]
        # The first job of each task comes before anybody's second.
        return before + sum(
            (place, self._turns.of(task), numbers[0]) < turn
            for task, numbers in tasks.items()
            for place in range(len(numbers))
        )

    def first_to_run(self, ranks: Iterable[int]) -> Job | None:
        """The first job of these ranks whose video is fetched."""
        numbers = (line.first((rank,)) for rank in ranks for line in (self._suspects, self._ready))
        number = next((number for number in numbers if number is not None), None)
        return None if number is None else self._jobs[number]

    def first_suspect(self, rank: int) -> Job | None:
        """The first job of a rank that has to run alone, because a worker died in it."""
        number = self._suspects.first((rank,))
        return None if number is None else self._jobs[number]

    def first_ready(self, rank: int, is_wanted: Callable[[Path], bool]) -> Job | None:
        """The first job of a rank whose video is fetched, and wanted; those that have to run alone left out."""
        number = self._ready.first((rank,))
        if number is None or ((path := self._jobs[number].video_path) and is_wanted(path)):
            return None if number is None else self._jobs[number]
        numbers = (line.first((rank,)) for path, line in self._ready_by_video.items() if is_wanted(path))
        jobs = (self._jobs[number] for number in numbers if number is not None)
        return min(
            jobs, key=lambda job: (0 if rank == BATCH else self._turns.of(task_of(job)), job.number), default=None
        )

    def next_to_fetch(self) -> Job | None:
        """The first job whose video is missing and not being fetched.

        Of batch jobs only the next few are fetched, so that their videos do not fill the disk long before they are
        needed, and few at a time, so that a job that somebody waits for always finds a free thread.
        """
        is_ahead = self._ready.count(BATCH) >= MAX_AHEAD * len(self.slots)
        may_fetch_batch = not is_ahead and self._fetching.count(BATCH) < min(len(self.slots), MAX_BATCH_FETCHES)
        number = self._unfetched.first(RANKS if may_fetch_batch else (WAITED_FOR, ASKED))
        return None if number is None else self._jobs[number]
