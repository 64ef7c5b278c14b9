"""The server's side of a worker: starts it when it is needed, kills it when it hangs, starts another."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from backend.engines.base import FAILED_PREFIX, CacheUse
from backend.errors import BackendError, SettingsError
from backend.jobs.engine_status import EngineStatus
from backend.jobs.messages import (
    Ack,
    Failure,
    OpenVideo,
    PreviewReply,
    Reply,
    Request,
    RunEnd,
    RunReply,
    SetPriority,
    StartRun,
    StopRun,
    WorkerStatus,
)
from backend.jobs.preview_client import PreviewClient
from backend.jobs.worker_link import NodeDied, WorkerLauncher, WorkerLink
from backend.video import VideoInfo, VideoLimits

log = logging.getLogger(__name__)

_MAX_REPLIES = 64
"""Replies that wait to be read; when there are more, the worker waits."""


class WorkerDied(Exception):
    """The worker died, or was killed because it hung. What it sent before counts.

    Attributes:
        with_node: the machine that it ran on is lost.
    """

    def __init__(self, *, with_node: bool = False) -> None:
        super().__init__()
        self.with_node = with_node


class _WakeUp:
    """What `wake` puts among the replies."""


_Replies = queue.Queue[VideoInfo | RunReply | _WakeUp | WorkerDied]
"""`WorkerDied` is the last."""


class WorkerClient:
    """Talks to one worker at a time; only one thread may call `wait_until_ready`, `open`, `start_run` and `next_reply`.

    Attributes:
        device: what its engine runs on, for people.
        previews: what prompts would select; any thread may ask.
        on_end: called when a worker has ended.
        model_version: engine and version, as Label Studio and saved jobs have it.
        memory: used and total bytes of the device's memory; None: unknown.
        cache: how the engine's cache of frames is used; None: it has none, or it is not ready.

    Args:
        launch: starts a worker.
        name, version: of the workers' engine.
        timeout: seconds without a message after which a worker whose model is ready counts as hung.
        loading_timeout: seconds after which a worker whose model is still not ready counts as hung.
    """

    def __init__(
        self,
        launch: WorkerLauncher,
        name: str,
        version: str,
        timeout: float,
        loading_timeout: float = 3600.0,
        device: str = "",
    ) -> None:
        self.name, self.version, self.device = name, version, device
        self.model_version = f"{name}-{version}"
        self.memory: tuple[int, int] | None = None
        self.cache: CacheUse | None = None
        self._launch, self._timeout, self._loading_timeout = launch, timeout, loading_timeout
        # Locked briefly; no other lock is taken under it.
        self._lock = threading.Lock()
        self._link: WorkerLink | None = None
        self._reader: threading.Thread | None = None
        self._replies: _Replies = queue.Queue(_MAX_REPLIES)
        self._engine = EngineStatus()
        self._closed = self._is_let_go = False
        self._started_runs: set[int] = set()
        self._stopped_runs: set[int] = set()
        self._heard_at = time.monotonic()
        self.previews = PreviewClient(self._send)
        self.on_end: Callable[[], None] = lambda: None

    @property
    def is_running(self) -> bool:
        """Whether there is a worker, ready or not."""
        return self._link is not None

    @property
    def status(self) -> str:
        """The engine's status, as `backend.engines.base` defines it."""
        return self._engine.text

    def start(self) -> None:
        """Start a worker unless one runs.

        Raises:
            SettingsError: the engine cannot be made, or workers keep dying before it is ready.
        """
        with self._lock:
            if self._link or self._closed:
                return
            self._engine.begin()
            self._is_let_go = False
            self._replies = queue.Queue(_MAX_REPLIES)
            self._link = self._launch()
            current = self._link, self._replies
            self._reader = threading.Thread(target=self._read_loop, args=current, name="worker-reader", daemon=True)
            self._reader.start()

    def wait_until_ready(self, is_stopped: Callable[[], bool]) -> bool:
        """Start a worker unless one runs, and wait until its model is ready.

        Args:
            is_stopped: whether to give up; asked again after `wake`.

        Returns:
            False: it was stopped.

        Raises:
            BackendError: there is no engine.
            WorkerDied: the worker died while it loaded its model.
        """
        self.start()
        while self._engine.is_loading:
            if is_stopped():
                return False
            match self._replies.get():
                case WorkerDied() as died:
                    raise died
                case Failure(_, error):
                    raise error
        return True

    def open(self, path: Path, limits: VideoLimits) -> VideoInfo:
        """Open a video, in place of the one that is open; only while there are no runs.

        Raises:
            BackendError: the video cannot be decoded, or there is no engine.
            WorkerDied: the worker died while opening it.
        """
        self.start()
        self._request(OpenVideo(path, limits))
        while not isinstance(reply := self._reply(), VideoInfo):  # stopped runs may still send replies
            if isinstance(reply, Failure) and reply.run_id is None:
                raise reply.error
        return reply

    def start_run(self, request: StartRun) -> None:
        """Start a run on the open video; `next_reply` returns its replies.

        Raises:
            WorkerDied: this client is closed.
        """
        # Not on a new worker, which would have no open video: if this one has died, `next_reply` says so.
        self._request(request)
        with self._lock:
            self._started_runs.add(request.run_id)
            is_stopped = request.run_id in self._stopped_runs
        if is_stopped:
            self._send(StopRun(request.run_id))

    def next_reply(self) -> RunReply | None:
        """The next reply to a run; None: `wake` was called meanwhile.

        Raises:
            WorkerDied: the worker died; all of its runs are lost.
        """
        reply = self._reply()
        if isinstance(reply, VideoInfo):
            raise BackendError("the engine process returned an invalid reply; see the server log")
        if isinstance(reply, RunEnd | Failure) and reply.run_id is not None:
            with self._lock:
                self._started_runs.discard(reply.run_id)
        return reply

    def wake(self) -> None:
        """Let `next_reply` return soon, also without a reply."""
        with suppress(queue.Full):  # then it returns soon anyway
            self._replies.put_nowait(_WakeUp())

    def acknowledge(self, run_id: int) -> None:
        """Tell the worker that the chunks of a run up to its last state are on disk."""
        self._send(Ack(run_id))

    def set_priority(self, run_id: int, priority: int) -> None:
        """Change the priority of a run."""
        self._send(SetPriority(run_id, priority))

    def stop_run(self, run_id: int) -> None:
        """Stop a run before its next frame; it may start later than this call."""
        with self._lock:
            self._stopped_runs.add(run_id)
            has_started = run_id in self._started_runs
        if has_started:
            self._send(StopRun(run_id))

    def kill(self) -> None:
        """Kill the worker; another is started when one is needed."""
        with self._lock:
            link = self._link
        if link:
            link.kill()

    def let_go(self) -> None:
        """End a worker that has nothing to do; another is started when one is needed."""
        self._is_let_go = True
        self.kill()

    def close(self) -> None:
        """Kill the worker for good."""
        self._closed = True
        self.kill()

    def join(self, seconds: float) -> None:
        """Wait until the last worker has ended."""
        with self._lock:
            reader = self._reader
        if reader:
            reader.join(max(seconds, 0.0))

    def _request(self, request: OpenVideo | StartRun) -> None:
        if self._closed:
            raise WorkerDied
        self._heard_at = time.monotonic()
        self._send(request)

    def _send(self, request: Request) -> bool:
        """Send a request; if the worker has died, `_reply` says so. False: no worker runs."""
        with self._lock:
            link = self._link
        if link:
            link.send(request)
        return link is not None

    def _reply(self) -> VideoInfo | RunReply | None:
        """The next reply; None after `wake`. While the model loads, `_read_loop` limits the time."""
        while True:
            left = self._heard_at + self._timeout - time.monotonic()
            try:
                reply = self._replies.get(timeout=max(left, 0.0))
            except queue.Empty:
                self._heard_at = time.monotonic()
                if self.status == "ready":
                    log.error("the engine process sent nothing for %g s; killing it", self._timeout)
                    self.kill()
                continue
            if isinstance(reply, _WakeUp):
                return None
            if isinstance(reply, WorkerDied):
                raise reply
            self._heard_at = time.monotonic()
            return reply

    def _read_loop(self, link: WorkerLink, replies: _Replies) -> None:
        """Queue replies and record statuses until the worker ends, or has not loaded its model in time."""
        deadline, died = time.monotonic() + self._loading_timeout, WorkerDied()
        try:
            while reply := link.receive(deadline - time.monotonic() if self._engine.is_limited else None):
                was_limited = self._engine.is_limited
                self._handle(reply, replies)
                if not was_limited:
                    deadline = time.monotonic() + self._loading_timeout
        except EOFError as error:
            died.with_node = isinstance(error, NodeDied)
        link.kill()
        with self._lock:
            self._link = None
            self._started_runs.clear()
            self.memory = self.cache = None
            if self._is_let_go:
                self._engine.update("loading")
            elif died.with_node:
                self._engine.record_loss()
            elif not self._closed:
                is_late = self._engine.is_limited and time.monotonic() >= deadline
                self._engine.record_death(is_late, self._loading_timeout)
        self.previews.fail_all()
        self.on_end()
        replies.put(died)

    def _handle(self, reply: Reply, replies: _Replies) -> None:
        if isinstance(reply, WorkerStatus):
            self._engine.update(reply.status)
            self.memory, self.cache = reply.memory, reply.cache
            self.wake()
        elif isinstance(reply, PreviewReply):
            self.previews.handle(reply)
        else:
            if isinstance(reply, Failure) and isinstance(reply.error, SettingsError):
                self._engine.update(FAILED_PREFIX + str(reply.error))
            replies.put(reply)
