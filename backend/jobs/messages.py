"""What a server and its worker process send each other. Both run the same version, so pickled messages are safe.

A worker has one video open, and any number of runs on it. Each run is one job's: it is started, stopped and answered
by its id. Previews belong to no job: they open videos of their own, and are answered before runs go on.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.engines.base import CacheUse
from backend.errors import BackendError
from backend.jobs.schedule import Progress, Schedule
from backend.tracks.prompts import Prompt
from backend.tracks.track import Observation, ResultBlock
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
class PreviewPrompt:
    """Request: what would this prompt select? The reply is `PreviewMasks` or `PreviewFailure`.

    Attributes:
        session: who asks; a newer prompt of the same session replaces one that waits.
    """

    preview_id: int
    session: str
    path: Path
    limits: VideoLimits
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class EncodeFrames:
    """Request: encode these frames for previews, in this order, instead of those that the session ordered before.

    The reply is a `FrameEncoded` for each.
    """

    session: str
    path: Path
    limits: VideoLimits
    frames: Sequence[int]


@dataclass(frozen=True, slots=True)
class EndPreviews:
    """Request: forget a session."""

    session: str


@dataclass(frozen=True, slots=True)
class PreviewMasks:
    """What a prompt would select; see `Engine.preview`."""

    preview_id: int
    candidates: Sequence[Observation]


@dataclass(frozen=True, slots=True)
class PreviewFailure:
    """A prompt cannot be previewed."""

    preview_id: int
    error: BackendError


@dataclass(frozen=True, slots=True)
class FrameEncoded:
    """A frame that a session ordered is encoded."""

    session: str
    frame: int


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
    """The run has ended: the schedule is complete, or it was stopped.

    Attributes:
        damage: see `Video.damage`.
    """

    run_id: int
    is_complete: bool
    damage: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """The run has failed, or, if `run_id` is None, the video could not be opened or there is no engine."""

    run_id: int | None
    error: BackendError


RunRequest = StartRun | StopRun | SetPriority | Ack
PreviewRequest = PreviewPrompt | EncodeFrames | EndPreviews
Request = OpenVideo | RunRequest | PreviewRequest
RunReply = InitialTracks | Chunk | RunEnd | Failure
PreviewReply = PreviewMasks | PreviewFailure | FrameEncoded
Reply = WorkerStatus | VideoInfo | RunReply | PreviewReply
