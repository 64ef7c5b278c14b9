"""Measures jobs of one video that run together: `python benchmarks/together.py`.

The last line printed is one JSON object.

The engine is SAM3 with the shapes model, in a worker process; a pass is one run of the vision model. Seconds are those
of one run, on one machine: read the ratios.

passes_1, passes_4, passes_10   passes a frame for so many boxes asked at once.
cost_10                         seconds of ten boxes divided by those of one.
passes_staggered                passes a frame for ten boxes asked one after another, half a second apart.
passes_again                    passes a frame for ten more boxes on the same clip, whose features are cached.
passes_correction               passes a frame for a correction in the middle of a track.
first_answer_ratio              seconds until the first box has 10 frames while the nine others are asked, divided by
                                those that it takes alone.

.venv/bin/python benchmarks/together.py [--quick]
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import count, pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.engines import identify_engine, load_engine
from backend.engines.base import Engine
from backend.jobs.job import Job
from backend.jobs.metrics import Metrics
from backend.jobs.scheduler import Scheduler
from backend.jobs.spec import FramePrompts, JobSpec
from backend.jobs.store import Store
from backend.jobs.worker_client import WorkerClient
from backend.jobs.worker_launcher import process_launcher
from backend.jobs.worker_pool import WorkerPool
from backend.settings import Settings
from backend.shapes import EASY, HELD_OUT, Clip
from backend.video import VideoLimits

SETTINGS = Settings(engine="sam3", model_path="shapes", device="cpu")
SIZE = 320, 180
ENOUGH = 10
"""Frames after which a box counts as answered."""


def counting_engine(log: str) -> Engine:
    """The engine, which appends a byte to a file for every pass of its vision model."""
    engine: Any = load_engine(SETTINGS)
    encoder = engine.model.image_encoder
    encode = encoder._encode

    def counted(picture: Any) -> Any:
        with Path(log).open("ab") as file:
            file.write(b".")
        return encode(picture)

    encoder._encode = counted
    return engine  # type: ignore[no-any-return]


class Server:
    """The jobs of the clips in a folder, with a worker process; `passes` counts those of its vision model."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "passes"
        self._log.write_bytes(b"")
        # By the module's own name, under which the worker imports it; as a script it is called `__main__`.
        make = import_module("benchmarks.together").counting_engine
        launch = process_launcher(partial(make, str(self._log)), "warning")
        self.worker = WorkerClient(launch, *identify_engine(SETTINGS), 600.0)
        store = Store(folder / "jobs.sqlite3", 1 << 30, 30)
        self.scheduler = Scheduler(
            WorkerPool([self.worker]),
            store,
            lambda spec, _: folder / spec.url,
            lambda _: None,
            VideoLimits(),
            queue=64,
            metrics=Metrics(),
        )
        self._keys = count()
        self.worker.start()
        while self.worker.status != "ready":
            time.sleep(0.05)

    def passes(self) -> int:
        """Passes so far."""
        return self._log.stat().st_size

    def ask(self, clip: str, *prompts: FramePrompts) -> Job:
        """Ask for an object of a clip."""
        frames = [one.frame for one in prompts]
        intervals = (*pairwise(frames), (frames[-1], None))
        number = str(next(self._keys))
        spec = JobSpec(clip, "3", clip, 25.0, prompts=prompts, intervals=intervals)
        return self.scheduler.submit([number], number, spec)

    def close(self) -> None:
        """End the worker."""
        self.scheduler.close()


def wait(jobs: Sequence[Job]) -> None:
    """Wait for the ends of jobs."""
    while not all(job.wait(1.0) for job in jobs):
        pass
    assert all(job.state == "done" for job in jobs), [str(job.error) for job in jobs]


def box(number: int, frame: int = 1) -> FramePrompts:
    """One of many boxes, in percent."""
    return FramePrompts(frame, (3 + 8.0 * (number % 10), 5 + 7.0 * (number % 10), 20, 20, 0))


def measure(server: Server, clip: str, frames: int, boxes: int) -> tuple[float, float, float]:
    """Of so many boxes asked at once: passes a frame, seconds, and seconds until the first one's first frames."""
    before, begin = server.passes(), time.perf_counter()
    first, jobs = first_answer(server, clip, boxes - 1, 0.0)
    wait(jobs)
    return (server.passes() - before) / frames, time.perf_counter() - begin, first


def first_answer(server: Server, clip: str, others: int, gap: float) -> tuple[float, list[Job]]:
    """Seconds until the first of several boxes, asked with a gap between them, has its first frames."""
    begin = time.perf_counter()
    jobs, seconds = [server.ask(clip, box(0))], 0.0
    while len(jobs) <= others or not seconds:
        if len(jobs) <= others and time.perf_counter() - begin >= gap * len(jobs):
            jobs.append(server.ask(clip, box(len(jobs))))
        if not seconds and (jobs[0].progress()[0] >= ENOUGH or jobs[0].has_ended):
            seconds = time.perf_counter() - begin
        time.sleep(0.002)
    return seconds, jobs


def run(folder: Path, quick: bool) -> dict[str, float]:
    """All figures."""
    frames, gap = (24, 0.1) if quick else (200, 0.5)
    clips = [f"{number}.mp4" for number in range(4)]  # each is new to the server when it is asked for
    for clip in clips:
        Clip(HELD_OUT, replace(EASY, size=SIZE, frames=frames)).save(folder / clip)
    figures: dict[str, float] = {}
    seconds, first = dict[int, float](), dict[int, float]()
    with closing(Server(folder)) as server:
        for clip, boxes in zip(clips, (1, 4, 10), strict=False):
            passes, seconds[boxes], first[boxes] = measure(server, clip, frames, boxes)
            figures[f"passes_{boxes}"] = round(passes, 3)
            print(f"{boxes} boxes: {passes:.2f} passes a frame, {seconds[boxes]:.1f} s", flush=True)
        figures["cost_10"] = round(seconds[10] / seconds[1], 2)
        clip, before = clips[-1], server.passes()
        in_company, jobs = first_answer(server, clip, 9, gap)
        wait(jobs)
        figures["passes_staggered"] = round((server.passes() - before) / frames, 3)
        before = server.passes()
        wait([server.ask(clip, box(number, 2)) for number in range(10)])
        figures["passes_again"] = round((server.passes() - before) / frames, 3)
        before = server.passes()
        wait([server.ask(clip, box(0), box(0, frames // 2))])
        figures["passes_correction"] = round((server.passes() - before) / frames, 3)
    figures["first_answer_ratio"] = round(in_company / first[1], 2)
    return figures


def main() -> None:
    """Parse the arguments and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a clip of 24 frames")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(Path(folder), arguments.quick)))


if __name__ == "__main__":
    main()
