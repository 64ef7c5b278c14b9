"""The order of waiting jobs: kept as jobs come, go and are waited for, and found without looking at all of them."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from backend.jobs import job_queue
from backend.jobs.job import Job
from backend.jobs.job_line import RANKS, WAITED_FOR
from backend.jobs.job_queue import JobQueue
from backend.jobs.rows import JobRow
from backend.jobs.schedule import Progress
from backend.jobs.spec import JobSpec

ACTIONS = ("wait", "leave", "fetch", "fetched", "not fetched", "remove", "add", "frames")


def job(number: int, batch: bool = False, key: str = "", digest: str = "d", task: str = "7") -> Job:
    spec = JobSpec(task, "3", "/clip.mp4", 25.0)
    state = "queued", None, Progress(), (0, 0), 0, None, 0.0, None
    return Job(JobRow(number, key or f"k{number}", digest, spec, "stub-1", batch, None, False, *state), lambda _: None)


def rank(one: Job) -> int:
    return 0 if one.waiters else 2 if one.row.batch else 1


def in_turn(queue: JobQueue, jobs: list[Job]) -> list[Job]:
    """Jobs by rank; of the first two ranks the first one of each task, then the second ones, …"""
    order = []
    for one in jobs:
        own = [other.number for other in jobs if rank(other) == rank(one) and other.row.spec.task == one.row.spec.task]
        turn = (own.index(one.number), queue._turns.of(("3", one.row.spec.task)), own[0])
        order.append(((rank(one), *((one.number,) if rank(one) == 2 else turn)), one))
    return [one for _, one in sorted(order, key=lambda item: item[0])]


@given(
    st.lists(st.booleans(), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.sampled_from(ACTIONS)), max_size=60),
)
def test_the_order_is_that_of_sorting(batches: list[bool], actions: list[tuple[int, str]]) -> None:
    queue = JobQueue(99, 99, 1)
    jobs = [job(number, batch, task=str(number % 3)) for number, batch in enumerate(batches)]
    fetching: set[int] = set()
    for one in jobs:
        queue.remember(one)
        queue.add(one)
    for number, action in actions:
        one = jobs[number % len(jobs)]
        is_waiting, is_fetching = queue.is_waiting(one), one.number in fetching
        if action in ("wait", "leave"):
            one.waiters = max(one.waiters + (1 if action == "wait" else -1), 0)
            queue.update_rank(one)
        elif action == "fetch" and is_waiting and not is_fetching and not one.video_path:
            queue.start_fetch(one)
            fetching.add(one.number)
        elif action in ("fetched", "not fetched") and is_fetching and is_waiting:
            one.video_path = Path("there") if action == "fetched" else None
            queue.end_fetch(one)
            fetching.discard(one.number)
        elif action == "remove" and is_waiting:
            queue.remove(one)
            fetching.discard(one.number)
        elif action == "add" and not is_waiting:
            queue.add(one)
        elif action == "frames":
            queue.count_frames(one, 100)
        line = in_turn(queue, [one for one in jobs if queue.is_waiting(one)])
        assert queue.waiting_count == len(line)
        assert [queue.position(one) for one in line] == list(range(len(line)))
        ready = in_turn(queue, sorted((one for one in line if one.video_path), key=lambda one: one.number))
        assert queue.first_to_run(RANKS) is next(iter(ready), None)
        assert queue.first_to_run((WAITED_FOR,)) is next((one for one in ready if one.waiters), None)
        may_batch = sum(rank(one) == 2 and one.video_path is not None for one in line) < job_queue.MAX_AHEAD
        may_batch &= not any(rank(one) == 2 for one in line if one.number in fetching)
        missing = [one for one in line if not one.video_path and one.number not in fetching]
        missing = in_turn(queue, sorted(missing, key=lambda one: one.number))
        assert queue.next_to_fetch() is next((one for one in missing if may_batch or rank(one) < 2), None)
        for batch in (False, True):
            waiting = sum(one.row.batch == batch for one in line)
            assert queue.overfull(batch) is (None if waiting - 1 < 99 else waiting - 1)


def test_jobs_are_found_by_number_key_and_task_and_old_ones_are_dropped() -> None:
    queue = JobQueue(9, 2, 1)
    first, second, other = job(1, key="a"), job(2, key="a", digest="e"), job(3, key="b", task="8")
    for one in (first, second, other):
        queue.remember(one)
        queue.add(one)
    assert (queue.newest("a"), queue.recent("a", "d"), queue.find(3)) == (second, first, other)
    assert queue.unfinished("a") == [first, second]
    queue.remember(first)
    assert (queue.newest("a"), queue.task_jobs("3", "7"), queue.task_jobs("3", "8")) == (first, [first], [other])
    for one in (second, first, other):
        queue.remove(one)
        one.end("done")
        queue.note_end(one)
    assert (queue.find(2), queue.find(1), queue.newest("a")) == (None, first, first), "the oldest end is dropped"
    queue.forget("a")
    assert (queue.newest("a"), queue.find(1), queue.task_jobs("3", "7")) == (None, None, [])
    assert queue.find(3) is other


def test_a_job_of_the_same_number_takes_the_place_of_one_that_ended() -> None:
    queue = JobQueue(9, 9, 1)
    first, again = job(1), job(1)
    queue.remember(first)
    first.end("cancelled")
    queue.note_end(first)
    queue.remember(again)
    queue.add(again)
    assert (queue.find(1), queue.newest("k1"), queue.is_waiting(again)) == (again, again, True)
    assert not queue.is_waiting(first)


def test_tasks_take_turns_and_save_none_up() -> None:
    """Ten tasks always have jobs waiting, one of them ten times as many; another one comes late."""
    queue, numbers, frames = JobQueue(999, 9, 1), iter(range(9999)), dict.fromkeys("abcdefghijk", 0)

    def ask(task: str) -> None:
        one = job(next(numbers), task=task)
        one.video_path = Path("there")
        queue.remember(one)
        queue.add(one)

    def run(count: int) -> None:
        for _ in range(count):
            one = queue.first_to_run(RANKS)
            queue.remove(one)
            queue.slots[0].running = [one]
            length = 70 if one.row.spec.task < "e" else 200
            queue.count_frames(one, length)
            frames[one.row.spec.task] += length
            ask(one.row.spec.task)
            one.end("done")
            queue.note_end(one)

    for task in "abcdefghij":
        for _ in range(10 if task == "a" else 1):
            ask(task)
    run(400)
    shares = [frames[task] for task in "abcdefghij"]
    assert max(shares) - min(shares) <= 200
    ask("k")
    before = dict(frames)
    run(100)
    gained = [frames[task] - before[task] for task in frames]
    assert max(gained) - min(gained) <= 400, "it gets its share, and not what it never asked for"
