"""Which job runs on which worker: where its video is, and where there is room."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from backend.jobs import placement as module
from backend.jobs.job import Job
from backend.jobs.job_queue import JobQueue
from backend.jobs.placement import Placement
from backend.jobs.slots import Slot
from backend.jobs.video_homes import VideoHomes
from tests.jobs.test_job_queue import job


class Workers:
    """Workers that may take jobs unless they are in `down`."""

    def __init__(self) -> None:
        self.homes = VideoHomes()
        self.down: set[int] = set()
        self.least, self.failed = 99, set[int]()
        self.is_down = False

    def may_take(self, number: int) -> bool:
        return number not in self.down

    def has_failed(self, number: int) -> bool:
        return number in self.failed


class Board:
    """A queue with workers; starting and ending jobs is up to the test."""

    def __init__(self, workers: int) -> None:
        self.queue, self.workers = JobQueue(99, 99, workers), Workers()
        self.placement = Placement(self.queue, self.workers)
        self.slots = self.queue.slots
        self._numbers = iter(range(999))

    def add(self, video: str, batch: bool = False, waiters: int = 0, deaths: int = 0) -> Job:
        """A job that waits, with its video fetched."""
        one = job(next(self._numbers), batch, task=video)
        one.video_path, one.waiters, one.worker_deaths = Path(video), waiters, deaths
        self.queue.remember(one)
        self.queue.add(one)
        return one

    def start(self, slot: Slot) -> Job | None:
        """Start what comes next on a worker."""
        following = self.placement.next_to_join(slot) if slot.running else self.placement.next_to_run(slot)
        if following:
            self.placement.note_start(slot, following)
            self.queue.remove(following)
            slot.running.append(following)
        return following

    def end(self, slot: Slot) -> None:
        for one in slot.running:
            one.end("done")
            self.queue.note_end(one)
        slot.running.clear()


def test_a_videos_jobs_stay_where_it_is() -> None:
    board = Board(2)
    first, second = board.slots
    a, b = board.add("a"), board.add("b")
    assert (board.start(first), board.start(second)) == (a, b)
    board.end(first)
    board.end(second)
    b, a = board.add("b"), board.add("a")
    assert (board.placement.next_to_run(first), board.placement.next_to_run(second)) == (a, b)
    assert board.start(second) is b
    board.end(second)
    assert board.start(second) is None, "the first worker, which has the video, is free"
    assert board.start(first) is a


def test_jobs_of_one_video_run_together_on_one_worker() -> None:
    board = Board(2)
    first, second = board.slots
    one, other = board.add("a"), board.add("a")
    assert board.start(first) is one
    assert board.start(second) is None
    assert board.start(first) is other


def test_a_free_worker_takes_what_waits_for_a_busy_one() -> None:
    board = Board(2)
    first, second = board.slots
    board.add("a")
    board.start(first)
    board.end(first)
    long, a = board.add("b"), board.add("a")
    board.workers.homes.put(Path("b"), 0)
    board.queue.count_frames(a, 500)  # so that b's turn is first
    assert board.start(first) is long
    assert board.start(second) is a
    assert board.workers.homes.get(Path("a")) == 1, "its next jobs go there"


def test_a_worker_that_has_failed_takes_no_job_and_is_not_waited_for() -> None:
    board = Board(2)
    board.workers.homes.put(Path("a"), 0)
    board.workers.down = {0}
    a = board.add("a")
    assert board.start(board.slots[0]) is None
    assert board.start(board.slots[1]) is a


def test_a_job_is_passed_over_only_so_often() -> None:
    board = Board(2)
    first, second = board.slots
    board.add("long")
    board.start(second)
    board.workers.homes.put(Path("b"), 1)
    b = board.add("b")
    board.workers.homes.put(Path("a"), 0)
    for _ in range(module._MAX_PASSED_OVER):
        a = board.add("a")
        board.queue._turns.count(("3", "a"), 1000)  # b's turn is first all the time
        assert board.start(first) is a
        board.end(first)
    board.add("a")
    assert board.start(first) is b


def test_what_somebody_waits_for_overtakes_the_least_important_unless_a_worker_is_free() -> None:
    board = Board(3)
    asked, other, batch = board.add("a"), board.add("c"), board.add("b", batch=True)
    for slot, one in zip(board.slots, (asked, other, batch), strict=True):
        assert board.start(slot) is one
    assert board.placement.overtaken() is None
    board.workers.homes.put(Path("d"), 0)
    waited = board.add("d", waiters=1)
    assert board.placement.overtaken() is board.slots[2]
    batch.is_stopping = True
    assert board.placement.overtaken() is None, "it is about to be free"
    board.slots[2].running.clear()
    assert board.placement.overtaken() is None
    assert board.start(board.slots[2]) is waited
    for video, number in (("e", 1), ("f", 0)):
        board.workers.homes.put(Path(video), number)
        waited = board.add(video, waiters=1)
        assert board.placement.overtaken() is board.slots[number], "of two equals, the one that has the video"
        board.queue.remove(waited)


def test_as_many_workers_are_needed_as_videos_wait() -> None:
    board = Board(4)
    board.workers.least = 1

    def needed() -> list[bool]:
        return [board.placement.is_needed(slot) for slot in board.slots]

    assert needed() == [True, False, False, False]
    for video in "abb":
        board.add(video)
    assert needed() == [True, True, False, False]
    board.start(board.slots[0])
    assert needed() == [True, True, False, False]
    board.workers.failed = {1}
    assert needed() == [True, True, True, False], "the next one starts in its place"
    board.start(board.slots[2])
    assert needed() == [True, False, False, False]


def test_what_has_lost_its_worker_goes_on_at_once_though_interrupting_takes_long() -> None:
    board = Board(1)
    (slot,) = board.slots
    running = board.add("a")
    board.start(slot)
    running.stop_seconds = 1e6
    board.add("b", waiters=1)
    assert board.placement.overtaken() is None
    board.add("c", waiters=1, deaths=1)
    assert board.placement.overtaken() is slot
    running.keeps_state = False
    assert board.placement.overtaken() is None


def test_a_job_in_which_a_worker_died_runs_alone_and_others_go_on() -> None:
    board = Board(2)
    first, second = board.slots
    suspect, alike = board.add("a", deaths=1), board.add("a")
    assert board.start(first) is suspect
    assert board.start(first) is None
    assert board.start(second) is alike


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.booleans(), st.integers(0, 1), st.integers(0, 3)), max_size=12),
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=40),
    st.sets(st.integers(0, 2), max_size=2),
)
def test_no_worker_is_idle_while_a_job_waits_that_may_run(jobs, actions, down) -> None:
    board = Board(3)
    board.workers.down = down
    for video, batch, waiters, deaths in jobs:
        board.add(video, batch, waiters, deaths if deaths == 1 else 0)
    for number, is_end in actions:
        if is_end:
            board.end(board.slots[number])
        else:
            board.start(board.slots[number])
    while any(board.start(slot) for slot in board.slots):
        pass
    assert not any(board.slots[number].running for number in down)
    usable = [slot for slot in board.slots if slot.number not in down]
    is_idle = not all(slot.running for slot in usable)
    assert not (board.queue.waiting_count and is_idle)
    for slot in usable:
        assert len({one.video_path for one in slot.running}) <= 1
        assert len(slot.running) == 1 or not any(one.worker_deaths for one in slot.running)
