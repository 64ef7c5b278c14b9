"""Measures how jobs spread over workers: `python benchmarks/scale.py`.

The last line printed is one JSON object.

Workers are processes on this machine, with a stub in place of the model whose frames take 20 ms of sleep: what is
measured is the scheduler's part, not the model's. Every job has a video of its own, unless its task has one.

local_2, local_4, local_8   frames a second of so many workers, divided by those of one.
front_ms                    milliseconds of a core that the server's own process takes for a frame of one object, with
                            eight workers.
affinity                    of the jobs whose task's video another job had before, the share that ran on the worker that
                            has it, while three tasks for each of four workers ask again and again.
idle_while_waiting_s        seconds, meanwhile, for which a worker had nothing to do though a job waited.
kills                       workers that were killed while they ran a job, at random, of four.
lost_jobs                   jobs that did not end with the right track.
max_recomputed              most frames of a job that one of these kills cost.
resumed_s                   longest time from a kill until the next frame of a job that ran there.
ray_2, ray_4                with `ray`: frames a second of so many Ray actors, divided by those of one process.
ray_front_ms                as front_ms, with four actors.
ray_overhead                the part of a frame's time that one actor takes more than one process.
ray_kills, ray_lost_jobs, ray_max_recomputed, ray_resumed_s
                            with `ray_kills`: as above, of 20 actors.

.venv/bin/python benchmarks/scale.py [--quick] [local|affinity|kills|ray|ray_kills ...]
"""

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.jobs.job import Job
from backend.jobs.metrics import Metrics
from backend.jobs.scheduler import Scheduler
from backend.jobs.slots import Slot
from backend.jobs.spec import OBJECT_TRACK, FramePrompts, JobSpec
from backend.jobs.store import Store
from backend.jobs.worker_client import WorkerClient
from backend.jobs.worker_launcher import process_launcher
from backend.jobs.worker_link import WorkerLauncher
from backend.jobs.worker_pool import WorkerPool
from backend.tracks.track import FrameResult
from backend.video import Video, VideoLimits
from backend.worker_settings import RaySettings
from benchmarks.jobs_parts.kills import recomputed
from benchmarks.jobs_parts.servers import until
from tests.clips import write_clip
from tests.fakes import StubEngine, StubSession

FRAME_SECONDS = 0.02
KILLED_FRAME_SECONDS = 0.004
"""Shorter, so that frames between two states of a session are computed before a kill."""
FRAMES = 200
"""Of every video. Their names are numbers."""
SEED = 6
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


class Line(NamedTuple):
    """One of the log."""

    video: int
    frame: int
    at: float


class Cluster:
    """A scheduler with workers, all ready: processes, or Ray actors."""

    def __init__(self, folder: Path, clip: Path, workers: int, seconds: float, *, on_ray: bool = False) -> None:
        folder.mkdir()
        self._folder, self._clip, self.log = folder, clip, folder / "log"
        from benchmarks import scale  # the workers cannot import what is in __main__

        make: Any = partial(scale.logging_engine, seconds, str(self.log))
        launch = ray_launcher(make) if on_ray else process_launcher(make, "error")
        self.pool = WorkerPool(
            [WorkerClient(launch, "stub", "1", 60.0, device=f"worker {number}") for number in range(workers)]
        )
        store = Store(folder / "jobs.sqlite3", 1 << 40, 30)
        self.scheduler = Scheduler(self.pool, store, self._fetch, print, VideoLimits(), queue=10_000, metrics=Metrics())
        self.queue = self.scheduler._queue
        self.pool.start()
        if not until(lambda: all(worker.status == "ready" for worker in self.pool.workers), WAIT):
            raise RuntimeError("a worker does not start")

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


def ray_launcher(make: Callable[[], Any]) -> WorkerLauncher:
    """Actors that want few of the cores, as their frames sleep."""
    from backend.jobs import ray_link

    return ray_link.ray_launcher(make, "error", RaySettings(num_gpus=0, num_cpus=0.4), 1 << 30)


@contextmanager
def cluster(
    folder: Path, clip: Path, workers: int, seconds: float = FRAME_SECONDS, *, on_ray: bool = False
) -> Iterator[Cluster]:
    """A cluster that is closed at the end."""
    made = Cluster(folder, clip, workers, seconds, on_ray=on_ray)
    try:
        yield made
    finally:
        made.scheduler.close()


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


def local(folder: Path, clip: Path, quick: bool) -> dict[str, Any]:
    """Frames a second of several workers, against one."""
    speeds: dict[int, float] = {}
    for workers in (1, 2, 4, 8):
        speeds[workers], front_ms = speed(folder / f"local{workers}", clip, workers, quick)
    figures: dict[str, Any] = {f"local_{workers}": round(speeds[workers] / speeds[1], 2) for workers in (2, 4, 8)}
    return figures | {"front_ms": round(front_ms, 3)}


def on_ray(folder: Path, clip: Path, quick: bool) -> dict[str, Any]:
    """Ray actors against one process."""
    from backend.jobs import ray_link

    process, _ = speed(folder / "process", clip, 1, quick)
    ray_link.connect(RaySettings(num_gpus=0))
    speeds: dict[int, float] = {}
    for workers in (1, 2, 4):
        speeds[workers], front_ms = speed(folder / f"ray{workers}", clip, workers, quick, on_ray=True)
    ray_link.disconnect()
    figures = {f"ray_{workers}": round(speeds[workers] / process, 2) for workers in (2, 4)}
    return figures | {"ray_overhead": round(process / speeds[1] - 1, 3), "ray_front_ms": round(front_ms, 3)}


def speed(folder: Path, clip: Path, workers: int, quick: bool, *, on_ray: bool = False) -> tuple[float, float]:
    """Frames a second of so many workers, which all have as much to do; and the server's milliseconds for a frame."""
    with cluster(folder, clip, workers, on_ray=on_ray) as made:
        begin, spent = time.monotonic(), time.process_time()
        jobs = [made.submit(number) for number in range(workers * (1 if quick else 3))]
        wait(jobs)
        spent = time.process_time() - spent
        assert all(map(is_right, jobs))
        lines = made.lines()
    found = len(lines) / (lines[-1].at - begin)
    print(f"{workers} {'actors' if on_ray else 'processes'}: {found:.1f} frames/s", flush=True)
    return found, 1000 * spent / len(lines)


class IdleWatch(threading.Thread):
    """Adds up how long a worker had nothing to do though a job waited that no other worker was about to take."""

    def __init__(self, made: Cluster) -> None:
        super().__init__(daemon=True)
        self._made, self.seconds = made, 0.0
        self.ended = threading.Event()

    def run(self) -> None:
        queue, placement = self._made.queue, self._made.scheduler._runners._placement
        last, was_idle = time.monotonic(), False
        while not self.ended.wait(0.002):
            with queue.changed:
                is_idle = any(not slot.running and placement.next_to_run(slot) for slot in queue.slots)
            now = time.monotonic()
            self.seconds += (now - last) * (is_idle and was_idle)
            last, was_idle = now, is_idle


def affinity(folder: Path, clip: Path, quick: bool) -> dict[str, Any]:
    """Many tasks whose jobs follow each other, and half of them come in pairs that run together."""
    workers, rounds = 4, 6 if quick else 12
    tasks = range(3 * workers)
    at_home = whole = 0
    with cluster(folder / "affinity", clip, workers, 0.002 if quick else 0.005) as made:
        watch = IdleWatch(made)
        watch.start()
        now: dict[int, list[Job]] = {task: [] for task in tasks}
        homes: dict[int, str] = {}
        left = dict.fromkeys(tasks, rounds)
        while any(left.values()) or any(now.values()):
            for task in tasks:
                if not all(job.has_ended for job in now[task]):
                    continue
                for job in now[task] if all(left.values()) else ():  # later, there are not enough jobs for all
                    whole += task in homes
                    at_home += homes.get(task) == job.worker
                if now[task]:
                    homes[task] = now[task][-1].worker
                count = min(left[task], 1 + task % 2)
                now[task] = [made.submit(task, left[task] - number) for number in range(count)]
                left[task] -= count
            time.sleep(0.002)
        watch.ended.set()
        watch.join()
    print(f"{at_home} of {whole} jobs ran where their video was", flush=True)
    return {"affinity": round(at_home / whole, 3), "idle_while_waiting_s": round(watch.seconds, 3)}


class Kill(NamedTuple):
    """A worker that was killed: when, and the tasks of its jobs."""

    at: float
    tasks: tuple[int, ...]


def kills(folder: Path, clip: Path, quick: bool) -> dict[str, Any]:
    """Kill worker processes."""
    with cluster(folder / "kills", clip, 4, KILLED_FRAME_SECONDS) as made:
        return while_jobs_run(made, 4 if quick else 50)


def ray_kills(folder: Path, clip: Path, quick: bool) -> dict[str, Any]:
    """Kill actors."""
    from backend.jobs import ray_link

    ray_link.connect(RaySettings(num_gpus=0))
    with cluster(folder / "ray", clip, 4, KILLED_FRAME_SECONDS, on_ray=True) as made:
        figures = while_jobs_run(made, 4 if quick else 20)
    ray_link.disconnect()
    return {f"ray_{name}": value for name, value in figures.items()}


def while_jobs_run(made: Cluster, count: int) -> dict[str, Any]:
    """Kill so many times while jobs run, of which some always wait."""
    rng, done, jobs = random.Random(SEED), list[Kill](), list[Job]()
    while len(done) < count:
        while sum(not job.has_ended for job in jobs) < 8:
            jobs.append(made.submit(len(jobs)))
        time.sleep(rng.uniform(0.1, 0.5))
        if kill := kill_worker(made, rng):
            done.append(kill)
    wait(jobs)
    lost = [job.number for job in jobs if not is_right(job)]
    lines = made.lines()
    costs, resumed = [0], [0.0]
    for task in sorted({task for kill in done for task in kill.tasks}):
        own = [line for line in lines if line.video == task]
        moments = [kill.at for kill in done if task in kill.tasks]
        marks = [sum(line.at <= at for line in own) for at in moments]
        costs += recomputed([line.frame for line in own], marks)
        resumed += [next((line.at - at for line in own if line.at > at), 0.0) for at in moments]
    print(f"{len(jobs)} jobs; a kill cost at most {max(costs)} frames, and {max(resumed):.2f} s", flush=True)
    figures = {"kills": len(done), "lost_jobs": len(lost)}
    return figures | {"max_recomputed": max(costs), "resumed_s": round(max(resumed), 2)}


def kill_worker(made: Cluster, rng: random.Random) -> Kill | None:
    """Kill one of the workers, if there is one whose jobs have advanced since they lost another."""

    def has_begun(slot: Slot) -> bool:
        is_ready = made.pool.workers[slot.number].status == "ready"
        has_advanced = bool(slot.running) and not any(job.worker_deaths for job in slot.running)
        return has_advanced and is_ready and time.monotonic() - slot.changed_at > 0.1

    with made.queue.changed:
        slots = [slot for slot in made.queue.slots if has_begun(slot)]
    return note_death(made, rng.choice(slots)) if slots else None


def note_death(made: Cluster, slot: Slot) -> Kill:
    """Kill a worker; which jobs that hit."""
    worker = made.pool.workers[slot.number]
    with made.queue.changed:
        tasks = tuple(int(job.row.spec.task) for job in slot.running)
    link = worker._link
    worker.kill()
    until(lambda: worker._link is not link, 30)
    return Kill(time.monotonic(), tasks)


PARTS: dict[str, Callable[[Path, Path, bool], dict[str, Any]]] = {
    "local": local,
    "affinity": affinity,
    "kills": kills,
    "ray": on_ray,
    "ray_kills": ray_kills,
}
BY_NAME = "ray", "ray_kills"
"""They need Ray, and are measured only if they are named."""


def main() -> None:
    """Parse the arguments and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="what to measure; default: all but those of Ray")
    parser.add_argument("--quick", action="store_true", help="fewer jobs and frames, 4 kills")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = {
            frames: write_clip(folder / f"{frames}.mp4", frames=frames, size=(64, 48)).path for frames in (50, FRAMES)
        }
        for part in arguments.parts or [part for part in PARTS if part not in BY_NAME]:
            frames = 50 if arguments.quick and not part.endswith("kills") else FRAMES
            figures |= PARTS[part](folder, clips[frames], arguments.quick)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
