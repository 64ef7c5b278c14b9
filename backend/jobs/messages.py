"""What a server and its worker process send each other. Both run the same version, so pickled messages are safe.

A worker has one video open, and any number of runs on it. Each run is one job's: it is started, stopped and answered
by its id.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.engines.base import CacheUse
from backend.errors import BackendError
from backend.jobs.schedule import Progress, Schedule
from backend.tracks.track import ResultBlock
from backend.video import VideoInfo, VideoLimits


@dataclass(frozen=True, slots=True)
class OpenVideo:
    """Request: open a video in place of the one that is open; there are no runs. The reply is its `VideoInfo`."""

    path: Path
    limits: VideoLimits


@dataclass(frozen=True, slots=True)
class SavedState:
    """A session's state, in a file. It never goes over the connection, because it may be larger than memory allows.

    Attributes:
        path: None: there was no room to save it.
        checksum: CRC-32 of the file.
    """

    path: Path | None
    checksum: int = 0


@dataclass(frozen=True, slots=True)
class StartRun:
    """Request: run a schedule on the open video; the replies are `InitialTracks`, `Chunk`s, and `RunEnd` or `Failure`.

    Attributes:
        progress: where to start.
        state: the session's at `progress`; None at the start.
        new_states: where to save further ones: a path, to which a number is added.
        masks: send masks.
        priority: of the run; lower ones go first.
        is_retry: a worker died in this job, so the first states are sent after 1, 2, 4, … frames.
    """

    run_id: int
    schedule: Schedule
    progress: Progress
    state: SavedState | None
    new_states: Path
    masks: bool = False
    priority: int = 0
    is_retry: bool = False


@dataclass(frozen=True, slots=True)
class StopRun:
    """Request: end this run before its next frame."""

    run_id: int


@dataclass(frozen=True, slots=True)
class SetPriority:
    """Request: change the priority of a run."""

    run_id: int
    priority: int


@dataclass(frozen=True, slots=True)
class Ack:
    """Request: the chunks of this run up to its last state are on disk, and the state is in its place."""

    run_id: int


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """The engine's status, used and total bytes of the device's memory, and how its cache of frames is used."""

    status: str
    memory: tuple[int, int] | None = None
    cache: CacheUse | None = None


@dataclass(frozen=True, slots=True)
class InitialTracks:
    """All prompts are given; the names of the tracks that phrases found on their first frame."""

    run_id: int
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Results of one pass; `state`, if sent, is the session's after the last of these frames.

    Attributes:
        companions: the ids of all runs that advanced together to the last of these frames.
    """

    run_id: int
    pass_index: int
    blocks: Sequence[ResultBlock]
    state: SavedState | None = None
    companions: Collection[int] = ()


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The run has ended: the schedule is complete, or it was stopped."""

    run_id: int
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """The run has failed, or, if `run_id` is None, the video could not be opened or there is no engine."""

    run_id: int | None
    error: BackendError


RunRequest = StartRun | StopRun | SetPriority | Ack
Request = OpenVideo | RunRequest
RunReply = InitialTracks | Chunk | RunEnd | Failure
Reply = WorkerStatus | VideoInfo | RunReply
