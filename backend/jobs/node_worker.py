"""A worker on a node of a cluster: `worker.serve` in a thread, and the files that its messages name."""

import os
import queue
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path

from backend.errors import BackendError
from backend.jobs import worker
from backend.jobs.carried import (
    CarriedReply,
    CarriedRequest,
    NodeStates,
    VideoPart,
    WantVideo,
)
from backend.jobs.messages import EncodeFrames, Failure, OpenVideo, PreviewFailure, PreviewPrompt, Request, StartRun
from backend.jobs.node_videos import NodeVideos
from backend.jobs.worker import EngineFactory
from backend.logs import set_up_logging

_FOLDER = f"sam3-backend-{os.getuid()}"


class NodeWorker:
    """One worker. `handle` and `add_part` are called by a thread each, and a third one iterates over `replies`.

    Args:
        log_level: of its log, which stays on the node.
        max_bytes: of videos that are kept on the node.
    """

    def __init__(self, make_engine: EngineFactory, log_level: str, max_bytes: int) -> None:
        set_up_logging(log_level)
        folder = _shared_folder()
        self._replies: queue.SimpleQueue[CarriedReply | WantVideo | None] = queue.SimpleQueue()
        self._videos = NodeVideos(folder / "videos", max_bytes, lambda video: self._replies.put(WantVideo(video)))
        _delete_states(folder)
        self._states = NodeStates(Path(tempfile.mkdtemp(prefix=f"states-{os.getpid()}-", dir=folder)))
        self._connection, theirs = Pipe()

        def serve() -> None:
            with theirs:
                worker.serve(theirs, make_engine)

        threading.Thread(target=serve, name="worker", daemon=True).start()
        threading.Thread(target=self._read_loop, name="reader", daemon=True).start()

    def replies(self) -> Iterator[CarriedReply | WantVideo]:
        """What the worker sends, until it ends."""
        while (reply := self._replies.get()) is not None:
            yield reply

    def handle(self, carried: CarriedRequest) -> None:
        """Hand a request to the worker."""
        request = carried.request
        try:
            self._connection.send(self._unpack(carried))
        except BackendError as error:
            self._fail(request, error)
        except OSError as error:
            self._fail(request, BackendError(f"the node cannot store a file ({error.strerror}): make room in /tmp"))

    def add_part(self, part: VideoPart) -> None:
        """Take a part of a video that was asked for."""
        self._videos.add(part)

    def _unpack(self, carried: CarriedRequest) -> Request:
        match carried.request:
            case OpenVideo() | PreviewPrompt() | EncodeFrames() as request if carried.video:
                return replace(request, path=self._videos.fetch(carried.video))
            case StartRun() as request:
                return self._states.unpack(request, carried.state)
        return carried.request

    def _fail(self, request: Request, error: BackendError) -> None:
        match request:
            case StartRun():
                reply: Failure | PreviewFailure = Failure(request.run_id, error.with_traceback(None))
            case PreviewPrompt():
                reply = PreviewFailure(request.preview_id, error.with_traceback(None))
            case EncodeFrames():  # a prompt on these frames will say what is wrong
                return
            case _:
                reply = Failure(None, error.with_traceback(None))
        self._replies.put(CarriedReply(reply))

    def _read_loop(self) -> None:
        try:
            while True:
                self._replies.put(self._states.pack(self._connection.recv()))
        except (EOFError, OSError):
            self._replies.put(None)


def _delete_states(folder: Path) -> None:
    """Delete what workers have left that were killed."""
    for path in folder.glob("states-*"):
        number = path.name.split("-")[1]
        if number.isdecimal() and not Path("/proc", number).exists():
            shutil.rmtree(path, ignore_errors=True)


def _shared_folder() -> Path:
    """A folder of this user's workers; one of this worker alone if somebody else has taken its name."""
    folder = Path(tempfile.gettempdir()) / _FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    is_own = status.st_uid == os.getuid() and stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
    return folder if is_own else Path(tempfile.mkdtemp(prefix=_FOLDER))
