"""The scheduler, with a stub engine in a thread; `test_kills.py` uses worker processes."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from backend.errors import BackendError, BadVideo, Busy, Conflict, MediaError, StateRefused, Unsupported
from backend.jobs.engine_status import EngineStatus
from backend.jobs.job import Job
from backend.jobs.messages import Reply
from backend.jobs.metrics import Metrics
from backend.jobs.scheduler import Scheduler
from backend.jobs.spec import OBJECT_TRACK, FramePrompts, JobSpec
from backend.jobs.store import Store
from backend.jobs.worker_link import NodeDied
from backend.jobs.worker_pool import WorkerPool
from backend.tracks.frame_range import FrameRange
from backend.video import VideoLimits
from tests.fakes import FakeVideo, Gate, StubEngine, ThreadLink, fake_path, thread_worker

BOX = FramePrompts(1, (10, 20, 12, 15, 0))


def box(x: float = 10, task: str = "7") -> JobSpec:
    return JobSpec(task, "3", "/clip.mp4", 25.0, prompts=(FramePrompts(1, (x, 20, 12, 15, 0)),), intervals=((1, None),))


class Harness:
    """A scheduler and what it needs; it may be closed and opened again."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.engine = StubEngine()
        self.fetch: Callable = fake_path
        self.forgotten: list[Path] = []
        self.done: list[int] = []
        self.scheduler: Scheduler | None = None

    def open(self, engine: StubEngine | None = None, queue: int = 9, timeout: float = 60, **more) -> Scheduler:
        self.close()
        self.engine = engine or self.engine
        self.monkeypatch.setattr("backend.jobs.worker.Video", lambda path, limits: FakeVideo())
        self.worker = thread_worker(self.engine, timeout)
        self.store = Store(self.folder / "jobs.sqlite3", 2**30, 30)
        self.scheduler = Scheduler(
            WorkerPool([self.worker]),
            self.store,
            lambda *request: self.fetch(*request),
            self.forgotten.append,
            VideoLimits(),
            queue=queue,
            metrics=Metrics(),
            on_done=lambda job: self.done.append(job.number),
            **more,
        )
        return self.scheduler

    def close(self) -> None:
        if self.scheduler:
            if isinstance(self.engine.gate, Gate):
                self.engine.gate.open()
            self.scheduler.close()
            self.scheduler = None


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    harness = Harness(tmp_path, monkeypatch)
    yield harness
    harness.close()


def own_path(spec: JobSpec, cancelled: Callable[[], bool]) -> Path:
    """For `Harness.fetch`: each task has a video of its own, so its jobs do not run together with those of another."""
    return Path(spec.task)


def wait_for_end(scheduler: Scheduler, job: Job, state: str = "done") -> Job:
    scheduler.wait([job], 20)
    assert (job.state, job.has_ended) == (state, True), job.error
    return job


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def left_sides(job: Job) -> list[float]:
    """The box's left side on every frame of a finished track."""
    boxes, _ = job.resolved.propagation.tracks()[OBJECT_TRACK].at(np.arange(100))
    return boxes[:, 0].tolist()


def test_the_same_digest_joins_its_job_also_after_a_restart(harness: Harness) -> None:
    scheduler = harness.open()
    first = scheduler.submit(["a"], "1", box())
    assert scheduler.submit(["a"], "1", box()) is first
    wait_for_end(scheduler, first)
    assert scheduler.submit(["a"], "1", box()) is first
    before = left_sides(first)
    scheduler = harness.open()
    again = scheduler.submit(["a"], "1", box())
    assert (again.state, again.number, again.progress()) == ("done", first.number, (100, 100))
    assert left_sides(again) == before == [64 + frame for frame in range(100)]
    assert harness.engine.sessions == 1


def test_a_new_digest_replaces_the_running_job_and_keeps_its_frames(harness: Harness) -> None:
    gate = Gate(30)
    scheduler = harness.open(StubEngine(gate=gate))
    first = scheduler.submit(["a"], "1", box())
    until(lambda: first.progress()[0] == 30)
    second = scheduler.submit(["a"], "2", box(20))
    gate.open()
    wait_for_end(scheduler, second)
    assert first.state == "cancelled"
    assert first.progress()[0] >= 30
    # Asked for once more it goes on from there, and not from the start.
    count = len(harness.engine.frames)
    again = wait_for_end(scheduler, scheduler.submit(["a"], "1", box()))
    assert again.number == first.number
    assert len(harness.engine.frames) - count <= 70
    assert left_sides(again) == [64 + frame for frame in range(100)]


def test_a_cancelled_job_asked_for_before_it_stops_continues(harness: Harness) -> None:
    gate = Gate(30)
    scheduler = harness.open(StubEngine(gate=gate))
    job = scheduler.submit(["a"], "1", box())
    until(lambda: job.progress()[0] == 30)
    assert scheduler.cancel(job.number)
    assert scheduler.submit(["a"], "1", box()) is job
    gate.open()
    wait_for_end(scheduler, job)
    assert harness.engine.frames == list(range(100))


def ask_during_a_batch(harness: Harness, gate: Gate) -> tuple[Scheduler, Job, Job]:
    """A batch job that stands at the gate on frame 30, and a person's of another video, which waits for its worker."""
    harness.fetch = own_path
    scheduler = harness.open(StubEngine(gate=gate))
    batch = scheduler.submit(["batch"], "1", box(), batch=True)
    until(lambda: batch.progress()[0] == 30)
    request = scheduler.submit(["asked"], "1", box(20, task="8"))
    until(lambda: request.video_path)
    return scheduler, batch, request


def test_an_interactive_job_preempts_a_batch_job_of_another_video(harness: Harness) -> None:
    gate = Gate(30)
    scheduler, batch, request = ask_during_a_batch(harness, gate)
    assert request.state == "queued"
    gate.open()
    scheduler.wait([request], 20)
    assert request.has_ended
    frames = harness.engine.frames
    assert frames[30:131] == [30, *range(100)]
    wait_for_end(scheduler, batch)
    assert left_sides(batch) == [64 + frame for frame in range(100)]
    assert len(frames) == 200, "nothing was computed twice"


def test_a_job_with_waiters_preempts_one_without(harness: Harness) -> None:
    gate = Gate(30)
    harness.fetch = own_path
    scheduler = harness.open(StubEngine(gate=gate))
    first = scheduler.submit(["a"], "1", box())
    until(lambda: first.progress()[0] == 30)
    second = scheduler.submit(["b"], "1", box(20, task="8"))
    until(lambda: second.video_path)
    assert second.state == "queued"
    threading.Timer(0.1, gate.open).start()
    scheduler.wait([second], 20)
    assert second.has_ended
    wait_for_end(scheduler, first)
    assert len(harness.engine.frames) == 200


def test_with_too_many_waiting_requests_another_one_does_not_wait(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.jobs.scheduler._MAX_WAITS", 1)
    gate = Gate(10)
    scheduler = harness.open(StubEngine(gate=gate))
    first, second = scheduler.submit(["a"], "1", box()), scheduler.submit(["b"], "1", box())
    waiting = threading.Thread(target=scheduler.wait, args=([first], 30))
    waiting.start()
    until(lambda: first.waiters)
    scheduler.wait([second], 1e6)
    assert not second.has_ended
    gate.open()
    waiting.join()
    scheduler.wait([second], 30)
    assert second.has_ended, "a place is free again"


def test_nobody_waits_for_jobs_that_will_not_end_in_time(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    estimate: list[float | None] = [1800.0]
    monkeypatch.setattr("backend.jobs.scheduler._EARLIEST_ESTIMATE", 0.0)
    monkeypatch.setattr("backend.jobs.job.estimate_seconds", lambda _: estimate[0])
    gate = Gate(10)
    scheduler = harness.open(StubEngine(gate=gate))
    first, second = scheduler.submit(["a"], "1", box()), scheduler.submit(["b"], "1", box())
    scheduler.wait([first, second], 1e3)
    assert not first.has_ended
    assert (first.waiters, second.waiters) == (0, 0)
    for estimate[0] in (None, 3.0):  # unknown, and soon
        waiting = threading.Thread(target=scheduler.wait, args=([first, second], 60))
        waiting.start()
        waiting.join(0.6)
        assert waiting.is_alive()
        assert first.waiters >= 1
    gate.open()
    waiting.join()
    assert second.has_ended


def test_a_job_that_waited_for_its_worker_is_not_taken_for_a_slow_one(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("backend.jobs.job.time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    gate = Gate(30)
    scheduler, batch, request = ask_during_a_batch(harness, gate)
    now[0] += 3600
    gate.open()
    wait_for_end(scheduler, request)
    wait_for_end(scheduler, batch)
    assert batch.throughput.fps == 0.0, "its frames took no time at all on this clock"


def test_a_full_queue_says_when_to_retry(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.jobs.slots._MAX_RUNNING", 1)
    gate = Gate(30)
    scheduler = harness.open(StubEngine(gate=gate), queue=2)
    first = scheduler.submit(["a"], "1", box())
    until(lambda: first.state == "running")
    scheduler.submit(["b"], "1", box())
    scheduler.submit(["c"], "1", box())
    with pytest.raises(Busy, match="try again") as busy:
        scheduler.submit(["d"], "1", box())
    assert busy.value.retry_after > 0
    replaced = scheduler.submit(["c"], "1", box())
    newer = scheduler.submit(["c"], "2", box())  # takes its place
    assert (replaced.state, replaced.has_ended) == ("cancelled", True)
    assert str(replaced.error) == f"the prompt was changed: job {newer.number} replaces it"
    assert isinstance(replaced.error, Conflict)
    with pytest.raises(Busy):
        scheduler.submit(["a"], "2", box())
    assert not first.is_cancelled, "what cannot be replaced is not cancelled"
    gate.open()
    wait_for_end(scheduler, first)


def test_resuming_obeys_the_queue(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.jobs.slots._MAX_RUNNING", 1)
    gate = Gate(30)
    scheduler = harness.open(StubEngine(gate=gate), queue=2)
    first, *others = [scheduler.submit([key], "1", box()) for key in "abc"]
    until(lambda: first.state == "running")
    for job in others:
        scheduler.cancel(job.number)
    for key in "de":
        scheduler.submit([key], "1", box())
    with pytest.raises(Busy, match="try again"):
        scheduler.resume(others[0].number)
    assert scheduler.job(others[0].number).state == "cancelled"
    gate.open()
    wait_for_end(scheduler, scheduler.newest(["e"]))
    assert scheduler.resume(others[0].number)
    wait_for_end(scheduler, scheduler.newest(["b"]))


def test_accepted_jobs_continue_after_a_restart(harness: Harness) -> None:
    gate = Gate(40)
    scheduler = harness.open(StubEngine(gate=gate))
    job = scheduler.submit(["a"], "1", box())
    until(lambda: job.progress()[0] == 40)
    waiting = scheduler.submit(["b"], "1", box(20))
    threading.Timer(0.1, gate.open).start()
    scheduler.close()
    assert not job.has_ended
    engine = StubEngine()
    scheduler = harness.open(engine)
    wait_for_end(scheduler, scheduler.submit(["b"], "1", box(20)))
    again = wait_for_end(scheduler, scheduler.submit(["a"], "1", box()))
    assert again.number == job.number
    assert [engine.frames.count(frame) for frame in (0, 20, 39, 41, 99)] == [1, 1, 1, 2, 2], "by b; by b and a"
    assert left_sides(again) == [64 + frame for frame in range(100)]
    until(lambda: sorted(harness.done) == [again.number, waiting.number])  # called after the jobs have ended


def test_a_job_of_another_model_fails(harness: Harness) -> None:
    gate = Gate(30)
    scheduler = harness.open(StubEngine(gate=gate))
    job = scheduler.submit(["a"], "1", box())
    until(lambda: job.progress()[0] == 30)
    other = StubEngine()
    other.version = "2"
    threading.Timer(0.1, gate.open).start()
    scheduler = harness.open(other)
    until(lambda: scheduler.job(job.number).state == "failed")
    assert "another model" in str(scheduler.job(job.number).error)
    assert other.frames == []


class Refusing(StubEngine):
    """Its sessions move boxes further, and it continues from no state."""

    def __init__(self, error: BackendError) -> None:
        super().__init__(step=3.0)
        self.error: BackendError | None = error

    def open(self, video, state=None):
        if state is not None and self.error:
            raise self.error
        return super().open(video, state)


def stopped_after(harness: Harness, frames: int) -> Job:
    """A job that was cancelled after so many frames, at least."""
    gate = Gate(frames)
    scheduler = harness.open(StubEngine(gate=gate))
    job = scheduler.submit(["a"], "1", box())
    until(lambda: job.progress()[0] == frames)
    scheduler.cancel(job.number)
    gate.open()
    return wait_for_end(scheduler, job, "cancelled")


def test_a_refused_state_costs_time_but_no_computed_frame(harness: Harness) -> None:
    kept = stopped_after(harness, 40).progress()[0]
    engine = Refusing(StateRefused("the saved state is of another version"))
    scheduler = harness.open(engine)
    again = wait_for_end(scheduler, scheduler.submit(["a"], "1", box()))
    assert left_sides(again) == [64 + frame * (1 if frame < kept else 3) for frame in range(100)]
    assert engine.frames == list(range(100)), "it has seen all of the video"
    harness.open(engine)
    assert left_sides(harness.scheduler.job(again.number)) == left_sides(again), "so it is on disk"


def test_no_memory_for_a_session_that_continues_deletes_nothing(harness: Harness) -> None:
    kept = stopped_after(harness, 40).progress()[0]
    engine = Refusing(Unsupported("the device has no memory left"))
    scheduler = harness.open(engine)
    failed = wait_for_end(scheduler, scheduler.submit(["a"], "1", box()), "failed")
    assert (str(failed.error), failed.progress()) == ("the device has no memory left", (kept, 100))
    engine.error = None
    again = wait_for_end(scheduler, scheduler.submit(["a"], "1", box()))
    assert engine.frames == list(range(kept, 100))
    assert left_sides(again)[:kept] == [64 + frame for frame in range(kept)]


def test_a_cancelled_job_is_listed_and_can_be_resumed(harness: Harness) -> None:
    gate = Gate(30)
    scheduler = harness.open(StubEngine(gate=gate))
    job = scheduler.submit(["a"], "1", box())
    until(lambda: job.progress()[0] == 30)
    assert scheduler.cancel(job.number)
    gate.open()
    wait_for_end(scheduler, job, "cancelled")
    (listed,) = scheduler.jobs(9)
    assert (listed.state, listed.progress()) == ("cancelled", job.progress())
    assert scheduler.resume(job.number)
    resumed = scheduler.newest(["a"])
    wait_for_end(scheduler, resumed)
    assert scheduler.job(job.number).state == "done"
    assert (scheduler.cancel(99), scheduler.resume(99), scheduler.job(99)) == (False, False, None)
    assert harness.engine.frames == list(range(100))


def test_a_job_cancelled_while_waiting_never_runs(harness: Harness) -> None:
    gate = Gate(30)
    scheduler = harness.open(StubEngine(gate=gate))
    first = scheduler.submit(["a"], "1", box())
    until(lambda: first.state == "running")
    second = scheduler.submit(["b"], "1", box())
    scheduler.cancel(second.number)
    assert (second.state, second.has_ended) == ("cancelled", True)
    gate.open()
    wait_for_end(scheduler, first)
    assert harness.engine.sessions == 1


def test_a_failed_download_fails_only_its_job(harness: Harness) -> None:
    def fetch(spec: JobSpec, cancelled: Callable[[], bool]) -> Path:
        if spec.task == "8":
            raise MediaError("check the task's url")
        if spec.task == "9":
            raise RuntimeError("/home/ann/token")
        return fake_path()

    harness.fetch = fetch
    scheduler = harness.open()
    gone, broken, good = (scheduler.submit([task], "1", box(task=task)) for task in ("8", "9", "7"))
    assert str(wait_for_end(scheduler, gone, "failed").error) == "check the task's url"
    assert "ann" not in str(wait_for_end(scheduler, broken, "failed").error)
    wait_for_end(scheduler, good)
    harness.fetch = fake_path
    again = scheduler.submit(["8"], "1", box(task="8"))
    assert wait_for_end(scheduler, again).number == gone.number


def test_a_slow_download_does_not_block_other_jobs(harness: Harness) -> None:
    come = threading.Event()
    harness.fetch = lambda spec, cancelled: ((come.wait(20) if spec.task == "8" else None) and None) or fake_path()
    scheduler = harness.open()
    slow = scheduler.submit(["8"], "1", box(task="8"))
    until(lambda: slow.phase == "fetching")
    wait_for_end(scheduler, scheduler.submit(["7"], "1", box()))
    assert not slow.has_ended
    come.set()
    wait_for_end(scheduler, slow)


def test_a_file_that_is_not_a_video_is_deleted(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise BadVideo("this file holds no video")

    scheduler = harness.open()
    monkeypatch.setattr("backend.jobs.worker.Video", broken)
    wait_for_end(scheduler, scheduler.submit(["a"], "1", box()), "failed")
    assert harness.forgotten == [fake_path()]


def test_an_engine_error_fails_only_its_job_and_leaks_nothing(harness: Harness, caplog) -> None:
    def raising(frame: int) -> None:
        if frame == 50:
            raise RuntimeError("/home/ann/token")

    scheduler = harness.open(StubEngine(gate=raising))
    job = wait_for_end(scheduler, scheduler.submit(["a"], "1", box()), "failed")
    assert type(job.error) is BackendError
    assert "ann" not in str(job.error) + caplog.text
    assert "RuntimeError at" in caplog.text
    harness.engine.gate = None
    count = len(harness.engine.frames)
    again = wait_for_end(scheduler, scheduler.submit(["a"], "1", box()))
    assert len(harness.engine.frames) - count <= 100 - 32, "what was saved before is not computed again"
    assert left_sides(again) == [64 + frame for frame in range(100)]


def test_a_hung_worker_is_killed_and_its_job_continues(harness: Harness, caplog) -> None:
    held = threading.Event()

    def hanging(frame: int) -> None:
        if frame == 50 and not held.is_set():
            held.set()
            threading.Event().wait(3)

    scheduler = harness.open(StubEngine(gate=hanging), timeout=0.5)
    job = wait_for_end(scheduler, scheduler.submit(["a"], "1", box()))
    assert "sent nothing for" in caplog.text
    assert left_sides(job) == [64 + frame for frame in range(100)]
    assert harness.engine.frames.count(10) == 1, "it went on from where it was saved"


def test_a_job_that_keeps_killing_the_worker_fails(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.jobs.job.ONE_LOSS_SECONDS", 0)

    def deadly(frame: int) -> None:
        if frame == 50:
            harness.worker.kill()
            threading.Event().wait(0.05)

    scheduler = harness.open(StubEngine(gate=deadly))
    job = wait_for_end(scheduler, scheduler.submit(["a"], "1", box()), "failed")
    assert "ended 3 times" in str(job.error)
    harness.engine.gate = None
    wait_for_end(scheduler, scheduler.submit(["b"], "1", box()))


@pytest.mark.parametrize(("lost", "state", "error"), [(5, "done", "None"), (99, "failed", "10 machines were lost")])
def test_lost_machines_are_not_the_fault_of_a_job(harness: Harness, monkeypatch, lost: int, state, error: str) -> None:
    monkeypatch.setattr("backend.jobs.job.ONE_LOSS_SECONDS", 0)
    deaths, receive = iter(range(lost)), ThreadLink.receive

    def deadly(frame: int) -> None:
        if frame == 50 and next(deaths, None) is not None:
            until(lambda: harness.store.states.jobs())
            harness.worker.kill()
            threading.Event().wait(0.05)

    def lose(link: ThreadLink, seconds: float | None = None) -> Reply | None:
        try:
            return receive(link, seconds)
        except EOFError:
            raise NodeDied from None

    monkeypatch.setattr(ThreadLink, "receive", lose)
    scheduler = harness.open(StubEngine(gate=deadly))
    job = wait_for_end(scheduler, scheduler.submit(["a"], "1", box()), state)
    assert error in str(job.error)
    assert harness.engine.frames.count(10) == 1, "it went on from where it was saved"


def test_machines_that_are_lost_while_the_model_loads_do_not_make_it_fail() -> None:
    status = EngineStatus()
    for _ in range(9):
        status.begin()
        status.update("loading")
        status.record_loss()
    assert status.is_loading
    status.begin()


def test_a_worker_that_dies_while_it_loads_its_model_is_no_fault_of_the_job(harness: Harness) -> None:
    scheduler = harness.open(StubEngine(status="loading"))
    job = scheduler.submit(["a"], "1", box())
    for _ in range(2):
        until(lambda: job.state == "running" and harness.worker._link)
        link = harness.worker._link
        harness.worker.kill()
        until(lambda link=link: harness.worker._link not in (None, link))
    assert job.worker_deaths == 0
    harness.engine.status = "ready"
    wait_for_end(scheduler, job)


def test_an_interrupted_phrase_job_gives_the_same_result(harness: Harness) -> None:
    words = JobSpec("7", "3", "/clip.mp4", 25.0, phrases=("car",), ranges=(FrameRange(),))
    answering = {"car": {"x": range(5, 60), "y": range(40, 100)}}
    scheduler = harness.open(StubEngine(answering=answering))
    whole = wait_for_end(scheduler, scheduler.submit(["whole"], "1", words)).resolved.propagation.tracks()
    gate = Gate(50)
    scheduler = harness.open(StubEngine(answering=answering, gate=gate))
    job = scheduler.submit(["cut"], "1", words)
    until(lambda: job.progress()[0] == 50)
    scheduler.cancel(job.number)
    gate.open()
    wait_for_end(scheduler, job, "cancelled")
    scheduler = harness.open(StubEngine(answering=answering))
    cut = wait_for_end(scheduler, scheduler.submit(["cut"], "1", words)).resolved.propagation
    assert cut.track_phrases == {"x": "car", "y": "car"}
    for name, track in cut.tracks().items():
        assert np.array_equal(track.boxes, whole[name].boxes, equal_nan=True)
        assert track.start == whole[name].start


def test_old_jobs_are_dropped_from_memory_and_read_from_disk(harness: Harness) -> None:
    scheduler = harness.open(max_recent=4)
    jobs = [wait_for_end(scheduler, scheduler.submit([str(number)], "1", box(number))) for number in range(9)]
    assert scheduler.submit(["8"], "1", box(8)) is jobs[8]
    again = scheduler.submit(["0"], "1", box(0))
    assert again is not jobs[0]
    assert (again.number, again.state) == (jobs[0].number, "done")


def test_every_job_is_logged_in_one_line(harness: Harness, caplog) -> None:
    with caplog.at_level(logging.INFO, "backend.jobs.job_ends"):
        scheduler = harness.open()
        wait_for_end(scheduler, scheduler.submit(["a"], "1", box()))
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("job 1")]
    assert line.startswith("job 1 of task 7, box: done, 100 of 100 frames (")


def test_closing_ends_the_threads(harness: Harness) -> None:
    scheduler = harness.open()
    wait_for_end(scheduler, scheduler.submit(["a"], "1", box()))
    harness.close()
    names = {thread.name for thread in threading.enumerate() if thread.is_alive()}
    assert not names & {"scheduler", "worker-reader"}


def test_batch_downloads_do_not_block_other_jobs(harness: Harness) -> None:
    come = threading.Event()
    harness.fetch = lambda spec, cancelled: fake_path() if spec.task == "7" or come.wait(20) else None
    scheduler = harness.open()
    batches = [scheduler.submit([str(number)], "1", box(task=str(number)), batch=True) for number in range(10, 20)]
    until(lambda: any(job.phase == "fetching" for job in batches))
    wait_for_end(scheduler, scheduler.submit(["7"], "1", box()))
    come.set()
    for job in batches:
        wait_for_end(scheduler, job)


def test_waiting_videos_are_fetched_after_earlier_jobs_are_cancelled(harness: Harness) -> None:
    gate = Gate(30)
    scheduler = harness.open(StubEngine(gate=gate))
    jobs = [scheduler.submit([str(number)], "1", box(number), batch=True) for number in range(9)]
    until(lambda: sum(job.video_path is not None for job in jobs) >= 4)
    for job in [job for job in jobs if job.video_path and job.state == "queued"]:
        scheduler.cancel(job.number)
    gate.open()
    for job in jobs:
        scheduler.wait([job], 20)
        assert job.has_ended


def test_a_failed_engine_fails_only_jobs_with_waiters(harness: Harness) -> None:
    scheduler = harness.open(StubEngine(status="failed: the device is not there"))
    until(lambda: harness.worker.status.startswith("failed"))
    batch = scheduler.submit(["batch"], "1", box(), batch=True)
    request = scheduler.submit(["asked"], "1", box())
    assert "not there" in str(wait_for_end(scheduler, request, "failed").error)
    assert batch.state == "queued"


def test_asking_for_a_done_job_cancels_its_replacement(harness: Harness) -> None:
    gate = Gate(1000)
    scheduler = harness.open(StubEngine(gate=gate))
    first = wait_for_end(scheduler, scheduler.submit(["a"], "1", box()))
    gate.until = 30
    second = scheduler.submit(["a"], "2", box(20))
    until(lambda: second.state == "running")
    assert scheduler.submit(["a"], "1", box()) is first
    gate.open()
    wait_for_end(scheduler, second, "cancelled")
