"""One job's run on the worker: its session, where it stands, and its results on their way to the server."""

import logging
import threading
import time
import zlib
from collections.abc import Callable, Collection
from concurrent.futures import Executor, Future, wait
from contextlib import ExitStack
from dataclasses import replace
from typing import SupportsBytes

from backend.engines.base import Engine, Propagation
from backend.errors import StateRefused, where
from backend.jobs.messages import Chunk, InitialTracks, RunReply, SavedState, StartRun
from backend.jobs.schedule import Cursor, Position
from backend.tracks.track import FrameResult, ResultBlock
from backend.video import Video

log = logging.getLogger(__name__)

SAVED_FRAMES = 32
"""A session's state is sent at least every so many frames; at most twice as many frames are ever computed again."""
SAVED_SECONDS = 10.0
"""A state is sent at least this often if frames are slow."""
_MAX_UNSAVED_STATES = 1
"""A run waits while more states than this are not on disk. This bounds what a killed worker computes again to the
frames between three states."""
_CHUNK_BYTES = 4 << 20
_FREE_SECONDS, _COST_SHARE = 0.05, 20
"""The states of all runs may cost the first of these; beyond that, this many times their cost goes by until the next
ones."""

SendReply = Callable[[RunReply], None]


class Run:
    """One job's session on its way; a stopped or complete run has to be closed.

    Opening it gives the prompts, unless the request has a state.

    Args:
        send: sends a reply to the server.
        writer: the thread that writes the states and sends the results, while the session goes on.

    Attributes:
        priority: runs with a lower one go first.
    """

    def __init__(self, engine: Engine, video: Video, request: StartRun, send: SendReply, writer: Executor) -> None:
        self.priority = request.priority
        with ExitStack() as resources:
            state = read_state(request.state) if request.state else None
            self._session = resources.enter_context(engine.open(video, state))
            if request.masks:
                self._session.keep_masks()
            if request.state is None:
                send(InitialTracks(request.run_id, request.schedule.prompt(self._session)))
            self._cursor = Cursor(request.schedule, self._session, request.progress)
            resources.callback(self._cursor.close)
            self._sender = _ChunkSender(request, self._session.state, send, writer)
            resources.callback(self._sender.close)
            self._resources = resources.pop_all()

    @property
    def is_complete(self) -> bool:
        """Whether its schedule is complete."""
        return self._cursor.is_complete

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for the server to save its states."""
        return self._sender.unsaved_states > _MAX_UNSAVED_STATES

    @property
    def position(self) -> Position:
        """Where it stands; only while it is not complete."""
        return self._cursor.position

    @property
    def propagation(self) -> Propagation:
        """The results of its pass, from its position on."""
        return self._cursor.propagation

    def add(self, result: FrameResult, companions: Collection[int]) -> None:
        """Send the result of its position, and go on to the next frame.

        Args:
            companions: the ids of the runs that travel together, this one included.
        """
        self._sender.companions = companions
        pass_index = self._cursor.pass_index
        self._cursor.advance()
        self._sender.add(pass_index, result)

    def wait(self, seconds: float) -> None:
        """It stood still for so long, because its states were not on disk."""
        self._sender.add_cost(seconds)

    def acknowledge(self) -> None:
        """One of the states that were sent is on disk."""
        self._sender.unsaved_states -= 1

    def flush(self, with_state: bool = False) -> None:
        """Send the collected results; any thread may do so without a state."""
        self._sender.flush(with_state)

    def close(self) -> None:
        """Free the session, and drop what was not sent."""
        self._resources.close()


class _ChunkSender:
    """Collects results and sends them in chunks: often enough for a live view, seldom enough to cost little.

    Attributes:
        unsaved_states: states that were sent and are not on disk yet.
        companions: the ids of the runs that travel together, this one included.
    """

    def __init__(
        self, request: StartRun, state: Callable[[], SupportsBytes], send: SendReply, writer: Executor
    ) -> None:
        self._request, self._state, self._send, self._writer = request, state, send, writer
        self._last_sent: Future[None] = Future()
        self._last_sent.set_result(None)
        self._state_count = self.unsaved_states = 0
        self.companions: Collection[int] = (request.run_id,)
        self._every = 1 if request.is_retry else SAVED_FRAMES
        self._state_cost = 0.0
        self._lock = threading.Lock()
        self._pass_index = request.progress.pass_index
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
        is_paid = age >= _COST_SHARE * (len(self.companions) * self._state_cost - _FREE_SECONDS)
        return is_paid and (self._unsaved >= self._every or age > SAVED_SECONDS)

    def add_cost(self, seconds: float) -> None:
        """The run stood still for so long, because its states were not on disk."""
        with self._lock:
            self._state_cost += seconds

    def close(self) -> None:
        """Drop what was not flushed, and wait for the rest: nothing of a run may follow its end."""
        with self._lock:
            self._results = []
        wait([self._last_sent])

    def flush(self, with_state: bool = False) -> None:
        """Send the collected results.

        Args:
            with_state: with the session's state; only the session's own thread may ask for it.
        """
        with self._lock:
            if self._results or with_state:
                state = self._state() if with_state else None
                reverse = self._request.schedule.passes[self._pass_index].reverse
                blocks = ResultBlock.from_results(self._results, reverse, self._request.masks)
                chunk = Chunk(self._request.run_id, self._pass_index, blocks, companions=self.companions)
                self._last_sent = self._writer.submit(self._send_chunk, chunk, state)
            self._results, self._size = [], 0
        if with_state:
            self.unsaved_states += 1
            self._unsaved, self._saved_at = 0, time.monotonic()

    def _send_chunk(self, chunk: Chunk, state: SupportsBytes | None) -> None:
        """Send a chunk, with a state if there is one, on the writer's thread."""
        if state is None:
            self._send(chunk)
            return
        start = time.monotonic()
        self._send(replace(chunk, state=self._write_state(state)))
        with self._lock:
            self._state_cost = time.monotonic() - start

    def _write_state(self, state: SupportsBytes) -> SavedState:
        self._state_count += 1
        new_states = self._request.new_states
        path = new_states.with_name(f"{new_states.name}.{self._state_count}")
        try:
            content = bytes(state)
            path.write_bytes(content)
        except OSError as error:
            log.warning("the engine's state is not saved (%s): make room in data_dir", error.strerror)
        except Exception as error:
            log.error("the engine's state is not saved: %s", where(error))
        else:
            return SavedState(path, zlib.crc32(content))
        path.unlink(missing_ok=True)
        return SavedState(None)


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
