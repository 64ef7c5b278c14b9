"""A scheduler in this process: memory errors, fairness, thousands of jobs, and what a worker's process costs."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count as numbers_from
from pathlib import Path
from typing import Any

import numpy as np

from backend.jobs.job import Job
from backend.jobs.messages import Chunk, RunEnd, StartRun
from backend.jobs.metrics import Metrics
from backend.jobs.schedule import Progress
from backend.jobs.scheduler import Scheduler
from backend.jobs.spec import FramePrompts, JobSpec
from backend.jobs.store import Store
from backend.jobs.video_fetcher import FetchVideo
from backend.jobs.worker_client import WorkerClient
from backend.jobs.worker_launcher import process_launcher
from backend.jobs.worker_pool import WorkerPool
from backend.video import Video, VideoLimits
from benchmarks.jobs_parts.requests import URL, milliseconds
from benchmarks.jobs_parts.servers import until
from tests.clips import write_clip
from tests.fakes import sleeping_engine, starved_engine


@contextmanager
def scheduler(
    folder: Path, fetch: FetchVideo, make: Callable[[], Any]
) -> Iterator[tuple[Scheduler, Store, WorkerClient]]:
    """A scheduler in this process."""
    worker = WorkerClient(process_launcher(make, "error"), "stub", "1", 600.0)
    store = Store(folder / "jobs.sqlite3", 1 << 40, 30)
    made = Scheduler(WorkerPool([worker]), store, fetch, print, VideoLimits(), queue=64, metrics=Metrics())
    try:
        yield made, store, worker
    finally:
        made.close()


def boxed(task: int, number: int) -> JobSpec:
    """A job for one of a task's boxes."""
    shown = (FramePrompts(1, (1 + number % 80, 20, 12, 15, 0)),)
    return JobSpec(str(task), "3", URL, 25.0, prompts=shown, intervals=((1, None),))


def ooms(folder: Path, quick: bool) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    count, clip = 5 if quick else 500, write_clip(folder / "clip.mp4", frames=150, size=(64, 48)).path
    failed, done, starts = 0, list[Job](), set[int]()
    with scheduler(folder / "starved", lambda *_: clip, partial(starved_engine, 40)) as (made, store, worker):
        while failed < count:
            job = made.submit([str(len(done))], "1", boxed(7, len(done)))
            made.wait([job], 60)
            starts.add(getattr(worker._link, "pid", 0))
            failed += job.state == "failed" and "no memory" in str(job.error)
            done += [job] if job.state == "done" else []
        starved = [results_of(store, job.number) for job in done]
    with scheduler(folder / "alone", lambda *_: clip, partial(sleeping_engine, 0.0)) as (made, store, _):
        jobs = [made.submit([str(number)], "1", boxed(7, number), batch=True) for number in range(len(done))]
        made.wait(jobs, 600)
        alone = [results_of(store, job.number) for job in jobs]
    return {"ooms": failed, "survived": starts == {*list(starts)[:1]} and starved == alone}


def waiting(folder: Path, quick: bool) -> dict[str, Any]:
    """Thousands of batch jobs wait for their videos, which do not come."""
    count, is_over = 1_000 if quick else 10_000, threading.Event()

    def fetch(*_: object) -> Path:
        is_over.wait()
        return folder / "none"

    def seconds(action: Callable[[], object]) -> float:
        begin = time.perf_counter()
        action()
        return time.perf_counter() - begin

    with scheduler(folder, fetch, partial(sleeping_engine, 0.0)) as (made, *_):
        submits = [
            seconds(partial(made.submit, [str(number)], "1", boxed(number % 100, number), batch=True))
            for number in range(count)
        ]
        lists = [seconds(partial(made.jobs, 50)) for _ in range(20)]
    restart = time.perf_counter()
    with scheduler(folder, fetch, partial(sleeping_engine, 0.0)) as (made, *_):
        restarted = time.perf_counter() - restart
        assert made.counts()["waiting"] == count
    is_over.set()
    return {
        "waiting": count,
        "submit_ms": milliseconds(submits[-count // 10 :]),
        "list_ms": milliseconds(lists),
        "restart_waiting_s": round(restarted, 2),
    }


def results_of(store: Store, number: int) -> tuple[list[int], bytes]:
    """The frames and the rows of a job of one box."""
    blocks = [block for _, block in store.blocks(number)]
    frames = [frame for block in blocks for frame in block.frames]
    return frames, np.concatenate([block.rows for block in blocks], axis=1).tobytes()


def fairness(folder: Path, quick: bool) -> dict[str, Any]:
    seconds, clip = 1 if quick else 60, write_clip(folder / "clip.mp4", frames=10, size=(64, 48)).path
    for task in range(10):  # each task has a video of its own
        (folder / f"{task}.mp4").symlink_to(clip)
    jobs: dict[int, list[Job]] = {task: [] for task in range(10)}
    make = partial(sleeping_engine, 0.004)
    with scheduler(folder, lambda spec, _: folder / f"{spec.task}.mp4", make) as (made, _, worker):
        until(lambda: worker.status == "ready", 60)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for task, own in jobs.items():
                while sum(job.state == "queued" for job in own) < (20 if task == 0 else 2):
                    own.append(made.submit([str(task), str(len(own))], "1", boxed(task, len(own))))
            time.sleep(0.01)
        frames = [sum(job.progress()[0] for job in own) for own in jobs.values()]
    print(f"frames of each task in {seconds} s: {frames}")
    return {"fairness": round(sum(frames) ** 2 / (len(frames) * sum(count**2 for count in frames)), 4)}


def boundary(folder: Path, quick: bool) -> dict[str, Any]:
    clip = write_clip(folder / "clip.mp4", frames=150, size=(64, 48)).path
    spec = JobSpec("7", "3", URL, 25.0, prompts=(FramePrompts(1, (10, 20, 12, 15, 0)),), intervals=((1, None),))
    make: Any = partial(sleeping_engine, 0.005)
    worker, limits, engine = WorkerClient(process_launcher(make, "warning"), "stub", "1", 60.0), VideoLimits(), make()
    video_info, run_ids = worker.open(clip, limits), numbers_from(1)

    def local(video: Video) -> None:
        for _ in spec.resolve(video_info).propagation.run(engine, video):
            pass

    def remote(_: Video) -> None:
        propagation = spec.resolve(video_info).propagation
        worker.start_run(StartRun(next(run_ids), propagation.schedule, Progress(), None, folder / "state"))
        while not isinstance(reply := worker.next_reply(), RunEnd):
            if isinstance(reply, Chunk):
                for one in reply.blocks:
                    propagation.add(reply.pass_index, one)
                if reply.state is not None:
                    worker.acknowledge(reply.run_id)
        assert propagation.done == len(video_info.times)

    speeds: dict[Callable[[Video], None], list[float]] = {local: [], remote: []}
    with Video(clip, limits) as video:
        for _ in range(1 if quick else 15):
            for way, measured in speeds.items():
                begin = time.perf_counter()
                way(video)
                measured.append(len(video) / (time.perf_counter() - begin))
    worker.close()
    here, there = (statistics.median(measured) for measured in speeds.values())
    print(f"{here:.1f} frames/s in this process, {there:.1f} in a worker")
    return {"boundary_cost": round(1 - there / here, 4)}
