"""What a job does, in Label Studio's frames and percent: plain values that are stored with the job."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from backend.errors import BadRequest
from backend.jobs.propagation import PropagationRun
from backend.jobs.schedule import Interval
from backend.labelstudio.keyframe_memo import KeyframeMemo
from backend.tracks.frame_range import ALL_FRAMES, FrameRange
from backend.tracks.geometry import Box
from backend.tracks.prompts import LIKE, Direction, Exemplar, Phrase, Point, Prompt, TextSearch
from backend.video import VideoInfo
from backend.video.frame_clock import FrameClock

OBJECT_TRACK = "object"
"""The name of the track that boxes and clicks prompt."""
_STORED_NAMES = {"prompts": "shown", "intervals": "stretches", "ranges": "within"}
"""JSON keys that differ from the field's name; databases of earlier versions have them."""


@dataclass(frozen=True, slots=True)
class FramePrompts:
    """The prompts of the object on one LS frame.

    Attributes:
        box: x, y, width, height in percent, and rotation in degrees; None: no box.
        points: x and y in percent, and whether the point lies on the object.
    """

    frame: int
    box: tuple[float, float, float, float, float] | None = None
    points: tuple[tuple[float, float, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class ExemplarBox:
    """An example of what to find, or of what not to find, on one LS frame.

    Attributes:
        box: as of `FramePrompts`.
    """

    frame: int
    box: tuple[float, float, float, float, float]
    positive: bool = True


@dataclass(frozen=True, slots=True)
class ResolvedJob:
    """A job spec applied to its video: what the session does, and its results so far.

    Attributes:
        memo: choices of keyframes for its tracks.
    """

    clock: FrameClock
    size: tuple[int, int]
    propagation: PropagationRun
    memo: KeyframeMemo = field(default_factory=KeyframeMemo)


@dataclass(frozen=True, slots=True)
class JobSpec:
    """The prompts of one job on one task's video.

    Attributes:
        task: its id in Label Studio.
        project: the project's id, which tells the Label Studio to fetch the video from.
        url: the video's address in the task.
        framerate: frames per second that the page counts with.
        length: how many frames the page counts, if known: a prompt may lie on any of them.
        max_frames: how far to go beyond the prompts; 0: no limit.
        prompts: of the one object, in any order.
        intervals: LS frames to go through, from one prompt to the next; None: to the video's start or end.
        ranges: the parts of the video to go through; empty: all of it.
        phrases: what to find, from the first frame of the first of these parts on.
        exemplars: examples of what to find on their frames; the only phrase then is `like`, and the words beside them.
        is_class: it only tells the class of an object that another job tracks.
        classes: of the object, for people.
        masks: keep its masks, whatever the settings say.
        user: who asked for it, as Label Studio calls them, for people; empty: unknown.
    """

    task: str
    project: str
    url: str
    framerate: float
    length: int | None = None
    max_frames: int = 0
    prompts: tuple[FramePrompts, ...] = ()
    intervals: tuple[tuple[int | None, int | None], ...] = ()
    ranges: tuple[FrameRange, ...] = ()
    phrases: tuple[str, ...] = ()
    exemplars: tuple[ExemplarBox, ...] = ()
    is_class: bool = False
    classes: tuple[str, ...] = ()
    user: str = ""
    masks: bool = False

    @property
    def direction(self) -> Direction:
        """Where it tracks beyond its outer prompts."""
        ways = {first is None for first, last in self.intervals if first is None or last is None}
        return "both" if len(ways) == 2 else "backward" if True in ways else "forward"

    @property
    def kind(self) -> str:
        """The kind of the prompts: like, words, clicks or box; or class."""
        if self.is_class:
            return "class"
        if self.exemplars:
            return "like"
        return "words" if self.phrases else "box" if any(prompts.box for prompts in self.prompts) else "clicks"

    def to_json(self) -> str:
        """The spec as JSON; its keys are part of the database's schema."""
        stored = {_STORED_NAMES.get(name, name): value for name, value in asdict(self).items()}
        if not self.masks:  # so that the digests of earlier versions' jobs still hold
            del stored["masks"]
        return json.dumps(stored, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a spec that `to_json` wrote.

        Raises:
            ValueError: the text is not a job spec.
        """
        try:
            stored = dict(json.loads(text))
            prompts = tuple(
                FramePrompts(shown["frame"], shown["box"] and tuple(shown["box"]), tuple(map(tuple, shown["points"])))
                for shown in stored.pop("shown")
            )
            intervals = tuple((first, last) for first, last in stored.pop("stretches"))
            ranges = tuple(FrameRange(*pair) for pair in stored.pop("within"))
            phrases, classes = tuple(stored.pop("phrases")), tuple(stored.pop("classes", ()))
            exemplars = tuple(
                ExemplarBox(one["frame"], tuple(one["box"]), one["positive"]) for one in stored.pop("exemplars", ())
            )
            stored |= {"prompts": prompts, "intervals": intervals, "ranges": ranges, "exemplars": exemplars}
            return cls(**stored, phrases=phrases, classes=classes)
        except (TypeError, LookupError) as error:
            raise ValueError("this is not a job spec") from error

    def resolve(self, video: VideoInfo) -> ResolvedJob:
        """Convert LS frames and percent to source frames and pixels of a video.

        Raises:
            BadRequest: a prompt lies outside the video.
        """
        clock = FrameClock(video.times, video.end, self.framerate)
        size = video.size
        intervals = [
            Interval(*(None if frame is None else clock.source_frame(frame) for frame in pair))
            for pair in self.intervals
        ]
        propagation = PropagationRun(
            len(video.times),
            {OBJECT_TRACK: intervals} if self.prompts else {},
            resolve_prompts(self.prompts, clock, size, self.length),
            self._resolve_exemplars(clock, size) if self.exemplars else self._resolve_phrases(clock),
            self.direction,
            max_frames=self.max_frames,
            span=self._span(intervals, clock),
        )
        return ResolvedJob(clock, size, propagation)

    def _resolve_phrases(self, clock: FrameClock) -> list[Phrase]:
        if not self.phrases:
            return []
        first = self.ranges[0].first if self.ranges else 1
        clock.check_frame(first)
        return [Phrase(text, clock.source_frame(first)) for text in self.phrases]

    def _resolve_exemplars(self, clock: FrameClock, size: tuple[int, int]) -> list[Phrase]:
        exemplars: dict[int, tuple[Exemplar, ...]] = {}
        for one in self.exemplars:
            clock.check_frame(one.frame, self.length)
            frame = clock.source_frame(one.frame)
            exemplar = Exemplar(_resolve_box(one.frame, one.box, size), one.positive)
            exemplars[frame] = (*exemplars.get(frame, ()), exemplar)
        words = self.phrases[0].removeprefix(LIKE).strip()
        return TextSearch(None, words, exemplars=exemplars).phrases(0)

    def _span(self, intervals: Sequence[Interval], clock: FrameClock) -> range | None:
        """The source frames of the ranges and of the way to them from the prompts; None: the whole video."""
        if not self.ranges or ALL_FRAMES in self.ranges:
            return None
        sources = {clock.source_frame(min(frame, clock.length)) for frames in self.ranges for frame in frames}
        sources |= {frame for interval in intervals for frame in (interval.first, interval.last) if frame is not None}
        return range(min(sources), max(sources) + 1)


def resolve_prompts(
    prompts: Iterable[FramePrompts], clock: FrameClock, size: tuple[int, int], length: int | None = None
) -> list[Prompt]:
    """Convert the prompts of one object to source frames and pixels of a video.

    Args:
        size: width and height of its pictures.
        length: as in `JobSpec`.

    Raises:
        BadRequest: one lies outside the video.
    """
    resolved: dict[int, Prompt] = {}
    for shown in sorted(prompts, key=lambda shown: shown.frame):
        clock.check_frame(shown.frame, length)
        source = clock.source_frame(shown.frame)
        box = _resolve_box(shown.frame, shown.box, size) if shown.box else None
        points = tuple(Point(x * size[0] / 100, y * size[1] / 100, positive) for x, y, positive in shown.points)
        if earlier := resolved.get(source):  # two LS frames may show the same picture
            box, points = box or earlier.box, earlier.points + points
        resolved[source] = Prompt(OBJECT_TRACK, source, box, points)
    return list(resolved.values())


def prompt_digest(model_version: str, parts: Sequence[Any]) -> str:
    """A digest of a prompt. Labels are no part of it: they do not change how an object is tracked."""
    return hashlib.sha256("|".join(map(str, [model_version, *parts])).encode(errors="replace")).hexdigest()


def _resolve_box(frame: int, percent: Sequence[float], size: tuple[int, int]) -> Box:
    x, y, width, height, rotation = percent
    scale_x, scale_y = size[0] / 100, size[1] / 100
    box = Box.from_rotated(x * scale_x, y * scale_y, width * scale_x, height * scale_y, rotation)
    if not box.clip(*size).area > 0:
        raise BadRequest(f"the box on frame {frame} lies outside the picture: draw it on the object")
    return box
