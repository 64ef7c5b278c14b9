"""The worker as its server sees it: started when it is needed, watched, killed when it hangs, started again."""

import logging
import pickle
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

from backend.engines.base import FAILED
from backend.errors import BackendError, SettingsError
from backend.jobs import worker
from backend.jobs.propagation import Progress, Schedule
from backend.jobs.spec import VideoInfo
from backend.jobs.worker import (
    Ack,
    Chunk,
    EngineFactory,
    Failure,
    InitialTracks,
    OpenVideo,
    Reply,
    RunEnd,
    StartRun,
    StopRun,
    WorkerStatus,
)
from backend.video import VideoLimits

log = logging.getLogger(__name__)

_AHEAD = 64
"""Replies that wait to be read; beyond that the worker waits."""
_STARTS = 3
"""A worker that ends so often before its engine was ever ready is not started again for a while."""
_PAUSE = 60.0
_BURIED = 5.0
"""Seconds that a killed worker is waited for."""
_MAIN = f"from {worker.__name__} import main; main()"
"""Not `-m`, which would make another module of it: what is sent is known by its module's name."""


class WorkerDied(Exception):
    """The worker ended, or was ended because it hung. What it had sent before counts."""


class WorkerProcess(Protocol):
    """What the worker runs in."""

    def kill(self) -> None:
        """End it at once; also one that has ended by itself is seen off."""
        ...


WorkerLauncher = Callable[[], tuple[Connection, WorkerProcess]]
"""Starts a worker; the server's end of the connection, and what it runs in."""


def process_launcher(make_engine: EngineFactory, log_level: str) -> WorkerLauncher:
    """Workers that are processes of their own; `make` is pickled, and so found there by its name."""

    def launch() -> tuple[Connection, WorkerProcess]:
        ours, theirs = socket.socketpair()
        with theirs:
            process = _ChildProcess(
                [sys.executable, "-c", _MAIN, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # Signals of a terminal go to its whole group, and it is for the server to say when to end.
                start_new_session=True,
            )
        connection = Connection(ours.detach())
        connection.send_bytes(pickle.dumps((log_level.upper(), make_engine)))
        return connection, process

    return launch


class _ChildProcess(subprocess.Popen[bytes]):
    """A process of which nothing stays behind."""

    def kill(self) -> None:
        super().kill()
        with suppress(subprocess.TimeoutExpired):  # a driver may hold it for a while
            self.wait(_BURIED)


class WorkerClient:
    """One worker at a time. `open` and `run` are one thread's alone; everything else is anybody's.

    Args:
        launch: starts a worker.
        name, version: of the engine that workers have.
        stall: seconds without a word from a worker whose model is ready, after which it is taken for hung.
    """

    def __init__(self, launch: WorkerLauncher, name: str, version: str, timeout: float) -> None:
        self.name, self.version = name, version
        self.memory: tuple[int, int] | None = None
        self._launch, self._timeout = launch, timeout
        # Held for a moment at a time, and nothing else is locked under it.
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._connection: Connection | None = None
        self._process: WorkerProcess | None = None
        self._replies: queue.Queue[Reply | None] = queue.Queue(_AHEAD)
        self._status = "loading"
        self._failed_starts = 0
        self._retry_at = 0.0
        self._closed = False
        self._run_id, self._stopped_run = 0, -1

    @property
    def status(self) -> str:
        """The engine's, as of its contract."""
        return self._status

    def start(self) -> None:
        """Start a worker unless there is one.

        Raises:
            SettingsError: workers end again and again before they are of use.
        """
        with self._lock:
            if self._connection or self._closed:
                return
            if self._status.startswith(FAILED) and time.monotonic() < self._retry_at:
                raise SettingsError(self._status.removeprefix(FAILED))
            self._status = "loading"
            self._replies = queue.Queue(_AHEAD)
            self._connection, self._process = self._launch()
            working = self._connection, self._process, self._replies
            threading.Thread(target=self._read, args=working, name="device-reader", daemon=True).start()

    def next_run(self) -> None:
        """Another turn: a `stop` from here on is for the run that follows."""
        self._run_id += 1

    def open(self, path: Path, limits: VideoLimits) -> VideoInfo:
        """Open a video.

        Raises:
            BackendError: it cannot be decoded, or there is no engine.
            Lost: the worker ended over it.
        """
        self._request(OpenVideo(path, limits))
        reply = self._reply()
        if not isinstance(reply, VideoInfo):
            raise BackendError("the engine's process gave an answer that is none: see the server's log")
        return reply

    def run(
        self, schedule: Schedule, progress: Progress, state: bytes | None, masks: bool, is_retry: bool = False
    ) -> Iterator[InitialTracks | Chunk | RunEnd]:
        """Run a course on the open video, to its end or until it is stopped; `is_wary`: a worker was lost over it.

        Raises:
            BackendError: the engine could not do it.
            Lost: the worker ended over it.
        """
        self._request(StartRun(self._run_id, schedule, progress, state, masks, is_retry))
        if self._stopped_run == self._run_id:  # perhaps there was no worker yet to be told
            self._send(StopRun(self._run_id))
        reply: Reply | None = None
        try:
            while not isinstance(reply, RunEnd):
                reply = self._reply()
                if isinstance(reply, InitialTracks | Chunk | RunEnd):
                    yield reply
        except GeneratorExit:
            if not isinstance(reply, RunEnd):
                self._abandon()
            raise

    def _abandon(self) -> None:
        """Nobody wants to hear the rest."""
        self.kill()
        with suppress(queue.Empty):
            while self._replies.get(timeout=self._timeout):
                pass

    def ack(self) -> None:
        """Tell the worker that what it has said up to its last state is on disk."""
        self._send(Ack(self._run_id))

    def stop(self) -> None:
        """End this turn's run at the next frame, or as it begins; `run` tells what came until then."""
        self._stopped_run = self._run_id
        self._send(StopRun(self._run_id))

    def kill(self) -> None:
        """End the worker at once; it is started again when it is needed."""
        with self._lock:
            process = self._process
        if process:
            process.kill()

    def close(self) -> None:
        """End the worker for good."""
        self._closed = True
        self.kill()

    def _request(self, request: OpenVideo | StartRun) -> None:
        self.start()
        if self._closed:
            raise WorkerDied
        self._send(request)

    def _send(self, request: OpenVideo | StartRun | StopRun | Ack) -> None:
        """Where the worker has ended, its replies tell."""
        with self._lock:
            connection = self._connection
        if connection:
            with suppress(OSError, ValueError), self._sending:
                connection.send(request)

    def _reply(self) -> Reply:
        """The next reply to what was asked; while the model loads, whenever that is."""
        while True:
            try:
                reply = self._replies.get(timeout=self._timeout)
            except queue.Empty:
                if self._status != "ready":
                    continue
                log.error("nothing was heard of the engine's process for %g s: it is ended", self._timeout)
                self.kill()
                continue
            if reply is None:
                raise WorkerDied
            if isinstance(reply, Failure):
                raise reply.error
            return reply

    def _read(self, connection: Connection, process: WorkerProcess, replies: "queue.Queue[Reply | None]") -> None:
        """Pass replies on, and take note of statuses, until the worker's end."""
        with suppress(EOFError, OSError, pickle.UnpicklingError):
            while True:
                self._handle(connection.recv(), replies)
        process.kill()
        with self._lock:
            self._connection = self._process = None
            self.memory = None
            connection.close()
            if not self._closed:
                self._record_death()
        replies.put(None)

    def _record_death(self) -> None:
        if self._status.startswith(FAILED):
            self._retry_at = float("inf")  # another one would fail alike
            return
        log.error("the engine's process has ended")
        self._failed_starts += self._status != "ready"
        self._status = "loading"
        if self._failed_starts >= _STARTS:
            self._retry_at, self._failed_starts = time.monotonic() + _PAUSE, 0
            self._status = (
                f"{FAILED}the engine's process ends before its model is loaded, perhaps for want of memory: see the "
                f"server's log; it is tried again after {_PAUSE:.0f} s"
            )

    def _handle(self, reply: Reply, replies: "queue.Queue[Reply | None]") -> None:
        if isinstance(reply, WorkerStatus):
            self._status, self.memory = reply.status, reply.memory
            self._failed_starts = 0 if reply.status == "ready" else self._failed_starts
        else:
            if isinstance(reply, Failure) and isinstance(reply.error, SettingsError):
                self._status = FAILED + str(reply.error)
            replies.put(reply)
