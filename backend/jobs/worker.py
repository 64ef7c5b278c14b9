"""The worker process: it holds the engine, opens a video, runs sessions on it and sends their results in chunks.

It knows nothing of jobs, Label Studio or HTTP. A crash, a hung kernel or a file that kills its decoder ends only this
process; the server's side, `backend.jobs.worker_client`, starts another.

Runs travel together: those that stand on the same frame and go the same way advance in one call of the engine, which
computes the frame's features once. Of the others, those with the best priority go first, and of these the rearmost,
until it stands where the next one does. What a run sent before it ends counts.

Previews go before all requests and runs. Frames that are encoded for them ahead take turns with the runs.

The engine has one thread. Another writes the states of sessions and sends the results, in order, and a third tells the
engine's status.
"""

import ctypes
import logging
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

from backend.engines.base import Engine
from backend.errors import BackendError, where
from backend.jobs.messages import (
    Ack,
    Failure,
    OpenVideo,
    PreviewRequest,
    Reply,
    Request,
    RunEnd,
    RunRequest,
    SetPriority,
    StartRun,
    StopRun,
    WorkerStatus,
)
from backend.jobs.worker_previews import Previews
from backend.jobs.worker_run import Run
from backend.logs import set_up_logging
from backend.video import Video, VideoInfo

log = logging.getLogger(__name__)

_CHUNK_SECONDS = 0.05
"""How long results are collected before they are sent; too short to notice on the page."""
_PR_SET_PDEATHSIG = 1
_LOADING_POLL = 0.25
"""Seconds between two checks of a model that is loading, and of the parent process."""
_READY_POLL = 2.0
"""Seconds between two checks of the memory of a model that is ready."""

EngineFactory = Callable[[], Engine]


class _Disconnected(Exception):
    """The server has closed the connection."""


def serve(connection: Connection, make_engine: EngineFactory) -> None:
    """Serve requests until the server closes the connection."""
    with suppress(_Disconnected):
        _Worker(connection, make_engine).serve()


class _Worker:
    def __init__(self, connection: Connection, make_engine: EngineFactory) -> None:
        self._connection = connection
        self._writer = ThreadPoolExecutor(1, "writer")
        self._sending = threading.Lock()
        self._make_engine = make_engine
        self._video: Video | None = None
        self._path: Path | None = None
        self._runs: dict[int, Run] = {}
        self._requests: deque[OpenVideo | RunRequest] = deque()

    def serve(self) -> None:
        try:
            self._engine = self._make_engine()
        except BackendError as error:
            self._send(Failure(None, error))
            return
        self._previews = Previews(self._engine, lambda path, limits: Video(path, limits), self._send)
        threading.Thread(target=self._report_loop, name="report", daemon=True).start()
        is_runs_turn = False
        while True:
            together = self._first_runs()
            waiting = [run for run in together.values() if run.is_waiting]
            may_advance = bool(together) and not waiting
            start = time.monotonic()
            has_work = may_advance or self._requests or self._previews.has_prompt or self._previews.has_frame
            self._receive_all(wait=not has_work)
            for run in waiting:
                run.wait(time.monotonic() - start)
            if self._previews.has_prompt:
                self._previews.answer()
            elif self._requests:
                self._handle(self._requests.popleft())
            elif self._previews.has_frame and not (is_runs_turn and may_advance):
                self._previews.encode()
                is_runs_turn = True
            elif may_advance:
                self._advance(together)
                is_runs_turn = False

    def _send(self, reply: Reply) -> None:
        try:
            with self._sending:
                self._connection.send(reply)
        except OSError as error:
            raise _Disconnected from error

    def _receive_all(self, wait: bool) -> None:
        """Take all requests that have come.

        Args:
            wait: until there is one.
        """
        try:
            while wait or self._connection.poll():
                wait = False
                request: Request = self._connection.recv()
                if isinstance(request, PreviewRequest):
                    self._previews.add(request)
                else:
                    self._requests.append(request)
        except (EOFError, OSError) as error:
            raise _Disconnected from error

    def _report_loop(self) -> None:
        """Send the engine's status when it changes, and results that wait to be sent."""
        last, poll_at = None, 0.0
        with suppress(_Disconnected):
            while True:
                for run in list(self._runs.values()):
                    run.flush()
                if (now := time.monotonic()) >= poll_at:
                    status = WorkerStatus(self._engine.status, self._engine.memory(), self._engine.cache_use())
                    if status != last:
                        self._send(status)
                        last = status
                    poll_at = now + (_READY_POLL if status.status == "ready" else _LOADING_POLL)
                time.sleep(_CHUNK_SECONDS)

    def _handle(self, request: OpenVideo | RunRequest) -> None:
        if isinstance(request, OpenVideo):
            with self._reporting(None):
                self._open(request)
        else:
            with self._reporting(request.run_id):
                self._handle_run(request)

    def _handle_run(self, request: RunRequest) -> None:
        if isinstance(request, StartRun):
            self._start(request)
        elif run := self._runs.get(request.run_id):  # else it has ended meanwhile
            match request:
                case StopRun():
                    run.flush(with_state=True)
                    self._end(request.run_id, is_complete=False)
                case SetPriority():
                    run.priority = request.priority
                case Ack():
                    run.acknowledge()

    def _open(self, request: OpenVideo) -> None:
        video = self._video
        if video is None or self._path != request.path:
            self._video = None
            if video is not None:
                video.close()
            self._path = request.path
            self._video = video = Video(request.path, request.limits)
        self._send(VideoInfo.from_video(video))

    def _start(self, request: StartRun) -> None:
        if self._video is None:
            raise BackendError("no video is open")
        run = self._runs[request.run_id] = Run(self._engine, self._video, request, self._send, self._writer)
        if run.is_complete:
            self._end(request.run_id, is_complete=True)

    def _end(self, run_id: int, *, is_complete: bool) -> None:
        self._runs.pop(run_id).close()
        self._send(RunEnd(run_id, is_complete, self._video.damage if self._video else ""))

    def _first_runs(self) -> dict[int, Run]:
        """The runs that go first, by id: all that stand where the first one does."""
        if not self._runs:
            return {}
        first = min(self._runs.values(), key=lambda run: (run.priority, run.position.order)).position
        return {run_id: run for run_id, run in self._runs.items() if run.position == first}

    def _advance(self, together: dict[int, Run]) -> None:
        """Process one frame in runs that stand on the same one."""
        propagations = {}
        for run_id, run in together.items():
            with self._reporting(run_id):
                propagations[run_id] = run.propagation
        results = self._engine.advance(list(propagations.values()))
        for run_id, result in zip(propagations, results, strict=True):
            with self._reporting(run_id):
                if isinstance(result, Exception):
                    raise result
                together[run_id].add(result, tuple(together))
                if together[run_id].is_complete:
                    together[run_id].flush()
                    self._end(run_id, is_complete=True)

    @contextmanager
    def _reporting(self, run_id: int | None) -> Iterator[None]:
        """Report an error, and end the run that it belongs to."""
        try:
            yield
        except _Disconnected:
            raise
        except BackendError as error:
            self._fail(run_id, error)
        except Exception as error:
            log.error("the engine failed: %s", where(error))
            self._fail(run_id, BackendError("the engine failed on this video; see the server log"))

    def _fail(self, run_id: int | None, error: BackendError) -> None:
        if run := self._runs.pop(run_id, None) if run_id is not None else None:
            run.close()
        self._send(Failure(run_id, error.with_traceback(None)))


def main() -> None:
    """Run the worker process.

    Its arguments are the file descriptor of the connection, which receives the factory, and the server's process.
    """
    server = int(sys.argv[2])
    _end_with_server()
    threading.Thread(target=_exit_with_server, args=(server,), name="parent", daemon=True).start()
    with Connection(int(sys.argv[1])) as connection, suppress(EOFError):
        level, make_engine = pickle.loads(connection.recv_bytes())  # noqa: S301 (our own parent's)
        set_up_logging(level)
        serve(connection, make_engine)
    # Do not wait for the threads of a model that is still loading.
    os._exit(0)


def _end_with_server() -> None:
    """Let Linux kill this process when the server ends, even while a library holds the interpreter's lock."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _exit_with_server(server: int) -> None:
    """Exit when the server does, also where the system does not see to it."""
    while os.getppid() == server:
        time.sleep(_LOADING_POLL)
    os._exit(1)
