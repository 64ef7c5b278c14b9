"""What a job is made of, in the page's own frames and percent: plain values that a restart finds again on disk."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from backend.errors import BadRequest
from backend.jobs.propagation import Interval, PropagationRun
from backend.labelstudio.commands import EVERYWHERE, Range
from backend.labelstudio.frame_clock import Clock
from backend.labelstudio.keyframe import Item
from backend.tracks.prompts import Phrase, Point, Prompt

OBJECT_TRACK = "object"
"""The name of the one track that is shown by boxes and clicks."""


_STORED_NAMES = {"prompts": "shown", "intervals": "stretches", "ranges": "within"}
"""JSON keys that differ from the field's name; databases of earlier versions have them."""


@dataclass(frozen=True, slots=True)
class FramePrompts:
    """What a person showed of the object on one LS frame.

    Attributes:
        box: x, y, width, height in percent, and rotation in degrees; None: no box.
        points: x and y in percent, and whether it is on the object.
    """

    frame: int
    box: tuple[float, float, float, float, float] | None = None
    points: tuple[tuple[float, float, bool], ...] = ()

    @classmethod
    def from_keyframe(cls, item: Item | None, frame: int, points: Sequence[tuple[float, float, bool]]) -> Self:
        """A keyframe and clicks on one frame."""
        box = (item.x, item.y, item.width, item.height, item.rotation) if item else None
        return cls(frame, box, tuple(points))


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """A video as the worker opened it.

    Attributes:
        times: seconds at which each picture appears, shape (n,).
        end: seconds at which the last one ends.
        width, height: pixels.
    """

    times: NDArray[np.float64]
    end: float
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ResolvedJob:
    """A recipe for a video that is known: what a session does, and what has come of it so far."""

    clock: Clock
    size: tuple[int, int]
    propagation: PropagationRun


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One job's prompts on one task's video; JSON there and back.

    Attributes:
        task: Label Studio's id.
        project: of the project, whose Label Studio the video is fetched from.
        url: the video's address as the task has it.
        framerate: frames per second that the page counts with.
        length: frames that the page counts, where it says so: a prompt may lie on any of them.
        max_frames: how far to go beyond what was prompted; 0: no limit.
        shown: of the one object, in any order.
        stretches: LS frames to go through, from one prompt to the next; None: to the video's start or end.
        within: the parts of the video that are gone through at all; nothing: all of it.
        phrases: what to find on the first of these parts.
    """

    task: str
    project: str
    url: str
    framerate: float
    length: int | None = None
    max_frames: int = 0
    prompts: tuple[FramePrompts, ...] = ()
    intervals: tuple[tuple[int | None, int | None], ...] = ()
    ranges: tuple[Range, ...] = ()
    phrases: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Of the prompts: words, clicks or box."""
        return "words" if self.phrases else "box" if any(one.box for one in self.prompts) else "clicks"

    def to_json(self) -> str:
        """The spec as JSON; its keys are part of the database's schema."""
        fields = asdict(self)
        stored = {_STORED_NAMES.get(name, name): value for name, value in fields.items()}
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
                FramePrompts(
                    frame["frame"],
                    frame["box"] and tuple(frame["box"]),
                    tuple(tuple(point) for point in frame["points"]),
                )
                for frame in stored.pop("shown")
            )
            intervals = tuple((first, last) for first, last in stored.pop("stretches"))
            ranges = tuple(Range(*pair) for pair in stored.pop("within"))
            phrases = tuple(stored.pop("phrases"))
            return cls(**stored, prompts=prompts, intervals=intervals, ranges=ranges, phrases=phrases)
        except (TypeError, LookupError) as error:
            raise ValueError("this is not a job spec") from error

    def resolve(self, video: VideoInfo) -> ResolvedJob:
        """What to do on a video.

        Raises:
            BadRequest: a prompt lies outside it.
        """
        clock = Clock(video.times, video.end, self.framerate)
        length, size = len(video.times), (video.width, video.height)
        stretches = [Interval(*(None if one is None else clock.source(one) for one in pair)) for pair in self.intervals]
        propagations = PropagationRun(
            length,
            {OBJECT_TRACK: stretches} if self.prompts else {},
            self._prompts(clock, size),
            self._phrases(clock),
            max_frames=self.max_frames,
            span=self._span(stretches, clock),
        )
        return ResolvedJob(clock, size, propagations)

    def _prompts(self, clock: Clock, size: tuple[int, int]) -> list[Prompt]:
        shown: dict[int, Prompt] = {}
        for one in sorted(self.prompts, key=lambda one: one.frame):
            clock.check(one.frame, self.length)
            source = clock.source(one.frame)
            box = self._box(one, size) if one.box else None
            points = tuple(Point(x * size[0] / 100, y * size[1] / 100, positive) for x, y, positive in one.points)
            if earlier := shown.get(source):  # two LS frames that show one picture
                box, points = box or earlier.box, earlier.points + points
            shown[source] = Prompt(OBJECT_TRACK, source, box, points)
        return list(shown.values())

    def _box(self, prompts: FramePrompts, size: tuple[int, int]) -> Any:
        box = Item(prompts.frame, True, *(prompts.box or ())).box(*size)
        if not box.clipped(*size).area > 0:
            raise BadRequest(f"the box on frame {prompts.frame} lies outside the picture: draw it on the object")
        return box

    def _phrases(self, clock: Clock) -> list[Phrase]:
        if not self.phrases:
            return []
        first = self.ranges[0].first if self.ranges else 1
        clock.check(first)
        return [Phrase(text, clock.source(first)) for text in self.phrases]

    def _span(self, stretches: Sequence[Interval], clock: Clock) -> range | None:
        """The source frames that are gone through where only some are asked for: those, and the way to them."""
        if not self.ranges or EVERYWHERE in self.ranges:
            return None
        sources = {clock.source(min(frame, clock.length)) for one in self.ranges for frame in one}
        sources |= {frame for one in stretches for frame in (one.first, one.last) if frame is not None}
        return range(min(sources), max(sources) + 1)
