"""Measures a worker, its queue and its storage: `python benchmarks/jobs.py`. The last line printed is one JSON object.

The engine is a stub that only sleeps, so the figures show the cost of everything else.

load      16 clients send requests at once, first while the model loads, then with the queue full; `late` are
          the answers of /health after more than 1 s, of /setup after 3 s, of /predict 1 s after `response_timeout`.
          `floor_p99_ms`: the same for a bare Flask route with the same clients. `predict_over_budget_ms`:
          the 99th percentile of the time that /predict takes beyond `response_timeout`.
kills     the server or its worker is killed with SIGKILL at random moments, and a killed server is restarted
          (`restart_s`: the longest until it answers). Accepted are the jobs whose /predict was answered with 200; when
          all has ended, what is on disk is compared with an undisturbed run. A frame that is computed again
          counts for the first kill after it was last computed.
store     50 tracks found by text, on 100,000 frames: their size on disk, and the seconds to open the file and load
          them.
answers   50 tracks found by text, on 100,000 frames, whose job has ended: seconds until /predict is answered, the
          first time after a restart and once more; `answer_late_s` is beyond `response_timeout`.
ooms      jobs whose device runs out of memory every 40 frames, each asked again until it is done; `survived`: the
          worker never ended, and the results are those of a device that had room.
fairness  ten tasks always have jobs waiting, one of them ten times as many: Jain's index of their frames computed.
big_state states of 1 GB, and a worker that is killed: the job continued from one, and how much later than
          `response_timeout` /predict was answered meanwhile (99th percentile).
trouble   another process holds the database while jobs run, then a part of it is overwritten: accepted jobs that are
          not done in the end, whether /health told both, and the 99th percentile of its answers meanwhile.
boundary  frames per second of an engine in this process and in a worker, in turns; `boundary_cost` is the loss.

.venv/bin/python benchmarks/jobs.py [--quick] [--parts load kills …]
"""

import argparse
import hashlib
import http.client
import json
import os
import random
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import count as numbers_from
from pathlib import Path
from typing import Any

import numpy as np
from flask import Flask, jsonify
from numpy.typing import NDArray
from waitress.server import create_server

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from backend.commands import serve
from backend.jobs.ended_results import EndedResults
from backend.jobs.job import Job, restore
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
from backend.jobs.worker_run import SAVED_FRAMES
from backend.predict.results import TextResult
from backend.settings import Limits, Settings
from backend.tracks.frame_range import ALL_FRAMES
from backend.tracks.track import ResultBlock
from backend.video import Video, VideoInfo, VideoLimits
from tests.clips import write_clip
from tests.fakes import heavy_engine, sleeping_engine, starved_engine
from tests.labelstudio.bodies import body, drawn, keyframe

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = 16
WITHIN = 0.3
"""`response_timeout` of the server that is asked."""
LIMITS = {"/health": 1.0, "/setup": 3.0, "/predict": WITHIN + 1.0}
URL = "http://clips.invalid/clip.mp4"
CONFIG = (ROOT / "label_config.xml").read_text()
SEED = 6
FRAMES = 200
"""Of each job that is killed; each has frames of its own, by which the worker's log tells it from the others."""
_EARLY = 8
"""A worker that is killed before it has done so many frames may have saved nothing."""

Asked = tuple[str, dict[str, Any] | None]
"""A path, and what is posted to it; None: GET."""
Answered = tuple[str, float, int, bytes]
"""Path, seconds, status (0: none came) and body."""


# Servers


def serve_stub(text: str) -> None:
    """A server whose worker has the stub, in a process of its own."""
    asked = json.loads(text)
    log = Path(asked["log"]) if asked["log"] else None
    settings = Settings(
        data_dir=Path(asked["folder"]),
        port=0,
        response_timeout=asked["within"],
        max_frames=asked["frames"] - 1,
        limits=Limits(queue=asked["queue"]),
    )
    make: Any = partial(sleeping_engine, asked["seconds"], log, asked["load"])
    if asked["state"]:
        make = partial(heavy_engine, asked["seconds"], log, asked["state"])
    serve.run(settings, WorkerPool([WorkerClient(process_launcher(make, "warning"), "stub", "1", 600.0)]))


def serve_floor() -> None:
    """What Flask and waitress take for themselves."""
    app = Flask("floor")
    app.get("/health")(lambda: jsonify({"status": "UP"}))
    server: Any = create_server(app, host="127.0.0.1", port=0, threads=96, ident=None, asyncore_use_poll=True)
    print(f"floor on 127.0.0.1:{server.effective_port}", flush=True)
    server.run()


class Server:
    """A server in a process of its own, which may be killed and started again; `call` is what that process does."""

    def __init__(self, call: str, stderr: Path) -> None:
        self._call, self._stderr = call, stderr
        self.launch()
        self.opened()

    @classmethod
    def stub(cls, folder: Path, **asked: Any) -> "Server":
        """Serves the clip in `folder`, which is there already as one that was fetched."""
        whole = {"seconds": 0.0, "log": None, "load": 0.0, "within": 0.0, "frames": FRAMES, "queue": 64, "state": 0}
        text = json.dumps(whole | {"folder": str(folder)} | asked)
        return cls(f"serve_stub({text!r})", folder / "stderr")

    def launch(self) -> None:
        """Start the process."""
        with self._stderr.open("a") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"from benchmarks.jobs import *; {self._call}"],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    def opened(self) -> None:
        """Wait until it answers."""
        assert self.process.stdout
        with self.process.stdout as lines:
            told = next((line for line in lines if " on 127.0.0.1:" in line), None)
        if told is None:
            raise RuntimeError(f"a server did not start: {self._stderr.read_text()[-2000:]}")
        self.port = int(told.rpartition(":")[2])
        assert ask(self.port, ("/health", None))[2] == 200

    def worker(self) -> int | None:
        """The worker's process; others open videos."""
        return next((child for child in children(self.process.pid) if is_worker(child)), None)

    def idle(self) -> None:
        """Wait until no job waits or runs."""
        while any(json.loads(ask(self.port, ("/health", None))[3])["jobs"].values()):
            time.sleep(0.1)

    def close(self) -> None:
        """End it as people do."""
        self.process.terminate()
        self.process.wait()


def children(parent: int) -> Iterator[int]:
    """The living processes that a process has started."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, above = stat.read_text().rpartition(")")[2].split()[:2]
            if int(above) == parent and state not in "ZX":
                yield int(stat.parent.name)


def is_worker(process: int) -> bool:
    """It runs an engine."""
    with suppress(OSError):
        return b"backend.jobs.worker" in Path(f"/proc/{process}/cmdline").read_bytes()
    return False


def is_alive(process: int) -> bool:
    """It has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def until(condition: Callable[[], object], seconds: float) -> bool:
    """Wait until it is so; False: it was not by then."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def place_clip(folder: Path, frames: int) -> None:
    """Put the clip where a server keeps what it has fetched."""
    (folder / "media").mkdir(parents=True)
    clip = folder / "clip.mp4"
    write_clip(clip, frames=frames, size=(64, 48), gop=250, draw=lambda *_: np.zeros((48, 64, 3), np.uint8))
    key = hashlib.sha256(URL.encode()).hexdigest()[:32]
    clip.rename(folder / "media" / key)
    entry = {"file": key, "validators": {}, "checked": time.time()}
    (folder / "media" / f"{key}.json").write_text(json.dumps(entry))


# Requests


def ask(port: int, asked: Asked, kept: http.client.HTTPConnection | None = None) -> Answered:
    """One request; on a connection that is kept open, if one is given."""
    path, posted = asked
    connection = kept or http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    begin = time.perf_counter()
    try:
        if posted is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(posted), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return path, time.perf_counter() - begin, answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return path, time.perf_counter() - begin, 0, b""
    finally:
        if not kept:
            connection.close()


def ask_all(port: int, requests: Iterable[Asked]) -> list[Answered]:
    """All of them by so many clients at once."""
    lock, queue, answers = threading.Lock(), iter(requests), list[Answered]()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with closing(connection):
            while True:
                with lock:
                    asked = next(queue, None)
                if asked is None:
                    return
                answers.append(ask(port, asked, connection))

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def prompted(result: dict[str, Any], task: int) -> Asked:
    """/predict for one prompt."""
    return "/predict", body(result, id=task, data={"video": URL, "fps": 25})


def box(name: str, task: int, frame: int = 1, x: float = 10.0) -> Asked:
    """A box that was drawn and asked for."""
    return prompted(drawn(keyframe(frame, x=x), id=name), task)


def words(name: str, task: int, line: str) -> Asked:
    """A line that was typed."""
    names = {"from_name": "text_prompt", "to_name": "video", "type": "textarea", "origin": "manual"}
    path, posted = prompted({"id": name, "value": {"text": [line]}, **names}, task)
    return path, {**(posted or {}), "label_config": CONFIG}


def mixed(count: int) -> Iterator[Asked]:
    """Requests as several annotators' pages and Label Studio's health checks send them."""
    rng = random.Random(SEED)
    for number in range(count):
        draw = rng.random()
        if draw < 0.65:
            yield "/health", None
        elif draw < 0.8:
            project = {"project": f"{rng.randrange(9)}.1", "hostname": "http://ls.invalid", "schema": CONFIG}
            yield "/setup", project | {"access_token": f"t{rng.randrange(3)}"}
        elif draw < 0.9:
            yield box(f"box{number}", rng.randrange(1000), x=rng.uniform(1, 80))
        elif draw < 0.96:
            again = rng.randrange(16)
            yield box(f"again{again}", again, x=1.0 + again)
        else:
            yield words(f"line{number}", rng.randrange(1000), "car")


def is_accepted(answered: Answered) -> bool:
    """Its job will be done; a refusal is an answer too where there is a line to tell it in."""
    return answered[2] == 200 and b"not done" not in answered[3]


def milliseconds(seconds: Iterable[float]) -> float:
    """The 99th percentile."""
    return round(float(np.percentile(list(seconds), 99)) * 1e3, 1)


# Parts


def load(folder: Path, quick: bool) -> dict[str, Any]:
    count = 5_000 if quick else 100_000
    place_clip(folder, 600)
    server = Server.stub(folder, seconds=0.01, load=count / 2500, within=WITHIN, frames=600)
    answers = ask_all(server.port, mixed(count))
    server.close()
    health = [one for one in answers if one[0] == "/health"]
    floor = Server("serve_floor()", folder / "floor")
    bare = ask_all(floor.port, [("/health", None)] * (len(health) // 2))
    floor.close()
    for path in LIMITS:
        of = [one for one in answers if one[0] == path]
        longest = max(seconds for _, seconds, _, _ in of)
        print(f"{path:9} {len(of):6} asked, p99 {milliseconds(one[1] for one in of):7} ms, longest {longest:.3f} s")
    return {
        "requests": len(answers),
        "late": sum(seconds > LIMITS[path] for path, seconds, _, _ in answers),
        "errors": sum(status not in (200, 503) or (status, path) == (503, "/setup") for path, _, status, _ in answers),
        "busy": sum(one[0] == "/predict" and not is_accepted(one) for one in answers),
        "while_loading": sum(json.loads(text)["model"] != "ready" for _, _, status, text in health if status == 200),
        "health_p99_ms": milliseconds(one[1] for one in health),
        "floor_p99_ms": milliseconds(one[1] for one in bare),
        "predict_over_budget_ms": milliseconds(
            max(seconds - WITHIN, 0.0) for path, seconds, _, _ in answers if path == "/predict"
        ),
    }


def job(number: int) -> Asked:
    """Boxes and words, of several tasks, each with frames of its own."""
    first = 1 + number * FRAMES
    if number % 3 == 2:
        return words(f"line{number}", number % 5, f"car from {first} to {first + FRAMES - 1}")
    return box(f"box{number}", number % 5, first, 1.0 + number % 80)


def logged(log: Path) -> list[int]:
    """The frames that workers have computed, in order."""
    return [int(line) for line in log.read_text().split()] if log.exists() else []


class Asking(threading.Thread):
    """Asks for one job after the other, so that some always wait, and asks again where nobody answers."""

    def __init__(self, server: Server, log: Path, most: int) -> None:
        super().__init__(daemon=True)
        self._server, self._log, self._most = server, log, most
        self.accepted: list[int] = []
        self.ended = threading.Event()

    def _is_over(self, number: int) -> bool:
        return self.ended.is_set() or self._is_due(number)

    def run(self) -> None:
        for number in range(self._most):
            until(partial(self._is_over, number), 1e9)
            while not self.ended.is_set():
                if is_accepted(ask(self._server.port, job(number))):
                    self.accepted.append(number)
                    break
                time.sleep(0.05)

    def _is_due(self, number: int) -> bool:
        return number * FRAMES < len({*logged(self._log)}) + 3 * FRAMES


class Killing:
    """Kills a server and its worker, one of them at a time.

    Attributes:
        marks: frames that were logged when each kill had come to pass.
        restarts: seconds until a killed server answered again.
    """

    def __init__(self, server: Server, log: Path) -> None:
        self._server, self._log = server, log
        self._rng = random.Random(SEED)
        self._is_early = False
        self.marks: list[int] = []
        self.restarts = [0.0]

    def kill(self) -> None:
        """Once more, at a random moment: mostly of work, at times of a start."""
        worker, is_servers = self._moment(), self._rng.random() < 0.4
        if worker is None or is_servers:
            self._is_early = False
            self._restart(worker)
        else:
            os.kill(worker, signal.SIGKILL)
            until(lambda: not is_alive(worker), 5)
            self.marks.append(len(logged(self._log)))

    def _moment(self) -> int | None:
        done = self.marks[-1] if self.marks else 0
        # A worker's third end in a row without a frame saved in between is taken for the job's fault, or the model's.
        due = _EARLY if self._is_early else self._rng.random() < 0.8
        until(lambda: len(logged(self._log)) >= done + due, 10)
        time.sleep(self._rng.uniform(0, 0.4))
        self._is_early = len(logged(self._log)) < done + _EARLY
        return self._server.worker()

    def _restart(self, worker: int | None) -> None:
        self._server.process.kill()
        self._server.process.wait()
        begin = time.perf_counter()
        self._server.launch()
        if worker and not until(lambda: not is_alive(worker), 5):
            raise RuntimeError("a worker outlives its server")
        self.marks.append(len(logged(self._log)))
        self._server.opened()
        self.restarts.append(time.perf_counter() - begin)


def recomputed(frames: Sequence[int], marks: Sequence[int]) -> list[int]:
    """How many frames each kill has cost; last, how many were computed again though nobody was killed."""
    costs, last = [0] * (len(marks) + 1), dict[int, int]()
    for place, frame in enumerate(frames):
        if frame in last:
            by = bisect_right(marks, last[frame])
            costs[by if by < len(marks) and marks[by] <= place else -1] += 1
        last[frame] = place
    return costs


def saved_results(folder: Path) -> dict[int, bytes]:
    """The results of every job that is done, by its number."""
    results = {}
    with closing(Store(folder / "jobs.sqlite3", 1 << 40, 30)) as store:
        for row in store.latest(10**6):
            spec, blocks = row.spec, [block for _, block in store.blocks(row.number)]
            first = spec.prompts[0].frame if spec.prompts else spec.ranges[0].first
            frames = [frame for block in blocks for frame in block.frames]
            rows = np.concatenate([block.rows for block in blocks], axis=1) if blocks else np.empty(0)
            if row.state == "done":
                results[first // FRAMES] = json.dumps([frames, sorted({*blocks[0].tracks})]).encode() + rows.tobytes()
    return results


def _accepts(server: Server, number: int) -> bool:
    return is_accepted(ask(server.port, job(number)))


def kills(folder: Path, quick: bool) -> dict[str, Any]:
    count, log = 20 if quick else 950, folder / "log"
    most = count // 2 + 6
    place_clip(folder / "killed", FRAMES * most)
    shutil.copytree(folder / "killed", folder / "alone")
    server = Server.stub(folder / "killed", seconds=0.004, log=str(log))
    asking, killing = Asking(server, log, most), Killing(server, log)
    asking.start()
    for _ in range(count):
        killing.kill()
    asking.ended.set()
    asking.join()
    server.idle()
    server.close()
    alone = Server.stub(folder / "alone")
    for number in asking.accepted:
        assert until(partial(_accepts, alone, number), 60)  # the queue may be full
    alone.idle()
    alone.close()
    costs = recomputed(logged(log), killing.marks)
    done, right = saved_results(folder / "killed"), saved_results(folder / "alone")
    print(f"{len(asking.accepted)} jobs; recomputed frames of each kill, at last without one: {costs}")
    return {
        "kills": len(killing.marks),
        "lost_jobs": sum(number not in done for number in asking.accepted),
        "max_recomputed": max(costs),
        "bytes_equal": all(done.get(number) == right[number] for number in asking.accepted),
        "restart_s": round(max(killing.restarts), 2),
    }


def store(folder: Path, quick: bool, frames: int = 100_000, tracks: int = 50) -> dict[str, Any]:
    path, rng = folder / "jobs.sqlite3", np.random.default_rng(SEED)
    names = tuple(f"car {number}" for number in range(1, tracks + 1))
    phrases = dict.fromkeys(names, "car")
    spec = JobSpec("7", "3", URL, 25.0, ranges=(ALL_FRAMES,), phrases=("car",))
    corners = rng.normal(0, 2, (tracks, frames, 2)).cumsum(1, dtype=np.float32)
    rows = np.concatenate([corners, corners + 90, rng.random((tracks, frames, 1), np.float32)], axis=2)
    begin = time.perf_counter()
    with closing(Store(path, 1 << 40, 30)) as jobs:
        jobs.records.put_video(spec.url, VideoInfo.evenly_spaced(frames, 25, (1280, 720)))
        number = jobs.add("key", "digest", spec, "stub-1", batch=False, post=None).number
        for start in range(0, frames, SAVED_FRAMES):
            span = range(start, min(start + SAVED_FRAMES, frames))
            block = ResultBlock(span, False, names, rows[:, span.start : span.stop], phrases)
            jobs.save(number, names, [(0, block)], Progress(0, span.stop), (span.stop, frames, tracks))
        jobs.set_ended([(number, "done", None, time.time())])
        wrote = time.perf_counter() - begin
    size = sum(file.stat().st_size for file in folder.glob("jobs.sqlite3*"))
    begin = time.perf_counter()
    with closing(Store(path, 1 << 40, 30)) as jobs:
        video_info, row = jobs.records.video(spec.url), jobs.job(number)
        assert video_info
        assert row
        resolved = row.spec.resolve(video_info)
        restore(resolved, row.initial_tracks or (), jobs.blocks(number))
        read = resolved.propagation.tracks()
    seconds = time.perf_counter() - begin
    assert all(np.array_equal(track.boxes, rows[int(name[4:]) - 1, :, :4]) for name, track in read.items())
    assert len(read) == tracks
    print(f"{frames} frames of {tracks} tracks: written in {wrote:.1f} s, {wrote / frames * 1e6:.0f} us a frame")
    return {"bytes_per_object_frame": round(size / frames / tracks, 2), "read_s": round(seconds, 2)}


def answers(folder: Path, quick: bool, tracks: int = 50) -> dict[str, Any]:
    frames = 10_000 if quick else 100_000
    place_clip(folder, 10)
    asked = words("long", 7, "car")
    server = Server.stub(folder, within=10.0, frames=frames)
    assert is_accepted(ask(server.port, asked))
    server.idle()
    server.close()
    settings = Settings(data_dir=folder)
    names = tuple(f"car {number}" for number in range(1, tracks + 1))
    rows, phrases = turning_boxes(tracks, frames), dict.fromkeys(names, "car")
    with closing(Store(folder / "jobs.sqlite3", 1 << 40, 30)) as jobs:
        (row,) = jobs.latest(1)
        jobs.cut(row.number, Progress(), range(0))
        jobs.records.put_video(row.spec.url, VideoInfo.evenly_spaced(frames, 25, (1280, 720)))
        for start in range(0, frames, 4096):
            span = range(start, min(start + 4096, frames))
            block = ResultBlock(span, False, names, rows[:, span.start : span.stop], phrases)
            counts = span.stop, frames, tracks
            jobs.save(row.number, names, [(0, block)], Progress(0, span.stop), counts)
        jobs.set_ended([(row.number, "done", None, time.time())])
        job = Job(jobs.latest(1)[0], EndedResults(jobs).load)
        begin = time.perf_counter()
        found = TextResult(job, settings).choose()  # as the server does while the job goes
        chosen = time.perf_counter() - begin
        assert job.resolved
        jobs.set_memo(row.number, job.resolved.memo.to_bytes())
    server = Server.stub(folder, within=10.0, frames=frames)
    times = []
    for count in (tracks, 0):  # then they are there already
        _, seconds, status, text = ask(server.port, asked)
        assert text.count(b"videorectangle") == count
        assert status == 200
        times.append(seconds)
    server.close()
    keys = sum(len(one.track.keyframes) for one in found.values())
    print(
        f"{keys} keyframes, chosen in {chosen:.1f} s; answered {times[0]:.1f} s after a restart, then {times[1]:.1f} s"
    )
    return {"answer_s": round(times[0], 2), "answer_late_s": round(max(0.0, max(times) - 10.0), 2)}


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
    count, clip = 25 if quick else 500, write_clip(folder / "clip.mp4", frames=150, size=(64, 48)).path
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


def results_of(store: Store, number: int) -> tuple[list[int], bytes]:
    """The frames and the rows of a job of one box."""
    blocks = [block for _, block in store.blocks(number)]
    frames = [frame for block in blocks for frame in block.frames]
    return frames, np.concatenate([block.rows for block in blocks], axis=1).tobytes()


def fairness(folder: Path, quick: bool) -> dict[str, Any]:
    seconds, clip = 10 if quick else 60, write_clip(folder / "clip.mp4", frames=10, size=(64, 48)).path
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


def big_state(folder: Path, quick: bool) -> dict[str, Any]:
    size, log = 10**8 if quick else 10**9, folder / "log"
    place_clip(folder, FRAMES)
    server = Server.stub(folder, seconds=0.015 if quick else 0.05, log=str(log), within=WITHIN, state=size)
    ask(server.port, job(0))
    states, killed, late = folder / "states", 0, list[float]()
    while json.loads(ask(server.port, ("/jobs", None))[3])["jobs"][0]["state"] != "done":
        _, seconds, status, _ = ask(server.port, job(0))
        assert status == 200
        late.append(max(seconds - WITHIN, 0.0))
        kept = any(".part" not in path.name for path in states.glob("1.*"))
        if kept and not killed and (worker := server.worker()):
            killed = len(logged(log))
            os.kill(worker, signal.SIGKILL)
    server.close()
    frames = logged(log)
    print(f"killed after {killed} frames; {len(frames)} of {FRAMES} frames were computed; {len(late)} requests")
    is_whole = {*frames} == {*range(FRAMES)} and saved_results(folder)
    return {
        "big_state_ok": bool(killed and is_whole and frames.count(0) == 1),
        "big_state_predict_ms": milliseconds(late),
    }


def trouble(folder: Path, quick: bool) -> dict[str, Any]:
    count, seconds = (4, 3.0) if quick else (12, 20.0)
    place_clip(folder, FRAMES * count)
    server = Server.stub(folder, seconds=0.005)
    accepted = [number for number in range(count) if is_accepted(ask(server.port, job(number)))]
    told, answers = "", list[Answered]()
    with closing(sqlite3.connect(folder / "jobs.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answers.append(ask(server.port, ("/health", None)))
            told = max(told, json.loads(answers[-1][3])["storage"], key=len)
        other.execute("ROLLBACK")
    server.idle()
    server.process.kill()
    server.process.wait()
    spoiled = folder / "jobs.sqlite3"
    with closing(sqlite3.connect(spoiled)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    with spoiled.open("r+b") as raw:
        raw.seek(spoiled.stat().st_size // 2)
        raw.write(bytes(4096))
    spoiled.with_suffix(".damaged").touch()
    server.launch()
    server.opened()
    repaired = json.loads(ask(server.port, ("/health", None))[3])["storage"]
    again = [number for number in accepted if is_accepted(ask(server.port, job(number)))]
    server.idle()
    server.close()
    print(f"told: {told}; {repaired}")
    lost = [number for number in accepted if number not in saved_results(folder) or number not in again]
    is_told = "another program" in told and "damaged" in repaired
    return {
        "trouble_lost": len(lost),
        "trouble_told": is_told,
        "trouble_health_ms": milliseconds(a[1] for a in answers),
    }


def turning_boxes(tracks: int, frames: int) -> NDArray[np.float32]:
    """Rows of boxes that turn every 40 frames or so, with the jitter of a detector."""
    rng, turns = np.random.default_rng(SEED), np.arange(0, frames + 40, 40)
    corners = rng.normal(0, 60, (tracks, 2, len(turns))).cumsum(2) % 600
    where = np.arange(frames)
    moves = np.stack([[np.interp(where, turns, axis) for axis in track] for track in corners]).transpose(0, 2, 1)
    moves = moves + rng.normal(0, 0.3, moves.shape)
    return np.concatenate([moves, moves + 90, rng.random((tracks, frames, 1))], axis=2).astype(np.float32)


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
        for _ in range(3 if quick else 15):
            for way, measured in speeds.items():
                begin = time.perf_counter()
                way(video)
                measured.append(len(video) / (time.perf_counter() - begin))
    worker.close()
    here, there = (statistics.median(measured) for measured in speeds.values())
    print(f"{here:.1f} frames/s in this process, {there:.1f} in a worker")
    return {"boundary_cost": round(1 - there / here, 4)}


PARTS: dict[str, Callable[[Path, bool], dict[str, Any]]] = {
    "load": load,
    "kills": kills,
    "store": store,
    "answers": answers,
    "ooms": ooms,
    "fairness": fairness,
    "big_state": big_state,
    "trouble": trouble,
    "boundary": boundary,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="What one worker, its queue and its disk take.")
    parser.add_argument("--quick", action="store_true", help="fewer requests and kills: less than a minute")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    os.chdir(ROOT)  # where workers look for what makes their engine
    result: dict[str, Any] = {}
    for part in options.parts:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            result |= PARTS[part](Path(folder), options.quick)
        print(f"{part}: {time.perf_counter() - begin:.0f} s")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
