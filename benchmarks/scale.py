"""Measures how jobs spread over workers, and what one server bears: `python benchmarks/scale.py`.

The last line printed is one JSON object.

All is on this machine, with a stub in place of the model whose frames take 20 ms of sleep: what is measured is the
server's part, not the model's. Every job has a video of its own, unless its task has one. Nodes are those of a Ray
cluster on this machine; without Ray, what needs it is left out.

local_2, local_4, local_8   frames a second of so many worker processes, divided by those of one.
front_ms                    milliseconds of a core that the server's own process takes for a frame of one object, with
                            eight workers.
affinity                    of the jobs whose task's video another job had before, the share that ran on the worker that
                            has it, while three tasks for each of four workers ask again and again.
idle_while_waiting_s        seconds, meanwhile, for which a worker had nothing to do though a job waited.
kills                       worker processes, actors and nodes that were killed while they ran jobs, at random: 20, 20
                            and 10. Four processes, and four actors on two nodes; another worker is ready then.
lost_jobs                   jobs that did not end with the right track.
max_recomputed              most frames of a job that one of these kills cost.
resumed_s                   longest time until the next frame of a job that ran there, from when the server noticed the
                            end of the worker, or the cluster that of the node.
fetches_per_node            how often a video was sent to a node, for each node that has it, while all workers of two
                            nodes come to need it.
ray_2, ray_4                frames a second of so many actors, divided by those of one process.
ray_front_ms                as front_ms, with four actors.
ray_overhead                the part of a frame's time that one actor takes more than one process.
health_per_s, predict_per_s /health, and /predict with a new prompt, answered in a second; 16 clients ask at once.
pages                       live pages that are open at once; 8 of their tasks have jobs.
pages_core                  the share of a core that the server takes meanwhile.
pages_health_p99_ms         the 99th percentile of the time until /health is answered meanwhile.

.venv/bin/python benchmarks/scale.py [--quick] [local|affinity|kills|fetches|ray|front ...]
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.jobs.job import Job
from benchmarks.scale_parts import front, kills
from benchmarks.scale_parts.ray_nodes import HAS_RAY, RayNodes
from benchmarks.scale_parts.workers import Workers, actors, is_right, processes, wait
from tests.clips import write_clip

FRAMES = 200
"""Of every video. Their names are numbers."""


class Bench:
    """What the parts have in common.

    Args:
        folder: of temporary files.
    """

    def __init__(self, folder: Path, quick: bool) -> None:
        self.folder, self.quick = folder, quick

    @cached_property
    def nodes(self) -> RayNodes:
        """A cluster of two nodes, started when it is needed."""
        return RayNodes(self.folder, (kills.ROOM, kills.ROOM))

    def clip(self, frames: int) -> Path:
        """A video."""
        path = self.folder / f"{frames}.mp4"
        return path if path.exists() else write_clip(path, frames=frames, size=(64, 48)).path

    @property
    def short_clip(self) -> Path:
        """One that is shorter if it has to be quick."""
        return self.clip(50 if self.quick else FRAMES)

    def close(self) -> None:
        """End the cluster."""
        if "nodes" in self.__dict__:
            self.nodes.close()


def local(bench: Bench) -> dict[str, Any]:
    """Frames a second of several workers, against one."""
    speeds: dict[int, float] = {}
    for count in (1, 2, 4, 8):
        made = processes(bench.folder / f"local{count}", bench.short_clip, count)
        speeds[count], front_ms = speed(f"{count} processes", made, bench.quick)
    figures: dict[str, Any] = {f"local_{count}": round(speeds[count] / speeds[1], 2) for count in (2, 4, 8)}
    return figures | {"front_ms": round(front_ms, 3)}


def ray(bench: Bench) -> dict[str, Any]:
    """Actors against one process."""
    process, _ = speed("1 process", processes(bench.folder / "process", bench.short_clip, 1), bench.quick)
    assert bench.nodes
    speeds: dict[int, float] = {}
    for count in (1, 2, 4):
        made = actors(bench.folder / f"ray{count}", bench.short_clip, count)
        speeds[count], front_ms = speed(f"{count} actors", made, bench.quick)
    figures = {f"ray_{count}": round(speeds[count] / process, 2) for count in (2, 4)}
    return figures | {"ray_overhead": round(process / speeds[1] - 1, 3), "ray_front_ms": round(front_ms, 3)}


def speed(name: str, making: AbstractContextManager[Workers], quick: bool) -> tuple[float, float]:
    """Frames a second of workers that all have as much to do; and the server's milliseconds for a frame."""
    with making as workers:
        begin, spent = time.monotonic(), time.process_time()
        jobs = [workers.submit(number) for number in range(len(workers.pool.workers) * (1 if quick else 3))]
        wait(jobs)
        spent = time.process_time() - spent
        if not all(map(is_right, jobs)):
            raise RuntimeError("a job has not ended with the right track")
        lines = workers.lines()
    found = len(lines) / (lines[-1].at - begin)
    print(f"{name}: {found:.1f} frames/s", flush=True)
    return found, 1000 * spent / len(lines)


class IdleWatch(threading.Thread):
    """Adds up how long a worker had nothing to do though a job waited that no other worker was about to take."""

    def __init__(self, workers: Workers) -> None:
        super().__init__(daemon=True)
        self._workers, self.seconds = workers, 0.0
        self.ended = threading.Event()

    def run(self) -> None:
        queue, placement = self._workers.queue, self._workers.scheduler._runners._placement
        last, was_idle = time.monotonic(), False
        while not self.ended.wait(0.002):
            with queue.changed:
                is_idle = any(not slot.running and placement.next_to_run(slot) for slot in queue.slots)
            now = time.monotonic()
            self.seconds += (now - last) * (is_idle and was_idle)
            last, was_idle = now, is_idle


def affinity(bench: Bench) -> dict[str, Any]:
    """Many tasks whose jobs follow each other, and half of them come in pairs that run together."""
    count, rounds = 4, 6 if bench.quick else 12
    tasks = range(3 * count)
    at_home = whole = 0
    with processes(bench.folder / "affinity", bench.short_clip, count, 0.002 if bench.quick else 0.005) as workers:
        watch = IdleWatch(workers)
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
                number = min(left[task], 1 + task % 2)
                now[task] = [workers.submit(task, left[task] - place) for place in range(number)]
                left[task] -= number
            time.sleep(0.002)
        watch.ended.set()
        watch.join()
    print(f"{at_home} of {whole} jobs ran where their video was", flush=True)
    return {"affinity": round(at_home / whole, 3), "idle_while_waiting_s": round(watch.seconds, 3)}


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "local": local,
    "affinity": affinity,
    "kills": lambda bench: kills.measure(
        bench.folder, bench.clip(FRAMES), bench.nodes if HAS_RAY else None, bench.quick
    ),
    "fetches": lambda bench: kills.measure_fetches(bench.folder, bench.clip(FRAMES), bench.nodes),
    "ray": ray,
    "front": lambda bench: front.measure(bench.folder, bench.quick),
}
NEED_RAY = "fetches", "ray"
NOT_QUICK = ("ray",)


def main() -> None:
    """Parse the arguments and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="what to measure; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer jobs, frames and kills, and without ray")
    arguments = parser.parse_args()
    parts = arguments.parts or [part for part in PARTS if not (arguments.quick and part in NOT_QUICK)]
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.quick)
        try:
            for part in parts:
                if part in NEED_RAY and not HAS_RAY:
                    print(f"{part} is left out: pip install -e '.[ray]'", flush=True)
                else:
                    figures |= PARTS[part](bench)
        finally:
            bench.close()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
