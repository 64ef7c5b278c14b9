"""The process that the engine lives in: it opens videos, runs sessions, and sends what they say in blocks.

Nothing here knows of jobs, Label Studio or HTTP. A crash, a hung kernel or a file that kills its decoder ends this
process alone; the other side (`backend.jobs.worker_client`) starts another.

One request runs at a time. While it does, a `Stop` is heeded at the next frame; what was sent before it counts.
"""

import logging
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from backend.engines.base import Engine
from backend.errors import BackendError, where
from backend.jobs.propagation import Progress, Schedule
from backend.jobs.spec import VideoInfo
from backend.tracks.track import Block, FrameResult
from backend.video import Video, VideoLimits

log = logging.getLogger(__name__)

SAVED_FRAMES = 32
"""Frames after which a session's state is sent, at the latest: no more than twice these are ever computed again."""
SAVED_SECONDS = 10.0
"""Seconds after which it is sent, where frames take long."""
_BLOCK_SECONDS = 0.05
"""So long are results collected before they are sent; on the page nobody sees the difference."""
_BLOCK_BYTES = 4 << 20
_STATE_BYTES = 900_000_000
"""SQLite keeps no more in one place. Beyond it a job that is broken off has to begin anew."""
_LOOK = 0.25
"""Seconds between two looks at a model that is loading."""
_LOOK_AT_MEMORY = 2.0

EngineFactory = Callable[[], Engine]


@dataclass(frozen=True, slots=True)
class OpenVideo:
    """Ask for a video; it stays open until another one is asked for."""

    path: Path
    limits: VideoLimits


@dataclass(frozen=True, slots=True)
class StartRun:
    """Ask for a course on the open video, from a place on; `state` is the session's there, None at the start.

    `is_wary`: a worker was lost over it, so the first states come after 1, 2, 4, … frames.
    """

    run_id: int
    schedule: Schedule
    progress: Progress
    state: bytes | None
    masks: bool
    is_retry: bool = False


@dataclass(frozen=True, slots=True)
class StopRun:
    """End the run of this turn at the next frame, or before it begins."""

    run_id: int


@dataclass(frozen=True, slots=True)
class Ack:
    """What was said up to the last state of this turn is on disk."""

    run_id: int


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """The engine's, and the device's memory, used and in all, in bytes."""

    status: str
    memory: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class InitialTracks:
    """The session is prompted; names of what phrases have found at once."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What the session said on a way; `state`, where it is told, is as of the last frame of it."""

    pass_index: int
    blocks: Sequence[Block]
    state: bytes | None = None


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The course is done, or was stopped."""

    is_complete: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """What was asked for could not be done."""

    error: BackendError


Reply = WorkerStatus | VideoInfo | InitialTracks | Chunk | RunEnd | Failure


def serve(connection: Connection, make_engine: EngineFactory) -> None:
    """Answer until the other side closes the connection."""
    with suppress(EOFError, OSError):
        _Worker(connection, make_engine).serve()


class _Worker:
    def __init__(self, connection: Connection, make_engine: EngineFactory) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._video: Video | None = None
        self._make_engine = make_engine
        self._path: Path | None = None
        self._stopped_run = -1
        self._run_id = -1
        self.unacknowledged = 0
        """States that were sent and are not on disk yet."""
        self._sender: ChunkSender | None = None

    def send(self, reply: Reply) -> None:
        with self._sending:
            self._connection.send(reply)

    def serve(self) -> None:
        try:
            self._engine = self._make_engine()
        except BackendError as error:
            self.send(Failure(error))
            return
        threading.Thread(target=self._report_loop, name="tick", daemon=True).start()
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
                self.send(Failure(BackendError("the engine failed on this video: see the server's log")))

    def _report_loop(self) -> None:
        """Tell the engine's status, and what has come and waits to be sent."""
        told, look_at = None, 0.0
        with suppress(OSError):  # nobody listens any more
            while True:
                if sender := self._sender:
                    sender.flush()
                if (now := time.monotonic()) >= look_at:
                    status = WorkerStatus(self._engine.status, self._engine.memory())
                    if status != told:
                        self.send(status)
                        told = status
                    look_at = now + (_LOOK if status.status != "ready" else _LOOK_AT_MEMORY)
                time.sleep(_BLOCK_SECONDS)

    def _open(self, request: OpenVideo) -> None:
        video = self._video
        if video is None or self._path != request.path:
            self._video = None
            if video is not None:
                video.close()
            self._path = request.path
            self._video = video = Video(request.path, request.limits)
        self.send(VideoInfo(video.times, video.end, video.width, video.height))

    def _run(self, request: StartRun) -> None:
        if self._video is None:
            raise BackendError("no video is open")
        course = request.schedule
        self._run_id, self.unacknowledged = request.run_id, 0
        with self._engine.open(self._video, request.state) as session:
            if request.state is None:
                self.send(InitialTracks(course.prompt(session)))
            self._sender = sender = ChunkSender(self, request, session.state)
            try:
                for way, result in course.propagate(session, request.progress):
                    sender.add(way, result)
                    if self._is_stopped(request.run_id):
                        sender.flush(with_state=True)
                        self.send(RunEnd(is_complete=False))
                        return
                sender.flush()
            finally:
                self._sender = None
                sender.close()
        self.send(RunEnd(is_complete=True))

    def _is_stopped(self, turn: int) -> bool:
        # No more than one state ahead of the disk: no more than twice the frames between two are ever computed again.
        while self._connection.poll() or (self.unacknowledged > 1 and self._stopped_run != turn):
            self._receive(self._connection.recv())
        return self._stopped_run == turn

    def _receive(self, request: StopRun | Ack) -> None:
        if isinstance(request, StopRun):
            self._stopped_run = request.run_id
        elif request.run_id == self._run_id:
            self.unacknowledged -= 1


class ChunkSender:
    """Collects results, and sends them often enough to be looked at and seldom enough to cost nothing."""

    def __init__(self, worker: _Worker, request: StartRun, state: Callable[[], bytes]) -> None:
        self._worker, self._schedule, self._state, self._masks = worker, request.schedule, state, request.masks
        self._every = 1 if request.is_retry else SAVED_FRAMES
        self._lock = threading.Lock()
        self._pass_index = 0
        self._results: list[FrameResult] = []
        self._size = 0
        self._unsaved = 0
        self._saved_at = time.monotonic()

    def add(self, pass_index: int, result: FrameResult) -> None:
        """The next result."""
        if pass_index != self._pass_index:
            self.flush()
            self._pass_index = pass_index
        with self._lock:
            self._results.append(result)
        self._unsaved += 1
        self._size += 64 * (1 + len(result.tracks))
        is_due = self._unsaved >= self._every or time.monotonic() - self._saved_at > SAVED_SECONDS
        if is_due or self._size > _BLOCK_BYTES:
            self.flush(with_state=is_due)
            self._every = min(2 * self._every, SAVED_FRAMES)

    def close(self) -> None:
        """Send nothing any more: after what ends a run nothing of it may come."""
        with self._lock:
            self._results = []

    def flush(self, with_state: bool = False) -> None:
        """Send what there is; `is_saved`: with the session's state there, which its own thread alone may ask for."""
        with self._lock:
            state = self._state() if with_state else None
            if state is not None and len(state) > _STATE_BYTES:
                log.warning("with so many objects the engine's state is too large to be kept")
                state = None
            if self._results or state is not None:
                reverse = self._schedule.passes[self._pass_index][1]
                self._worker.unacknowledged += state is not None
                self._worker.send(Chunk(self._pass_index, Block.of(self._results, reverse, self._masks), state))
            self._results, self._size = [], 0
        if with_state:
            self._unsaved, self._saved_at = 0, time.monotonic()


def main() -> None:
    """The process, given a file descriptor: the connection is inherited, what makes the engine comes over it."""
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), name="parent", daemon=True).start()
    with Connection(int(sys.argv[1])) as connection, suppress(EOFError):
        level, make = pickle.loads(connection.recv_bytes())  # noqa: S301 (our own parent's)
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        serve(connection, make)
    # Threads of a model that is still loading must not keep a process that nobody needs.
    os._exit(0)


def _exit_with_parent(parent: int) -> None:
    """End with the parent, also in the middle of a long frame."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)
