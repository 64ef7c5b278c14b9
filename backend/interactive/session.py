"""One session: a task's video with what a person looks at, prompts and tracks there."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.engines.base import PREVIEW_FRAMES
from backend.errors import BadRequest, Busy
from backend.jobs.job import Job
from backend.jobs.schedule import intervals_between
from backend.jobs.scheduler import Scheduler
from backend.jobs.spec import ExemplarBox, FramePrompts, JobSpec, prompt_digest, resolve_prompts
from backend.jobs.worker_pool import WorkerPool
from backend.tracks.frame_range import FrameRange
from backend.tracks.prompts import Direction
from backend.tracks.track import Observation
from backend.video import VideoInfo, VideoLimits
from backend.video.frame_clock import FrameClock

_PREVIEW_SECONDS = 60.0
"""How long a preview may take; a large model on a CPU needs most of it to encode the frame."""


@dataclass(frozen=True, slots=True)
class SessionKey:
    """What a session is about.

    Attributes:
        project, task: their ids in Label Studio.
        url: the video's address in the task.
        framerate: frames per second that the page counts with.
        user: who looks at it; empty: whoever does.
    """

    project: str
    task: str
    url: str
    framerate: float
    user: str = ""


class InteractiveSession:
    """Prompts are in LS frames and percent, as in a `JobSpec`; answers are in source frames and pixels.

    Any thread may use it.

    Args:
        name: identifies the session on the worker.
        path: the video's file.

    Attributes:
        video: timing and size of the video.
        clock: converts LS frames to source frames.
        used_at: when it was used last, of the monotonic clock.
    """

    def __init__(
        self,
        name: str,
        key: SessionKey,
        path: Path,
        video: VideoInfo,
        pool: WorkerPool,
        scheduler: Scheduler,
        limits: VideoLimits,
    ) -> None:
        self.name, self.key, self.video = name, key, video
        self.clock = FrameClock(video.times, video.end, key.framerate)
        self.used_at = time.monotonic()
        self._path, self._limits = path, limits
        self._pool, self._scheduler = pool, scheduler
        self._encoded: OrderedDict[int, None] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def is_available(self) -> bool:
        """Whether the video's file is still there."""
        return self._path.exists()

    def encode_ahead(self, frames: Iterable[int]) -> None:
        """Encode LS frames before they are prompted, in this order, instead of those that were ordered before.

        Raises:
            BadRequest: the video has no such frame.
        """
        self.used_at = time.monotonic()
        frames = list(frames)
        for frame in frames:
            self.clock.check_frame(frame)
        ordered = dict.fromkeys(map(self.clock.source_frame, frames))
        wanted = [frame for frame in list(ordered)[:PREVIEW_FRAMES] if frame not in self.encoded_frames]
        if self._pool.status == "ready":  # else the first preview encodes its own frame
            self._pool.previews.encode(self.name, self._path, self._limits, wanted)

    @property
    def encoded_frames(self) -> frozenset[int]:
        """Source frames that are encoded, as far as other sessions have not taken their place."""
        with self._lock:
            return frozenset(self._encoded)

    def add_encoded(self, frame: int) -> None:
        """The worker has encoded a source frame."""
        with self._lock:
            self._encoded[frame] = None
            self._encoded.move_to_end(frame)
            if len(self._encoded) > PREVIEW_FRAMES:
                self._encoded.popitem(last=False)

    def forget_encoded(self) -> None:
        """The worker has no encoded frames of this session any more."""
        with self._lock:
            self._encoded.clear()

    def preview(self, prompts: FramePrompts) -> Sequence[Observation]:
        """What the prompts of a new object would select on their frame; nothing is kept of it.

        Returns:
            The candidates, best first, as `backend.engines.base.Engine.preview` returns them.

        Raises:
            BadRequest: the prompts lie outside the video, or a newer preview of this session has replaced this one.
            Busy: the model is not ready.
        """
        self.used_at = time.monotonic()
        (prompt,) = resolve_prompts([prompts], self.clock, self.video.size)
        self._check_ready()
        return self._pool.previews.preview(self.name, self._path, self._limits, prompt, _PREVIEW_SECONDS)

    def start_track(
        self,
        region: str,
        prompts: Sequence[FramePrompts] = (),
        direction: Direction = "forward",
        *,
        intervals: tuple[tuple[int | None, int | None], ...] | None = None,
        max_frames: int = 0,
        ranges: tuple[FrameRange, ...] = (),
        phrases: tuple[str, ...] = (),
        classes: tuple[str, ...] = (),
        exemplars: tuple[ExemplarBox, ...] = (),
        masks: bool = False,
    ) -> Job:
        """Track an object from its prompts, or find the objects of phrases: a job like any other.

        It is kept, resumed after a restart, and travels with the task's other jobs. Prompts that were given under the
        same id before are replaced.

        Args:
            region: the id of the region that the track becomes.
            direction: from the first and the last prompt; between prompts it goes both ways.
            intervals: LS frames to go through, instead of `direction`; see `JobSpec`.
            max_frames, ranges, phrases, classes, exemplars, masks: see `JobSpec`.

        Raises:
            BadRequest: there are no prompts, or they lie outside the video.
            Busy: too many jobs wait.
        """
        self.used_at = time.monotonic()
        self._pool.check_engine()
        if not prompts and not phrases:
            raise BadRequest("there is nothing to track: click on the object, draw a box around it or give words")
        frames = sorted({one.frame for one in prompts})
        if intervals is None:
            pairs = intervals_between(frames, direction) if frames else []
            intervals = tuple((one.first, one.last) for one in pairs)
        key = self.key
        spec = JobSpec(
            task=key.task,
            project=key.project,
            url=key.url,
            framerate=key.framerate,
            max_frames=max_frames,
            prompts=tuple(prompts),
            intervals=intervals,
            ranges=ranges,
            phrases=phrases,
            classes=classes,
            user=key.user,
            exemplars=exemplars,
            masks=masks,
        )
        spec.resolve(self.video)
        digest = prompt_digest(self._pool.model_version, [key.url, spec.to_json()])
        return self._scheduler.submit((key.task, "region", region), digest, spec)

    def _check_ready(self) -> None:
        """Raises Busy if the model is not ready, SettingsError if it never will be."""
        self._pool.check_engine()
        if (status := self._pool.status) != "ready":
            raise Busy(f"the model is {status}: try again when it is ready")
