"""Messages to a worker on another machine, with the files that they name: states go along, videos are asked for."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from backend.errors import MediaError
from backend.jobs.messages import (
    Chunk,
    EncodeFrames,
    OpenVideo,
    PreviewPrompt,
    Reply,
    Request,
    SavedState,
    StartRun,
)

PART_BYTES = 4 << 20
"""How much of a video is sent at once."""


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video's file on the server, and what tells it from another one that was there before."""

    path: Path
    size: int
    modified_ns: int

    @classmethod
    def from_path(cls, path: Path) -> "VideoFile":
        """The file as it is now; one that is missing has no size, and no time."""
        try:
            stat = path.stat()
        except OSError:
            return cls(path, 0, 0)
        return cls(path, stat.st_size, stat.st_mtime_ns)

    @property
    def is_here(self) -> bool:
        """Whether it lies at the same place on this machine: both see one folder."""
        return self.size > 0 and VideoFile.from_path(self.path) == self


@dataclass(frozen=True, slots=True)
class WantVideo:
    """What a node says instead of a reply: it has not got this video."""

    video: VideoFile


@dataclass(frozen=True, slots=True)
class VideoPart:
    """Bytes of a video, in order; none: that was all.

    Attributes:
        error: the server has the video no longer.
    """

    video: VideoFile
    content: bytes = b""
    error: MediaError | None = None


@dataclass(frozen=True, slots=True)
class CarriedRequest:
    """A request on its way to a node.

    Attributes:
        video: the file that it names.
        state: the content of the state that a run starts from.
    """

    request: Request
    video: VideoFile | None = None
    state: bytes = b""


@dataclass(frozen=True, slots=True)
class CarriedReply:
    """A reply on its way back.

    Attributes:
        state: the content of the state that a chunk has.
    """

    reply: Reply
    state: bytes = b""


class ServerFiles:
    """The server's side; one for each worker. Only one thread packs, and only one unpacks."""

    def __init__(self) -> None:
        self._new_states: dict[int, Path] = {}

    def pack(self, request: Request) -> CarriedRequest:
        """A request with the state that it names; a state that cannot be read is empty, which the worker refuses."""
        match request:
            case OpenVideo() | PreviewPrompt() | EncodeFrames():
                return CarriedRequest(request, VideoFile.from_path(request.path))
            case StartRun():
                self._new_states[request.run_id] = request.new_states
                return CarriedRequest(request, state=_read(request.state.path) if request.state else b"")
        return CarriedRequest(request)

    def unpack(self, carried: CarriedReply) -> Reply:
        """A reply whose state is in a file where the run's states belong; one that cannot be written has no path."""
        reply = carried.reply
        if not isinstance(reply, Chunk) or reply.state is None or reply.state.path is None:
            return reply
        new_states = self._new_states[reply.run_id]
        path = new_states.with_name(f"{new_states.name}{reply.state.path.suffix}")
        try:
            path.write_bytes(carried.state)
        except OSError:
            path.unlink(missing_ok=True)
            return replace(reply, state=SavedState(None))
        return replace(reply, state=SavedState(path, reply.state.checksum))


class NodeStates:
    """The node's side of states; one for each worker.

    Args:
        folder: this worker's own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def unpack(self, request: StartRun, content: bytes) -> StartRun:
        """A request whose states are in files of this machine."""
        state = request.state
        if state:
            path = self._folder / f"{request.run_id}.start"
            path.write_bytes(content)
            state = replace(state, path=path)
        return replace(request, state=state, new_states=self._folder / f"{request.run_id}.part")

    def pack(self, reply: Reply) -> CarriedReply:
        """A reply with the content of its state, whose file is deleted."""
        if not isinstance(reply, Chunk) or reply.state is None or reply.state.path is None:
            return CarriedReply(reply)
        content = reply.state.path.read_bytes()
        reply.state.path.unlink()
        return CarriedReply(reply, content)


def send_video(video: VideoFile, send: Callable[[VideoPart], None]) -> None:
    """Send a video to a node, part by part.

    Args:
        send: waits if the node is slow.
    """
    try:
        with video.path.open("rb") as file:
            if VideoFile.from_path(video.path) != video:
                raise FileNotFoundError
            while content := file.read(PART_BYTES):
                send(VideoPart(video, content))
        send(VideoPart(video))
    except OSError:
        send(VideoPart(video, error=MediaError("the video is no longer stored: ask once more")))


def _read(path: Path | None) -> bytes:
    try:
        return path.read_bytes() if path else b""
    except OSError:
        return b""
