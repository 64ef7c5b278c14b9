import threading
from collections.abc import Callable, Iterator

import pytest

from backend.errors import BackendError, BadVideo, Busy
from backend.jobs.runner import Job, Runner


class Counting:
    """Counts until it is let go, or at once."""

    def __init__(self, hold: bool = False, error: Exception | None = None) -> None:
        self.go = threading.Event()
        self.started = threading.Event()
        self.error, self.steps = error, 0
        if not hold:
            self.go.set()

    def run(self, cancelled: Callable[[], bool]) -> None:
        self.started.set()
        while not self.go.wait(0.01) and not cancelled():
            self.steps += 1
        if self.error:
            raise self.error


@pytest.fixture
def runner() -> Iterator[Runner[Counting]]:
    runner: Runner[Counting] = Runner(queue=2, kept=4)
    yield runner
    runner.close()


def ended(runner: Runner[Counting], job: Job[Counting]) -> Job[Counting]:
    runner.wait([job], 10)
    assert job.wait(0)
    return job


def test_the_same_digest_joins_and_keeps_its_result(runner: Runner[Counting]) -> None:
    first = runner.submit("a", "1", lambda: Counting(hold=True))
    assert runner.submit("a", "1", Counting) is first
    first.work.go.set()
    assert ended(runner, first).state == "done"
    assert runner.submit("a", "1", Counting) is first


def test_a_new_digest_replaces_what_runs_and_its_steps_stay(runner: Runner[Counting]) -> None:
    first = runner.submit("a", "1", lambda: Counting(hold=True))
    assert first.work.started.wait(5)
    second = runner.submit("a", "2", Counting)
    assert ended(runner, second).state == "done"
    assert first.state == "cancelled"
    assert runner.submit("a", "1", Counting) is not first


def test_other_keys_are_left_alone_and_run_in_order(runner: Runner[Counting]) -> None:
    first = runner.submit("a", "1", lambda: Counting(hold=True))
    second = runner.submit("b", "1", Counting)
    assert runner.counts()["waiting"] >= 1
    assert second.state == "queued"
    first.work.go.set()
    assert ended(runner, second).state == "done"
    assert first.state == "done"


def test_a_full_queue_is_said_with_a_time_to_come_back(runner: Runner[Counting]) -> None:
    first = runner.submit("a", "1", lambda: Counting(hold=True))
    assert first.work.started.wait(5)
    runner.submit("b", "1", Counting)
    runner.submit("c", "1", Counting)
    with pytest.raises(Busy, match="ask again") as busy:
        runner.submit("d", "1", Counting)
    assert busy.value.retry_after > 0
    replaced = runner.submit("c", "1", Counting)
    runner.submit("c", "2", Counting)  # takes its place
    assert (replaced.state, replaced.wait(0)) == ("cancelled", True)
    with pytest.raises(Busy):
        runner.submit("a", "2", Counting)
    assert not first.is_cancelled, "what cannot be replaced is not cancelled"
    first.work.go.set()


def test_a_failed_job_can_be_asked_for_again(runner: Runner[Counting]) -> None:
    job = ended(runner, runner.submit("a", "1", lambda: Counting(error=BadVideo("not a video"))))
    assert (job.state, str(job.error)) == ("failed", "not a video")
    assert ended(runner, runner.submit("a", "1", Counting)).state == "done"


def test_an_unforeseen_error_ends_its_job_alone_and_tells_no_secret(runner, caplog: pytest.LogCaptureFixture) -> None:
    job = ended(runner, runner.submit("a", "1", lambda: Counting(error=RuntimeError("/home/ann/token"))))
    assert type(job.error) is BackendError
    assert "ann" not in str(job.error) + caplog.text
    assert "RuntimeError at" in caplog.text
    assert ended(runner, runner.submit("b", "1", Counting)).state == "done"


def test_only_so_many_ended_jobs_are_kept(runner: Runner[Counting]) -> None:
    jobs = [ended(runner, runner.submit(number, "1", Counting)) for number in range(9)]
    assert runner.submit(8, "1", Counting) is jobs[8]
    assert runner.submit(0, "1", Counting) is not jobs[0]


def test_closing_ends_the_worker() -> None:
    runner: Runner[Counting] = Runner(queue=2)
    job = runner.submit("a", "1", lambda: Counting(hold=True))
    runner.close()
    assert job.state == "cancelled"
    assert not any(thread.name == "device" and thread.is_alive() for thread in threading.enumerate())
