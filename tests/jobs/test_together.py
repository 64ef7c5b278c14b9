"""Jobs of one video that run together: one frame of all of them at a time."""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing import Pipe
from pathlib import Path

import pytest

from backend.jobs import worker
from backend.jobs.job import Job
from backend.jobs.messages import Ack, Chunk, Failure, OpenVideo, RunEnd, SetPriority, StartRun
from backend.jobs.propagation import PropagationRun
from backend.jobs.schedule import Progress, intervals_between
from backend.tracks.geometry import Box
from backend.tracks.prompts import Direction, Prompt
from backend.tracks.track import FrameResult
from backend.video import VideoLimits
from tests.fakes import FakeVideo, Gate, StubEngine, StubSession
from tests.jobs.test_scheduler import Harness, box, left_sides, own_path, until, wait_for_end


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    harness = Harness(tmp_path, monkeypatch)
    yield harness
    harness.close()


def start_several(harness: Harness, gate: Gate, count: int, **more: object) -> list[Job]:
    """Jobs whose boxes begin at 10, 20, … percent; the first one has gone as far as the gate, the others join it."""
    scheduler = harness.open(StubEngine(gate=gate, **more))
    jobs = [scheduler.submit(["0"], "1", box(10))]
    until(lambda: jobs[0].progress()[0] == gate.until)
    jobs += [scheduler.submit([str(number)], "1", box(10 + 10 * number)) for number in range(1, count)]
    until(lambda: len(harness.scheduler._runners._runners[0]._executor._runs) == count)
    return jobs


def wait_for_all(jobs: Sequence[Job]) -> None:
    """Without a change of their priorities, unlike `Scheduler.wait`."""
    until(lambda: all(job.has_ended for job in jobs))


def run_requests(
    monkeypatch: pytest.MonkeyPatch, engine: StubEngine, *requests: StartRun | SetPriority
) -> dict[int, list[Chunk]]:
    """What a worker sends for these requests, by run, if all of them are there before it starts."""
    monkeypatch.setattr("backend.jobs.worker.Video", lambda path, limits: FakeVideo())
    ours, theirs = Pipe()
    for request in (OpenVideo(Path("nowhere"), VideoLimits()), *requests):
        ours.send(request)
    threading.Thread(target=worker.serve, args=(theirs, lambda: engine), daemon=True).start()
    chunks: dict[int, list[Chunk]] = {request.run_id: [] for request in requests}
    left = set(chunks)
    while left:
        match ours.recv():
            case Chunk() as chunk:
                chunks[chunk.run_id].append(chunk)
                if chunk.state is not None:
                    ours.send(Ack(chunk.run_id))
            case RunEnd(run_id, is_complete):
                assert is_complete
                left.remove(run_id)
            case Failure() as failure:
                raise failure.error
    ours.close()
    return chunks


def start_run(run_id: int, frame: int, direction: Direction = "forward", priority: int = 1) -> StartRun:
    intervals = intervals_between([frame], direction)
    prompt = Prompt("object", frame, box=Box(10, 10, 30, 30))
    schedule = PropagationRun(100, {"object": intervals}, [prompt]).schedule
    return StartRun(run_id, schedule, Progress(), None, Path("/nowhere"), priority=priority)


def test_the_rearmost_goes_until_it_meets_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = StubEngine()
    run_requests(monkeypatch, engine, start_run(1, 60), start_run(2, 40))
    assert engine.frames == [*range(40, 60), *sorted([*range(60, 100)] * 2)]
    assert engine.together == [1] * 20 + [2] * 40


def test_the_way_back_begins_together(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = StubEngine()
    run_requests(monkeypatch, engine, start_run(1, 40, "both"), start_run(2, 60, "both"))
    assert engine.together == [1] * 20 + [2] * 40 + [1] * 20 + [2] * 41


def test_the_best_priority_goes_first_and_takes_along_who_stands_there(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = StubEngine()
    run_requests(
        monkeypatch, engine, start_run(1, 0, priority=1), start_run(2, 60, priority=0), start_run(3, 60, priority=2)
    )
    assert engine.frames == [*sorted([*range(60, 100)] * 2), *range(100)]
    engine = StubEngine()
    run_requests(monkeypatch, engine, start_run(1, 0), start_run(2, 60), SetPriority(2, 0))
    assert engine.frames == [*range(60, 100), *range(100)]


def expected(job: Job) -> list[float]:
    """The left sides that a job gets when it runs alone."""
    return [job.row.spec.prompts[0].box[0] * 6.4 + frame for frame in range(100)]


def test_a_late_job_catches_up_and_goes_on_with_the_others(harness: Harness) -> None:
    gate = Gate(30)
    jobs = start_several(harness, gate, 4)
    gate.open()
    wait_for_all(jobs)
    for job in jobs:
        assert left_sides(job) == pytest.approx(expected(job))
    # The first has begun frame 30 when the others join it.
    assert harness.engine.together == [1] * 31 + [3] * 31 + [4] * 69
    assert len(harness.engine.frames) == 400


def test_a_cancelled_job_leaves_the_others_alone(harness: Harness) -> None:
    gate = Gate(30)
    jobs = start_several(harness, gate, 3)
    gate.open(60)
    until(lambda: all(job.progress()[0] == 60 for job in jobs))
    assert [job.companions for job in jobs] == [[2, 3], [1, 3], [1, 2]]
    assert harness.scheduler.cancel(jobs[1].number)
    gate.open(90)
    until(lambda: [job.companions for job in jobs] == [[3], (), [1]])
    gate.open()
    wait_for_all(jobs)
    for job in (jobs[0], jobs[2]):
        assert left_sides(job) == pytest.approx(expected(job))
        assert job.companions == ()
    assert jobs[1].state == "cancelled"
    assert 60 <= jobs[1].progress()[0] <= 61
    assert harness.engine.together[-1] == 2


class BadSession(StubSession):
    """Calls `on_frame` before each frame if its object's box starts at 20 percent."""

    on_frame: Callable[[int], None]

    def propagate(self, span: range, reverse: bool = False) -> Generator[FrameResult]:
        for result in super().propagate(span, reverse):
            if any(abs(box.x0 - 128) < 1 for boxes in self.prompts.values() for box in boxes.values()):
                self.on_frame(result.frame)
            yield result


def test_an_error_ends_its_own_job_only(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(frame: int) -> None:
        if frame == 50:
            raise RuntimeError("/home/ann/token")

    monkeypatch.setattr("tests.fakes.StubSession", BadSession)
    monkeypatch.setattr(BadSession, "on_frame", staticmethod(fail), raising=False)
    gate = Gate(30)
    jobs = start_several(harness, gate, 3)
    gate.open()
    assert "ann" not in str(wait_for_end(harness.scheduler, jobs[1], "failed").error)
    for job in (jobs[0], jobs[2]):
        assert left_sides(wait_for_end(harness.scheduler, job)) == pytest.approx(expected(job))
    assert harness.engine.sessions == 3


@pytest.mark.slow
def test_a_job_that_kills_the_worker_is_found_and_the_others_end_well(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.jobs.job.ONE_LOSS_SECONDS", 0)

    def kill(frame: int) -> None:
        if frame == 50:
            harness.worker.kill()
            threading.Event().wait(0.05)

    monkeypatch.setattr("tests.fakes.StubSession", BadSession)
    monkeypatch.setattr(BadSession, "on_frame", staticmethod(kill), raising=False)
    gate = Gate(30)
    jobs = start_several(harness, gate, 4)
    harness.engine.gate = lambda frame: time.sleep(0.005)  # time for the others to come together again
    gate.open()
    wait_for_all(jobs)
    assert "ended 3 times" in str(jobs.pop(1).error)
    for job in jobs:
        assert left_sides(job) == pytest.approx(expected(job))
        assert job.worker_deaths == 0
    assert harness.engine.together[-1] == 3


def test_jobs_of_different_videos_do_not_run_together(harness: Harness) -> None:
    harness.fetch = own_path
    scheduler = harness.open(StubEngine())
    jobs = [scheduler.submit([task], "1", box(task=task)) for task in ("7", "8")]
    for job in jobs:
        wait_for_end(scheduler, job)
    assert harness.engine.together == [1] * 200


def test_jobs_that_run_together_go_on_after_a_restart(harness: Harness) -> None:
    gate = Gate(30)
    jobs = start_several(harness, gate, 3)
    gate.open(60)
    until(lambda: all(job.progress()[0] == 60 for job in jobs))
    threading.Timer(0.1, gate.open).start()
    harness.scheduler.close()
    scheduler = harness.open(StubEngine())
    for job in jobs:
        again = wait_for_end(scheduler, scheduler.submit([job.row.key.strip('["]')], "1", job.row.spec))
        assert again.number == job.number
        assert left_sides(again) == pytest.approx(expected(job))
    assert len(harness.engine.frames) <= 3 * 40
