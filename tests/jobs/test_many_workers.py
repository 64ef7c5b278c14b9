"""One scheduler with several workers: they share the jobs, and what one of them loses goes on elsewhere."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.errors import Busy
from backend.jobs.job import Job
from backend.jobs.metrics import Metrics
from backend.jobs.scheduler import Scheduler
from backend.jobs.store import Store
from backend.jobs.worker_pool import WorkerPool
from backend.tracks.prompts import Point, Prompt
from backend.video import VideoLimits
from tests.fakes import FakeVideo, Gate, StubEngine, thread_worker
from tests.jobs.test_scheduler import box, left_sides, until, wait_for_end

EXPECTED = [64 + frame for frame in range(100)]


class Team:
    """A scheduler over workers in threads, each with an engine of its own; a task's video is named after it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._monkeypatch = folder, monkeypatch
        self.scheduler: Scheduler | None = None

    def open(self, *engines: StubEngine, least: int | None = None) -> Scheduler:
        self.engines = engines
        self._monkeypatch.setattr("backend.jobs.worker.Video", lambda path, limits: FakeVideo())
        workers = [thread_worker(one, device=f"stub {number}") for number, one in enumerate(engines)]
        self.pool = WorkerPool(workers, least=least)
        self.scheduler = Scheduler(
            self.pool,
            Store(self._folder / "jobs.sqlite3", 2**30, 30),
            lambda spec, cancelled: Path(spec.task),
            lambda path: None,
            VideoLimits(),
            queue=64,
            metrics=Metrics(),
        )
        self.pool.start()
        return self.scheduler

    def submit(self, task: str, key: str = "a", **more: object) -> Job:
        return self.scheduler.submit([task, key], "1", box(task=task), **more)

    def until_ready(self) -> None:
        until(lambda: all(worker.status == "ready" for worker in self.pool.workers))

    def close(self) -> None:
        for engine in self.engines:
            if isinstance(engine.gate, Gate):
                engine.gate.open()
        self.scheduler.close()


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Team]:
    team = Team(tmp_path, monkeypatch)
    yield team
    team.close()


def test_videos_are_spread_and_each_stays_with_its_worker(team: Team) -> None:
    gates = [Gate(30) for _ in range(3)]
    team.open(*(StubEngine(gate=gate) for gate in gates))
    team.until_ready()
    jobs = [team.submit(task) for task in "123"]
    until(lambda: all(job.progress()[0] == 30 for job in jobs))
    assert sorted(job.worker for job in jobs) == ["stub 0", "stub 1", "stub 2"]
    together = [team.submit(task, "b") for task in "123"]
    until(lambda: all(job.state == "running" for job in together))
    assert [job.worker for job in together] == [job.worker for job in jobs]
    for gate in gates:
        gate.open()
    for job in jobs + together:
        assert left_sides(wait_for_end(team.scheduler, job)) == EXPECTED
    again = [wait_for_end(team.scheduler, team.submit(task, "c")) for task in "321"]
    assert [job.worker for job in again] == [job.worker for job in reversed(jobs)]


def test_what_a_lost_worker_ran_goes_on_elsewhere_while_it_does_not_come_back(team: Team) -> None:
    gates = [Gate(50), Gate(50)]
    team.open(*(StubEngine(gate=gate) for gate in gates))
    team.until_ready()
    job = team.submit("1")
    until(lambda: job.progress()[0] == 50)
    lost = int(job.worker.split()[1])
    other = team.submit("2")
    until(lambda: other.progress()[0] == 50)
    team.engines[lost].status = "loading"  # the next worker does not get ready
    team.pool.workers[lost].kill()
    gates[lost].open()
    until(lambda: team.pool.workers[lost].status == "loading")
    gates[1 - lost].open()
    for one in (job, other):
        assert left_sides(wait_for_end(team.scheduler, one)) == EXPECTED
        assert one.worker == f"stub {1 - lost}"
    assert len(team.engines[1 - lost].frames) <= 100 + 50 + 64
    assert job.worker_deaths == 0


def test_a_worker_that_cannot_load_leaves_the_jobs_to_the_others(team: Team) -> None:
    team.open(StubEngine(status="failed: the device is not there"), StubEngine())
    until(lambda: team.pool.workers[0].status.startswith("failed"))
    until(lambda: team.pool.status == "ready")
    jobs = [wait_for_end(team.scheduler, team.submit(task)) for task in "123"]
    assert {job.worker for job in jobs} == {"stub 1"}
    team.pool.check_engine()


def test_a_job_leaves_a_worker_that_loads_when_another_is_ready(team: Team) -> None:
    team.open(*(StubEngine(status="loading") for _ in range(2)))
    job = team.submit("1")
    until(lambda: job.state == "running" and job.phase == "loading")
    first = int(job.worker.split()[1])
    team.engines[1 - first].status = "ready"
    wait_for_end(team.scheduler, job)
    assert job.worker == f"stub {1 - first}"
    assert team.engines[first].sessions == 0


def test_what_somebody_waits_for_overtakes_one_worker_only(team: Team) -> None:
    gates = [Gate(10), Gate(10)]
    team.open(*(StubEngine(gate=gate) for gate in gates))
    team.until_ready()
    batches = [team.submit(task, batch=True) for task in "12"]
    until(lambda: all(job.progress()[0] == 10 for job in batches))
    urgent = team.submit("3")
    until(lambda: urgent.video_path)
    until(lambda: any(job.is_stopping for job in batches))
    time.sleep(0.05)
    assert [job.is_stopping for job in batches].count(True) == 1
    for gate in gates:
        gate.open()
    for job in (urgent, *batches):
        wait_for_end(team.scheduler, job)


def test_previews_go_where_the_video_is_and_the_job_follows(team: Team) -> None:
    team.open(*(StubEngine() for _ in range(3)))
    team.until_ready()
    forgotten: list[str] = []
    team.pool.previews.on_forgotten = forgotten.append
    limits, prompt = VideoLimits(), Prompt("object", 3, points=(Point(40, 50),))
    for task in "123":
        team.pool.previews.preview(task, Path(task), limits, prompt, 20)
    assert [engine.encoded for engine in team.engines] == [[3]] * 3, "the sessions are spread"
    for task, number in zip("321", (2, 1, 0), strict=True):
        assert wait_for_end(team.scheduler, team.submit(task)).worker == f"stub {number}"
    lost = team.pool.workers[1]
    lost.kill()
    until(lambda: forgotten == ["2"])
    assert [team.pool.homes.get(Path(task)) for task in "123"] == [0, None, 2]
    team.pool.previews.preview("2", Path("2"), limits, prompt, 20)
    assert Counter(len(engine.encoded) for engine in team.engines)[1] >= 2
    team.pool.previews.end("2")


def test_without_a_ready_worker_a_preview_says_so(team: Team) -> None:
    team.open(StubEngine(status="loading"), StubEngine(status="loading"))
    with pytest.raises(Busy, match="not ready"):
        team.pool.previews.preview("1", Path("1"), VideoLimits(), Prompt("object", 3, points=(Point(4, 5),)), 20)


def test_the_status_is_the_best_of_all(team: Team) -> None:
    engines = [StubEngine(status="failed: buy a GPU"), StubEngine(status="loading")]
    team.open(*engines)
    until(lambda: [worker.status for worker in team.pool.workers] == [engine.status for engine in engines])
    assert (team.pool.status, team.pool.is_down) == ("loading", False)
    engines[1].status = "ready"
    until(lambda: team.pool.status == "ready")
    assert [one["status"] for one in team.pool.describe_workers()] == ["failed: buy a GPU", "ready"]


def test_further_workers_start_when_jobs_wait_and_are_let_go(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.jobs.job_runner._LET_GO_SECONDS", 0.2)
    monkeypatch.setattr("backend.jobs.job_runner._IDLE_SECONDS", 0.05)
    gate = Gate(10)
    team.open(*(StubEngine(gate=gate) for _ in range(3)), least=1)

    def running() -> list[bool]:
        return [worker.is_running for worker in team.pool.workers]

    until(lambda: team.pool.status == "ready")
    time.sleep(0.2)
    assert running() == [True, False, False]
    assert [one["status"] for one in team.pool.describe_workers()] == ["ready", "off", "off"]
    jobs = [team.submit(task) for task in "12"]
    until(lambda: all(job.progress()[0] == 10 for job in jobs))
    assert running().count(True) == 2
    gate.open()
    for job in jobs:
        assert left_sides(wait_for_end(team.scheduler, job)) == EXPECTED
    until(lambda: running() == [True, False, False])
    assert wait_for_end(team.scheduler, team.submit("3")).worker == "stub 0"


def test_workers_that_are_lost_at_once_are_not_the_jobs_fault(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.jobs.job.ONE_LOSS_SECONDS", 60)
    gate = Gate(0)
    team.open(*(StubEngine(gate=gate) for _ in range(4)))
    team.until_ready()
    job = team.submit("1")
    for starts in range(1, 5):  # a job fails after three losses
        until(lambda starts=starts: sum(engine.sessions for engine in team.engines) == starts)
        next(worker for worker in team.pool.workers if worker.device == job.worker).kill()
    gate.open()
    assert left_sides(wait_for_end(team.scheduler, job)) == EXPECTED
