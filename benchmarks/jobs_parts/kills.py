"""A server and its worker that are killed at random moments."""

import json
import os
import random
import re
import shutil
import signal
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from backend.engines import load_engine
from backend.jobs.rows import JobRow
from backend.jobs.spec import JobSpec
from backend.jobs.store import Store
from backend.shapes import EASY, HELD_OUT, Clip
from benchmarks.jobs_parts.logged_engine import CONTINUE, FrameLog
from benchmarks.jobs_parts.replay import Seen, replay, seen_tracks
from benchmarks.jobs_parts.requests import SEED, SERIES, Series, ask, is_accepted
from benchmarks.jobs_parts.servers import SHAPES, Server, is_alive, place_clip, until

_EARLY = 8
"""A worker that is killed before it has done so many frames may have saved nothing."""
_RECIPE = replace(EASY, size=(320, 180), things=(3, 3), strays=0.0)
_PHRASE = "circle"

F = TypeVar("F", bound=Hashable)
Results = dict[int, dict[int, Seen]]
"""By job and frame."""


class Asking(threading.Thread):
    """Asks for one job after the other, so that some always wait, and asks again where nobody answers."""

    def __init__(self, server: Server, log: FrameLog, series: Series, most: int) -> None:
        super().__init__(daemon=True)
        self._server, self._log, self._series, self._most = server, log, series, most
        self.accepted: list[int] = []
        self.ended = threading.Event()

    def _is_over(self, number: int) -> bool:
        return self.ended.is_set() or self._is_due(number)

    def run(self) -> None:
        for number in range(self._most):
            until(partial(self._is_over, number), 1e9)
            while not self.ended.is_set():
                if is_accepted(ask(self._server.port, self._series[number])):
                    self.accepted.append(number)
                    break
                time.sleep(0.05)

    def _is_due(self, number: int) -> bool:
        return number * self._series.frames < self._log.count() + 6 * self._series.frames


class Killing:
    """Kills a server and its worker, one of them at a time.

    Attributes:
        marks: frames that were logged when each kill had come to pass.
        restarts: seconds until a killed server answered again.
    """

    def __init__(self, server: Server, log: FrameLog) -> None:
        self._server, self._log = server, log
        self._rng = random.Random(SEED)
        self._is_early = False
        self._running: dict[int, int] = {}  # frames done of each job
        self._in_a_row: dict[int, tuple[int, int]] = {}  # of each job that ran: frames done, and kills since then
        self.marks: list[int] = []
        self.restarts = [0.0]

    def kill(self) -> None:
        """Once more, at a random moment: mostly of work, at times of a start."""
        worker, is_servers = self._moment(), self._rng.random() < 0.4
        until(self._may_kill, 60)
        for number in self._running:
            self._in_a_row[number] = self._in_a_row[number][0], self._in_a_row[number][1] + 1
        if worker is None or is_servers:
            self._is_early = False
            self._restart(worker)
        else:
            os.kill(worker, signal.SIGKILL)
            until(lambda: not is_alive(worker), 5)
            self.marks.append(len(self._log.frames()))

    def _may_kill(self) -> bool:
        """Whether no running job has seen two kills without a frame in between; a third one is taken for its fault."""
        told = json.loads(ask(self._server.port, ("/jobs", None))[3])["jobs"]
        self._running = {job["id"]: job["done"] for job in told if job["state"] == "running"}
        for number, done in self._running.items():
            if self._in_a_row.get(number, (-1, 0))[0] != done:
                self._in_a_row[number] = done, 0
        return all(self._in_a_row[number][1] < 2 for number in self._running)

    def _moment(self) -> int | None:
        done = self.marks[-1] if self.marks else 0
        due = _EARLY if self._is_early else self._rng.random() < 0.8
        until(lambda: len(self._log.frames()) >= done + due, 60)
        time.sleep(self._rng.uniform(0, 0.4))
        self._is_early = len(self._log.frames()) < done + _EARLY
        return self._server.worker()

    def _restart(self, worker: int | None) -> None:
        self._server.kill()
        begin = time.perf_counter()
        self._server.launch()
        if worker and not until(lambda: not is_alive(worker), 5):
            raise RuntimeError("a worker outlives its server")
        self.marks.append(len(self._log.frames()))
        self._server.opened()
        self.restarts.append(time.perf_counter() - begin)


def recomputed(frames: Sequence[F], marks: Sequence[int], job_of: Callable[[F], str] = lambda frame: "") -> list[int]:
    """How many frames each kill has cost a job at most; last, how many were computed again though nobody was killed."""
    costs, last = [Counter[str]() for _ in range(len(marks) + 1)], dict[F, int]()
    for place, frame in enumerate(frames):
        if frame in last:
            by = bisect_right(marks, last[frame])
            costs[by if by < len(marks) and marks[by] <= place else -1][job_of(frame)] += 1
        last[frame] = place
    return [max(cost.values(), default=0) for cost in costs]


def number_of(row: JobRow) -> int:
    """Which of a series a job is."""
    return int(re.sub(r"\D", "", row.key.rpartition(",")[2]))


def saved_results(folder: Path) -> Results:
    """The results of every job that is done, by its number."""
    results: Results = {}
    with closing(Store(folder / "jobs.sqlite3", 1 << 40, 30)) as store:
        for row in store.latest(10**6):
            blocks = [block for _, block in store.blocks(row.number)]
            if row.state == "done":
                frames = (zip(block.frames, seen_tracks(block), strict=True) for block in blocks)
                results[number_of(row)] = {frame: seen for block in frames for frame, seen in block}
    return results


def read_specs(folder: Path) -> dict[int, JobSpec]:
    """What every job was asked, by its number."""
    with closing(Store(folder / "jobs.sqlite3", 1 << 40, 30)) as store:
        return {number_of(row): row.spec for row in store.latest(10**6)}


def kill_and_restart(
    folder: Path, series: Series, count: int, most: int, **asked: Any
) -> tuple[dict[str, Any], list[int], Results]:
    """Kill a server of the clip in a folder so many times; figures, the accepted jobs, and the results of all."""
    log = FrameLog(folder / "log")
    server = Server.stub(folder, frames=series.frames, log=str(folder / "log"), **asked)
    asking, killing = Asking(server, log, series, most), Killing(server, log)
    asking.start()
    for _ in range(count):
        killing.kill()
    asking.ended.set()
    asking.join()
    server.idle()
    server.close()
    costs = recomputed(log.frames(), killing.marks, lambda frame: frame.partition(" ")[2])
    together = Counter(len(line.split()) - 1 for line in log.lines() if CONTINUE not in line)
    print(f"{len(asking.accepted)} jobs; frames by jobs that went together: {dict(sorted(together.items()))}")
    print(f"recomputed frames of a job by each kill, at last without one: {costs}")
    results = saved_results(folder)
    figures = {
        "kills": len(killing.marks),
        "lost_jobs": sum(number not in results for number in asking.accepted),
        "max_recomputed": max(costs),
        "restart_s": round(max(killing.restarts), 2),
    }
    return figures, asking.accepted, results


def kill_stub(folder: Path, count: int) -> dict[str, Any]:
    """The stub; what is on disk is compared with an undisturbed run."""
    most = count // 2 + 12
    place_clip(folder / "killed", SERIES.clip_frames(most))
    shutil.copytree(folder / "killed", folder / "alone")
    figures, accepted, done = kill_and_restart(folder / "killed", SERIES, count, most, seconds=0.004)
    alone = Server.stub(folder / "alone")
    for number in accepted:
        assert until(partial(_accepts, alone, number), 60)  # the queue may be full
    alone.idle()
    alone.close()
    right = saved_results(folder / "alone")
    return figures | {"bytes_equal": all(done.get(number) == right[number] for number in accepted)}


def kill_shapes(folder: Path, count: int) -> dict[str, Any]:
    """SAM3 with the shapes model; what is on disk is compared with the same sets of jobs, frame by frame."""
    series, most = Series(60, 40, _PHRASE), count // 2 + 12
    place_clip(folder, series.clip_frames(most), _write_shapes)
    figures, accepted, done = kill_and_restart(folder, series, count, most, engine="shapes")
    (clip,) = (path for path in (folder / "media").iterdir() if not path.suffix)
    computed = replay(load_engine(SHAPES), clip, read_specs(folder), FrameLog(folder / "log").lines())
    equal = sum(_is_among(done.get(number, {}), computed[number]) for number in accepted)
    print(f"{equal} of {len(accepted)} jobs have the bytes of their sets")
    return figures | {"bytes_equal": equal == len(accepted)}


def _write_shapes(path: Path, frames: int) -> None:
    Clip(HELD_OUT, replace(_RECIPE, frames=frames)).save(path)


def _is_among(kept: Mapping[int, Seen], computed: Mapping[int, Sequence[Seen]]) -> bool:
    """Whether each frame is as it was computed, once or again."""
    return kept.keys() == computed.keys() and all(kept[frame] in computed[frame] for frame in kept)


def _accepts(server: Server, number: int) -> bool:
    return is_accepted(ask(server.port, SERIES[number]))


def kills(folder: Path, quick: bool) -> dict[str, Any]:
    stub = kill_stub(folder / "stub", 5 if quick else 950)
    if quick:
        return stub
    shapes = kill_shapes(folder / "shapes", 50)
    print(f"the stub: {stub}; SAM3 with the shapes model: {shapes}")
    return {
        "kills": stub["kills"] + shapes["kills"],
        "lost_jobs": stub["lost_jobs"] + shapes["lost_jobs"],
        "max_recomputed": max(stub["max_recomputed"], shapes["max_recomputed"]),
        "bytes_equal": stub["bytes_equal"] and shapes["bytes_equal"],
        "restart_s": max(stub["restart_s"], shapes["restart_s"]),
    }
