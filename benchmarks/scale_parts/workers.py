"""A scheduler with workers whose stub engine logs each frame: processes, or actors."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backend.jobs.carried import VideoFile
from backend.jobs.job import Job
from backend.jobs.metrics import Metrics
from backend.jobs.scheduler import Scheduler
from backend.jobs.spec import OBJECT_TRACK, FramePrompts, JobSpec
from backend.jobs.store import Store
from backend.jobs.worker_client import WorkerClient
from backend.jobs.worker_launcher import process_launcher
from backend.jobs.worker_link import WorkerLauncher
from backend.jobs.worker_pool import WorkerPool
from backend.tracks.track import FrameResult
from backend.video import Video, VideoLimits
from backend.worker_settings import RaySettings
from benchmarks.jobs_parts.servers import until
from tests.fakes import StubEngine, StubSession

FRAME_SECONDS = 0.02
WAIT = 300.0
"""Seconds after which a job counts as lost."""


class LoggingEngine(StubEngine):
    """Each frame takes a while, and appends a line to the log: its video's name, its number, and the time."""

    def __init__(self, seconds: float, log: Path) -> None:
        super().__init__()
        self.seconds, self._log = seconds, log.open("a")

    def open(self, video: Video, state: bytes | None = None) -> StubSession:
        """A session that logs."""
        session = LoggingSession(self, state)
        session.video = Path(video.key[0]).stem
        return session

    def note(self, video: str, frame: int) -> None:
        """A frame has been computed."""
        self._log.write(f"{video} {frame} {time.monotonic()}\n")
        self._log.flush()


class LoggingSession(StubSession):
    """A session of it."""

    engine: LoggingEngine
    video: str

    def propagate(self, span: range, reverse: bool = False) -> Generator[FrameResult]:
        for result in super().propagate(span, reverse):
            time.sleep(self.engine.seconds)
            self.engine.note(self.video, result.frame)
            yield result


def logging_engine(seconds: float, log: str) -> LoggingEngine:
    """For a worker process, which imports it by its name."""
    return LoggingEngine(seconds, Path(log))


def away_engine(seconds: float, log: str) -> LoggingEngine:
    """For a worker that sees none of the server's files, as on another machine."""
    VideoFile.is_here = property(lambda _: False)  # type: ignore[assignment,method-assign]
    return logging_engine(seconds, log)


class Line(NamedTuple):
    """One of the log."""

    video: int
    frame: int
    at: float


class Workers:
    """A scheduler with workers, all ready: processes, or actors."""

    def __init__(self, folder: Path, clip: Path, launch: Callable[[Path], WorkerLauncher], workers: int) -> None:
        folder.mkdir()
        self._folder, self._clip, self.log = folder, clip, folder / "log"
        launcher = launch(self.log)
        self.pool = WorkerPool(
            [WorkerClient(launcher, "stub", "1", 60.0, device=f"worker {number}") for number in range(workers)]
        )
        store = Store(folder / "jobs.sqlite3", 1 << 40, 30)
        self.scheduler = Scheduler(self.pool, store, self._fetch, print, VideoLimits(), queue=10_000, metrics=Metrics())
        self.queue = self.scheduler._queue
        self.pool.start()
        if not until(self.are_ready, WAIT):
            raise RuntimeError("a worker does not start")

    def are_ready(self) -> bool:
        """Whether all workers are."""
        return all(worker.status == "ready" for worker in self.pool.workers)

    def _fetch(self, spec: JobSpec, cancelled: Callable[[], bool]) -> Path:
        path = self._folder / f"{spec.task}.mp4"
        with suppress(FileExistsError):
            os.link(self._clip, path)
        return path

    def submit(self, task: int, key: int = 0) -> Job:
        """A job for a box on a task's video."""
        shown = (FramePrompts(1, (1 + key % 40, 20, 12, 15, 0)),)
        spec = JobSpec(str(task), "3", f"/{task}.mp4", 25.0, prompts=shown, intervals=((1, None),))
        return self.scheduler.submit([str(task), str(key)], "1", spec)

    def lines(self) -> list[Line]:
        """What has been computed, in the order of time."""
        lines = (line.split() for line in self.log.read_text().splitlines())
        return sorted((Line(int(video), int(frame), float(at)) for video, frame, at in lines), key=lambda line: line.at)


@contextmanager
def processes(folder: Path, clip: Path, count: int, seconds: float = FRAME_SECONDS) -> Iterator[Workers]:
    """So many worker processes, which are ended."""

    def launch(log: Path) -> WorkerLauncher:
        return process_launcher(partial(logging_engine, seconds, str(log)), "error")

    with _closed(Workers(folder, clip, launch, count)) as workers:
        yield workers


@contextmanager
def actors(
    folder: Path, clip: Path, count: int, seconds: float = FRAME_SECONDS, *, num_cpus: float = 1, is_away: bool = False
) -> Iterator[Workers]:
    """So many actors of the Ray cluster that this process has joined, which are ended.

    Args:
        is_away: they see none of the server's files.
    """
    from backend.jobs import ray_link

    def launch(log: Path) -> WorkerLauncher:
        make = partial(away_engine if is_away else logging_engine, seconds, str(log))
        return ray_link.ray_launcher(make, "error", RaySettings(num_gpus=0, num_cpus=num_cpus), 1 << 30)

    with _closed(Workers(folder, clip, launch, count)) as workers:
        yield workers


@contextmanager
def _closed(workers: Workers) -> Iterator[Workers]:
    try:
        yield workers
    finally:
        workers.scheduler.close()


def wait(jobs: Sequence[Job]) -> None:
    """Wait without a change of the jobs' ranks."""
    until(lambda: all(job.has_ended for job in jobs), WAIT)


def is_right(job: Job) -> bool:
    """Whether a job is done, and its box moves a pixel a frame, as the stub's do."""
    if job.state != "done" or job.resolved is None:
        return False
    frames = np.arange(job.progress()[1])
    boxes, _ = job.resolved.propagation.tracks()[OBJECT_TRACK].at(frames)
    return bool(np.allclose(boxes[:, 0], boxes[0, 0] + frames, atol=1e-3))
