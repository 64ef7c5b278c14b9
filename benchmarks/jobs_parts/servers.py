"""Servers in processes of their own, which may be killed and started again."""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flask import Flask, jsonify
from waitress.server import create_server

from backend.commands import serve
from backend.engines import identify_engine, load_engine
from backend.jobs.worker_client import WorkerClient
from backend.jobs.worker_launcher import process_launcher
from backend.jobs.worker_pool import WorkerPool
from backend.settings import Limits, Settings
from benchmarks.jobs_parts.faults import install_faults
from benchmarks.jobs_parts.logged_engine import LoggedEngine
from benchmarks.jobs_parts.requests import ROOT, SERIES, URL, ask, read_health
from tests.clips import write_clip
from tests.fakes import heavy_engine, sleeping_engine

SHAPES = Settings(engine="sam3", model_path="shapes", device="cpu")
"""The engine of `engine: shapes`."""
_DEFAULTS = {
    "engine": "stub",
    "faults": False,
    "frames": SERIES.frames,
    "load": 0.0,
    "log": None,
    "queue": 64,
    "seconds": 0.0,
    "state": 0,
    "within": 0.0,
}
"""Of a server: see `serve_jobs`."""


def serve_jobs(text: str) -> None:
    """A server whose worker has the stub or the shapes model, in a process of its own.

    Args:
        text: JSON. `folder`; `engine`, stub or shapes; `seconds` of a frame, `load` seconds and bytes of a `state` of
            the stub; where to `log` frames; whether `faults` are obeyed; `frames` of a job, jobs in the `queue`, and
            `response_timeout` (`within`).
    """
    asked = json.loads(text)
    folder, log = Path(asked["folder"]), Path(asked["log"]) if asked["log"] else None
    if asked["faults"]:
        install_faults(folder)
    settings = Settings(
        data_dir=folder,
        port=0,
        response_timeout=asked["within"],
        max_frames=asked["frames"] - 1,
        limits=Limits(queue=asked["queue"]),
    )
    make: Any = partial(sleeping_engine, asked["seconds"], None, asked["load"])
    name = "stub", "1"
    if asked["state"]:
        make, log = partial(heavy_engine, asked["seconds"], log, asked["state"]), None
    elif asked["engine"] == "shapes":
        make, name = partial(load_engine, SHAPES), identify_engine(SHAPES)
    make = partial(LoggedEngine, make, log) if log else make
    serve.run(settings, WorkerPool([WorkerClient(process_launcher(make, "warning"), *name, 600.0)]))


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
        text = json.dumps(_DEFAULTS | {"folder": str(folder)} | asked)
        return cls(f"serve_jobs({text!r})", folder / "stderr")

    def launch(self) -> None:
        """Start the process."""
        with self._stderr.open("a") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"from benchmarks.jobs_parts.servers import *; {self._call}"],
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
        while any(read_health(self.port)["jobs"].values()):
            time.sleep(0.1)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()

    def restart(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Kill it, do something, and start it again."""
        self.kill()
        meanwhile()
        self.launch()
        self.opened()

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


def write_black_clip(path: Path, frames: int) -> None:
    """A clip for an engine that does not look at it."""
    write_clip(path, frames=frames, size=(64, 48), gop=250, draw=lambda *_: np.zeros((48, 64, 3), np.uint8))


def place_clip(folder: Path, frames: int, write: Callable[[Path, int], None] = write_black_clip) -> None:
    """Put a clip where a server keeps what it has fetched."""
    (folder / "media").mkdir(parents=True)
    clip = folder / "clip.mp4"
    write(clip, frames)
    key = hashlib.sha256(URL.encode()).hexdigest()[:32]
    clip.rename(folder / "media" / key)
    entry = {"file": key, "validators": {}, "checked": time.time()}
    (folder / "media" / f"{key}.json").write_text(json.dumps(entry))
