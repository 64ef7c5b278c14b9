"""The worker process: it holds the engine, opens videos, runs sessions and sends their results in chunks.

It knows nothing of jobs, Label Studio or HTTP. A crash, a hung kernel or a file that kills its decoder ends only this
process; the server's side, `backend.jobs.worker_client`, starts another.

One run is served at a time. A `StopRun` takes effect at the next frame; what was sent before it counts.
"""

import ctypes
import logging
import os
import pickle
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from backend.engines.base import Engine
from backend.errors import BackendError, StateRefused, where
from backend.jobs.messages import (
    Ack,
    Chunk,
    Failure,
    InitialTracks,
    OpenVideo,
    Reply,
    RunEnd,
    SavedState,
    StartRun,
    StopRun,
    WorkerStatus,
)
from backend.logs import set_up_logging
from backend.tracks.track import FrameResult, ResultBlock
from backend.video import Video, VideoInfo

log = logging.getLogger(__name__)

SAVED_FRAMES = 32
"""A session's state is sent at least every so many frames; at most twice as many frames are ever computed again."""
SAVED_SECONDS = 10.0
"""A state is sent at least this often if frames are slow."""
_CHUNK_SECONDS = 0.05
"""How long results are collected before they are sent; too short to notice on the page."""
_CHUNK_BYTES = 4 << 20
_FREE_SECONDS, _COST_SHARE = 0.05, 20
"""A state may cost the first of these; beyond that, this many times its cost goes by until the next one."""
_PR_SET_PDEATHSIG = 1
_LOADING_POLL = 0.25
"""Seconds between two checks of a model that is loading, and of the parent process."""
_READY_POLL = 2.0
"""Seconds between two checks of the memory of a model that is ready."""

EngineFactory = Callable[[], Engine]


def serve(connection: Connection, make_engine: EngineFactory) -> None:
    """Serve requests until the server closes the connection."""
    with suppress(EOFError, OSError):
        _Worker(connection, make_engine).serve()


class _Worker:
    def __init__(self, connection: Connection, make_engine: EngineFactory) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._make_engine = make_engine
        self._video: Video | None = None
        self._path: Path | None = None
        self._stopped_run = -1
        self._run_id = -1
        self.unacknowledged = 0
        """States that were sent and are not on disk yet."""
        self._sender: _ChunkSender | None = None

    def send(self, reply: Reply) -> None:
        with self._sending:
            self._connection.send(reply)

    def serve(self) -> None:
        try:
            self._engine = self._make_engine()
        except BackendError as error:
            self.send(Failure(error))
            return
        threading.Thread(target=self._report_loop, name="report", daemon=True).start()
        while True:
            request = self._connection.recv()
            try:
                if isinstance(request, OpenVideo):
                    self._open(request)
                elif isinstance(request, StartRun):
                    self._run(request)
                else:
                    self._receive(request)
            except BackendError as error:
                self.send(Failure(error))
            except (EOFError, OSError):
                raise
            except Exception as error:
                log.error("the engine failed: %s", where(error))
                self.send(Failure(BackendError("the engine failed on this video; see the server log")))

    def _report_loop(self) -> None:
        """Send the engine's status when it changes, and results that wait to be sent."""
        last, poll_at = None, 0.0
        with suppress(OSError):  # the server is gone
            while True:
                if sender := self._sender:
                    sender.flush()
                if (now := time.monotonic()) >= poll_at:
                    status = WorkerStatus(self._engine.status, self._engine.memory())
                    if status != last:
                        self.send(status)
                        last = status
                    poll_at = now + (_READY_POLL if status.status == "ready" else _LOADING_POLL)
                time.sleep(_CHUNK_SECONDS)

    def _open(self, request: OpenVideo) -> None:
        video = self._video
        if video is None or self._path != request.path:
            self._video = None
            if video is not None:
                video.close()
            self._path = request.path
            self._video = video = Video(request.path, request.limits)
        self.send(VideoInfo.from_video(video))

    def _run(self, request: StartRun) -> None:
        if self._video is None:
            raise BackendError("no video is open")
        schedule = request.schedule
        self._run_id, self.unacknowledged = request.run_id, 0
        with self._engine.open(self._video, read_state(request.state) if request.state else None) as session:
            if request.state is None:
                self.send(InitialTracks(schedule.prompt(session)))
            self._sender = sender = _ChunkSender(self, request, session.state)
            try:
                for pass_index, result in schedule.propagate(session, request.progress):
                    sender.add(pass_index, result)
                    if self._is_stopped(request.run_id):
                        sender.flush(with_state=True)
                        self.send(RunEnd(is_complete=False))
                        return
                sender.flush()
            finally:
                self._sender = None
                sender.close()
        self.send(RunEnd(is_complete=True))

    def _is_stopped(self, run_id: int) -> bool:
        # Wait while two states are not on disk yet. This bounds what a killed worker computes again to the frames
        # between three states.
        start = time.monotonic()
        while self._connection.poll() or (self.unacknowledged > 1 and self._stopped_run != run_id):
            self._receive(self._connection.recv())
        if self._sender:
            self._sender.state_cost += time.monotonic() - start
        return self._stopped_run == run_id

    def _receive(self, request: StopRun | Ack) -> None:
        if isinstance(request, StopRun):
            self._stopped_run = request.run_id
        elif request.run_id == self._run_id:
            self.unacknowledged -= 1


class _ChunkSender:
    """Collects results and sends them in chunks: often enough for a live view, seldom enough to cost little.

    Attributes:
        state_cost: seconds for which the session stood still because of the last state.
    """

    def __init__(self, worker: _Worker, request: StartRun, state: Callable[[], bytes]) -> None:
        self._worker, self._schedule, self._state, self._masks = worker, request.schedule, state, request.masks
        self._new_states, self._state_count = request.new_states, 0
        self._every = 1 if request.is_retry else SAVED_FRAMES
        self.state_cost = 0.0
        self._lock = threading.Lock()
        self._pass_index = 0
        self._results: list[FrameResult] = []
        self._size = 0
        self._unsaved = 0
        self._saved_at = time.monotonic()

    def add(self, pass_index: int, result: FrameResult) -> None:
        """Add the next result."""
        if pass_index != self._pass_index:
            self.flush()
            self._pass_index = pass_index
        with self._lock:
            self._results.append(result)
        self._unsaved += 1
        self._size += 64 * (1 + len(result.tracks))
        is_due = self._is_state_due()
        if is_due or self._size > _CHUNK_BYTES:
            self.flush(with_state=is_due)
            self._every = min(2 * self._every, SAVED_FRAMES)

    def _is_state_due(self) -> bool:
        age = time.monotonic() - self._saved_at
        if self._every < SAVED_FRAMES:  # a worker died in this job
            return self._unsaved >= self._every
        is_paid = age >= _COST_SHARE * (self.state_cost - _FREE_SECONDS)
        return is_paid and (self._unsaved >= self._every or age > SAVED_SECONDS)

    def close(self) -> None:
        """Drop what was not sent: nothing of a run may follow its end."""
        with self._lock:
            self._results = []

    def flush(self, with_state: bool = False) -> None:
        """Send the collected results.

        Args:
            with_state: with the session's state; only the session's own thread may ask for it.
        """
        start = time.monotonic()
        with self._lock:
            state = self._save_state() if with_state else None
            if self._results or state is not None:
                reverse = self._schedule.passes[self._pass_index].reverse
                self._worker.unacknowledged += state is not None
                self._worker.send(
                    Chunk(self._pass_index, ResultBlock.from_results(self._results, reverse, self._masks), state)
                )
            self._results, self._size = [], 0
        if with_state:
            self._unsaved, self._saved_at = 0, time.monotonic()
            self.state_cost = self._saved_at - start

    def _save_state(self) -> SavedState:
        self._state_count += 1
        path = self._new_states.with_name(f"{self._new_states.name}.{self._state_count}")
        state = self._state()
        try:
            path.write_bytes(state)
        except OSError as error:
            log.warning("the engine's state is not saved (%s): make room in data_dir", error.strerror)
            path.unlink(missing_ok=True)
            return SavedState(None)
        return SavedState(path, zlib.crc32(state))


def read_state(saved: SavedState) -> bytes:
    """The engine's state that a file holds.

    Raises:
        StateRefused: the file is gone or damaged.
    """
    try:
        state = saved.path.read_bytes() if saved.path else b""
    except OSError as error:
        raise StateRefused("the saved state cannot be read: run the track again") from error
    if zlib.crc32(state) != saved.checksum:
        raise StateRefused("the saved state is damaged: run the track again")
    return state


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
