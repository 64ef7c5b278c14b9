"""Worker processes that are killed or cannot be started, and that end with their server."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from backend import engines
from backend.errors import SettingsError
from backend.jobs.job import Job
from backend.jobs.messages import StartRun
from backend.jobs.metrics import Metrics
from backend.jobs.schedule import Progress
from backend.jobs.scheduler import Scheduler
from backend.jobs.spec import FramePrompts, JobSpec
from backend.jobs.store import Store
from backend.jobs.worker import EngineFactory
from backend.jobs.worker_client import WorkerClient, WorkerDied
from backend.jobs.worker_launcher import process_launcher
from backend.jobs.worker_pool import WorkerPool
from backend.settings import Settings
from backend.shapes import EASY, HELD_OUT, Clip
from backend.video import VideoLimits
from benchmarks.jobs_parts.kills import recomputed
from benchmarks.jobs_parts.logged_engine import logged
from benchmarks.jobs_parts.servers import is_alive, until
from tests.clips import write_clip
from tests.fakes import StubEngine, sleeping_engine

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
BOX = JobSpec(
    "7", "3", "/clip.mp4", 25.0, prompts=(FramePrompts(81, (10, 20, 12, 15, 0)),), intervals=((None, 81), (81, None))
)
WORDS = JobSpec("7", "3", "/clip.mp4", 25.0, phrases=("car",))


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers import their engine factory from here."""
    monkeypatch.chdir(ROOT)


class Harness:
    """A scheduler for one clip, with its engine in a worker process."""

    def __init__(
        self, folder: Path, clip: Path, make: EngineFactory, name: str = "stub", version: str = "1", others: int = 0
    ) -> None:
        launch = process_launcher(make, "warning")
        self.starts = 0

        def counted():
            self.starts += 1
            return launch()

        self.worker = WorkerClient(counted, name, version, 60, device="first")
        more = [WorkerClient(launch, name, version, 60, device=f"other {number}") for number in range(others)]
        self.pool = WorkerPool([self.worker, *more])
        self.store = Store(folder / "jobs.sqlite3", 2**30, 30)
        self.scheduler = Scheduler(
            self.pool,
            self.store,
            lambda *_: clip,
            lambda path: None,
            VideoLimits(),
            queue=9,
            metrics=Metrics(),
        )

    @property
    def worker_pid(self) -> int:
        return self.worker._link.pid

    def wait_for_end(self, spec: JobSpec, digest: str = "1") -> Job:
        job = self.scheduler.submit(["a"], digest, spec)
        self.scheduler.wait([job], 200)
        return job

    def saved_results(self, job: Job) -> list[tuple[int, bool, set[tuple[str, ...]], list[int], list[bytes]]]:
        """By pass: direction, tracks, frames in the order of travel, and rows."""
        assert job.state == "done", job.error
        blocks = list(self.store.blocks(job.number))
        whole = []
        for way in sorted({way for way, _ in blocks}):
            own = [block for number, block in blocks if number == way]
            frames = [frame for block in own for frame in (block.frames[::-1] if block.reverse else block.frames)]
            rows = [block.rows[:, ::-1] if block.reverse else block.rows for block in own]
            tracks = {block.tracks for block in own}
            same = [np.concatenate(rows, axis=1)] if len(tracks) == 1 else rows
            whole.append((way, own[0].reverse, tracks, frames, [part.tobytes() for part in same]))
        return whole


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Callable[..., Harness]]:
    harnesses: list[Harness] = []

    def make(*given, **more) -> Harness:
        folder = tmp_path / f"harness{len(harnesses)}"
        harnesses.append(Harness(folder, *given, **more))
        return harnesses[-1]

    yield make
    for one in harnesses:
        one.scheduler.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=200, size=(64, 48)).path


def run_and_kill(
    harness: Harness, spec: JobSpec, at: Sequence[int], note: Callable[[], None] = lambda: None, digest: str = "1"
) -> Job:
    """Run a job and kill its worker each time so many frames are done; `note` is called after each kill."""
    job = harness.scheduler.submit(["a"], digest, spec)
    for frames in at:
        assert until(lambda frames=frames: job.progress()[0] >= frames, 200), job.error
        worker = harness.worker_pid
        harness.worker.kill()
        assert until(lambda worker=worker: not is_alive(worker), 30)
        note()
    harness.scheduler.wait([job], 200)
    return job


@pytest.mark.parametrize(("spec", "at"), [(BOX, (20, 75, 150)), (WORDS, (75,))], ids=["box both ways", "words"])
def test_a_killed_worker_does_not_change_the_result(harness, clip, tmp_path, spec, at) -> None:
    log, marks = tmp_path / "log", []
    alone = harness(clip, partial(sleeping_engine, 0.0))
    other = harness(clip, partial(sleeping_engine, 0.002, log))
    job = run_and_kill(other, spec, at, lambda: marks.append(len(logged(log))))
    assert other.saved_results(job) == alone.saved_results(alone.wait_for_end(spec))
    assert (other.starts, job.progress()[0]) == (1 + len(at), job.progress()[1])
    assert max(recomputed(logged(log), marks)) <= 64


def test_what_a_killed_worker_ran_goes_on_with_another(harness, clip, tmp_path) -> None:
    log = tmp_path / "log"
    alone = harness(clip, partial(sleeping_engine, 0.0))
    other = harness(clip, partial(sleeping_engine, 0.01, log), others=1)
    other.pool.start()
    assert until(lambda: all(worker.status == "ready" for worker in other.pool.workers), 30)
    job = other.scheduler.submit(["a"], "1", BOX)
    assert until(lambda: job.progress()[0] >= 75, 30)
    first = next(worker for worker in other.pool.workers if worker.device == job.worker)
    pid = first._link.pid
    first.kill()
    assert until(lambda: not is_alive(pid), 30)
    mark = len(logged(log))
    other.scheduler.wait([job], 60)
    assert other.saved_results(job) == alone.saved_results(alone.wait_for_end(BOX))
    assert job.worker in {worker.device for worker in other.pool.workers} - {first.device}
    assert max(recomputed(logged(log), [mark])) <= 64


def test_repeated_kills_do_not_fail_a_job_that_advances(harness, clip, tmp_path) -> None:
    log = tmp_path / "log"
    one = harness(clip, partial(sleeping_engine, 0.02, log))
    job = one.scheduler.submit(["a"], "1", BOX)
    for _ in range(5):  # never so many frames that a state comes by itself
        before = len(logged(log))
        assert until(lambda before=before: len(logged(log)) >= before + 10, 30), job.error
        one.worker.kill()
    assert not job.has_ended
    assert job.saved_progress.done >= 4
    one.scheduler.cancel(job.number)


def test_a_worker_killed_between_opening_a_video_and_its_run_is_reported(clip) -> None:
    worker = WorkerClient(process_launcher(partial(sleeping_engine, 0.0), "warning"), "stub", "1", 60)
    schedule = BOX.resolve(worker.open(clip, VideoLimits())).propagation.schedule
    worker.kill()
    assert until(lambda: worker._link is None, 30)
    worker.start_run(StartRun(1, schedule, Progress(), None, clip.with_name("state")))
    with pytest.raises(WorkerDied):
        worker.next_reply()
    worker.close()


def test_a_worker_killed_while_idle_is_restarted(harness, clip) -> None:
    one = harness(clip, partial(sleeping_engine, 0.0))
    first = one.wait_for_end(BOX)
    one.worker.kill()
    assert one.wait_for_end(WORDS, "2").state == first.state == "done"


def test_stop_starts_no_worker(harness, clip) -> None:
    one = harness(clip, partial(sleeping_engine, 0.0))
    one.worker.stop_run(9)
    assert one.starts == 0
    one.wait_for_end(BOX)
    one.worker.kill()
    one.worker.stop_run(9)
    assert one.starts == 1


def slow_to_start(log: Path) -> StubEngine:
    """An engine that takes long enough to load for a job to be cancelled meanwhile."""
    time.sleep(2)
    return sleeping_engine(0.01, log)


def test_a_job_cancelled_while_its_worker_starts_stops_immediately(harness, clip, tmp_path) -> None:
    log = tmp_path / "log"
    one = harness(clip, partial(slow_to_start, log))
    job = one.scheduler.submit(["a"], "1", BOX)
    assert until(lambda: job.state == "running", 30)
    one.scheduler.cancel(job.number)
    assert job.wait(30)
    assert (job.state, logged(log)) == ("cancelled", [])


def failing() -> None:
    raise SettingsError("there is no such model: give another")


def test_an_engine_that_cannot_be_created_reports_the_reason(harness, clip) -> None:
    one = harness(clip, failing)
    one.worker.start()
    assert until(lambda: one.worker.status == "failed: there is no such model: give another", 30), one.worker.status
    job = one.wait_for_end(BOX)
    assert (job.state, str(job.error)) == ("failed", "there is no such model: give another")
    assert one.starts == 1


def loading_for_ever() -> StubEngine:
    return StubEngine(status="warming up")


def test_a_model_that_is_never_ready_is_reported_and_tried_again(
    harness, clip, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setattr("backend.jobs.engine_status._RETRY_SECONDS", 0.2)
    one = harness(clip, loading_for_ever)
    one.worker._loading_timeout = 0.1
    one.worker.kill()
    assert until(lambda: one.worker.status.startswith("failed: the model was not ready 0.1 s after its start"), 30)
    assert "raise limits.loading_timeout" in one.worker.status
    assert until(lambda: one.starts >= 3, 30), "the next attempt comes by itself"


class ToldEngine(StubEngine):
    """Its status is what a file says."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__()

    @property
    def status(self) -> str:
        return self._path.read_text()

    @status.setter
    def status(self, status: str) -> None:
        pass


def test_a_job_waits_for_weights_that_do_not_come_and_says_so(harness, clip, tmp_path: Path) -> None:
    def tell(status: str) -> None:
        (tmp_path / "new").write_text(status)
        (tmp_path / "new").replace(tmp_path / "status")

    tell("waiting for its weights: the hub is silent")
    one = harness(clip, partial(ToldEngine, tmp_path / "status"))
    job = one.scheduler.submit(["a"], "1", BOX)
    assert until(lambda: job.phase == "waiting for its weights: the hub is silent", 30), job.phase
    tell("downloading its weights: 1 % of 3.4 GB")
    assert until(lambda: job.phase == "downloading its weights: 1 % of 3.4 GB", 30), job.phase
    tell("ready")
    one.scheduler.wait([job], 60)
    assert (job.state, one.starts) == ("done", 1)


def test_a_worker_that_dies_on_start_is_not_restarted_forever(harness, clip) -> None:
    one = harness(clip, partial(os._exit, 3))
    job = one.wait_for_end(BOX)
    assert job.state == "failed"
    assert one.worker.status.startswith("failed: the engine process ends before its model is loaded")
    again = one.wait_for_end(WORDS, "2")
    assert (again.state, str(again.error)) == ("failed", one.worker.status.removeprefix("failed: "))
    assert one.starts == 3


SERVER = """
import sys, time
from functools import partial
from pathlib import Path
from backend.jobs.worker_client import WorkerClient
from backend.jobs.worker_launcher import process_launcher
from backend.jobs.schedule import Progress
from backend.jobs.messages import StartRun
from backend.video import VideoLimits
from tests.fakes import sleeping_engine, stuck_engine
from tests.jobs.test_kills import BOX
worker = WorkerClient(process_launcher(eval(sys.argv[2]), "warning"), "stub", "1", 60)
plan = BOX.resolve(worker.open(Path(sys.argv[1]), VideoLimits()))
worker.start_run(StartRun(1, plan.propagation.schedule, Progress(), None, Path(sys.argv[1] + ".state")))
while worker.next_reply():
    print(worker._link.pid, flush=True)
"""


@pytest.mark.parametrize("engine", ["partial(sleeping_engine, 60)", "stuck_engine"])
def test_a_worker_ends_with_its_server_in_the_middle_of_a_frame(clip, engine) -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER, clip, engine], stdout=subprocess.PIPE, text=True) as server:
        worker = int(server.stdout.readline())
        assert is_alive(worker)
        server.kill()
        assert until(lambda: not is_alive(worker), 30)


@pytest.mark.parametrize("engine", ["opencv", "sam3"])
def test_real_engines_give_identical_results_after_a_kill(harness, tmp_path, engine) -> None:
    # Results of text prompts come some frames late, so the clip is longer to have results after the kill.
    film = Clip(HELD_OUT, replace(EASY, size=(320, 180), frames=100 if engine == "opencv" else 56))
    film.save(tmp_path / "clip.mp4")
    width, height = film.recipe.size
    x0, y0, x1, y1 = (film[0].boxes[0] / (width, height, width, height) * 100).tolist()
    shown = (FramePrompts(1, (x0, y0, x1 - x0, y1 - y0, 0)),)
    box = JobSpec("7", "3", "/clip.mp4", 25.0, prompts=shown, intervals=((1, None),))
    words = JobSpec("7", "3", "/clip.mp4", 25.0, phrases=tuple(sorted({thing.shape for thing in film.things})))
    settings = Settings(engine=engine, model_path="shapes", device="cpu")
    real = partial(engines.load_engine, settings)
    alone, other = (harness(tmp_path / "clip.mp4", real, *engines.identify_engine(settings)) for _ in range(2))
    specs = {"box": box} if engine == "opencv" else {"box": box, "words": words}
    undisturbed = {name: alone.wait_for_end(spec, name) for name, spec in specs.items()}
    alone.worker.kill()
    for name, spec in specs.items():
        job = run_and_kill(other, spec, (33,), digest=name)
        assert other.saved_results(job) == alone.saved_results(undisturbed[name])
    assert other.starts == 1 + len(specs)
