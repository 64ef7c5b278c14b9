"""The job behind a region: its file opened, human keyframes and clicks prompted, unfinished segments tracked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from backend.errors import BadRequest
from backend.geometry import Box, Boxes
from backend.jobs.footage import Footage
from backend.jobs.propagation import Propagation, Stretch
from backend.labelstudio import sequence
from backend.labelstudio.clicks import Click
from backend.labelstudio.clock import Clock
from backend.labelstudio.grammar import EVERYWHERE
from backend.labelstudio.regions import Region
from backend.labelstudio.segments import Segment, kept, keyframes, sampled, shown
from backend.labelstudio.sequence import LAST_FRAME, Item
from backend.prompts import Direction, Point, Prompt
from backend.tracks import Track
from backend.video import Video


@dataclass(frozen=True, slots=True)
class _View:
    """What is known once the file is open."""

    clock: Clock
    size: tuple[int, int]
    propagation: Propagation


Keyframes = tuple[list[Item], float | None]


class Tracking:
    """The work of one job; other threads may ask for what is there while it runs.

    Args:
        segments: of the region.
        clicked: by LS frame.
        direction: where to go beyond the first and the last click of a segment.
    """

    def __init__(
        self,
        region: Region,
        segments: Sequence[Segment],
        clicked: Mapping[int, Sequence[Click]],
        direction: Direction,
        footage: Footage,
    ) -> None:
        self.region = region
        self.segments = segments
        self._clicked = clicked
        self._direction = direction
        self._footage = footage
        self._view: _View | None = None
        self._progress = (0, region.frames_count or 1)
        self._whole: Keyframes | None = None

    def run(self, cancelled: Callable[[], bool]) -> None:
        """Open, prompt, propagate.

        Raises:
            BackendError: the file cannot be had or decoded, or a keyframe lies outside it.
        """
        with self._footage.open(cancelled) as video:
            clock = Clock(video.times, video.end, self._footage.framerate)
            to_track = [segment for segment in self.segments if segment.is_tracked]
            stretches = [one for segment in to_track for one in self._stretches(segment, clock)]
            propagation = Propagation(
                len(video), stretches, self._footage.max_frames, _span(to_track, stretches, clock)
            )
            self._view = view = _View(clock, (video.width, video.height), propagation)
            propagation.run(self._footage.engine, video, self._prompts(to_track, clock, video), cancelled)
        # Made once, here; what they were made of takes a hundred times the memory.
        self._whole, self._progress = self._keyframes(view, whole=not cancelled()), self.progress()
        self._view = None

    def progress(self) -> tuple[int, int]:
        """Frames done and to do; before the file is open, what Label Studio says that there are."""
        if view := self._view:
            return view.propagation.done, view.propagation.total
        return self._progress

    def answer(self) -> Keyframes:
        """Our keyframes as far as they are known, and the mean score of the frames where the object is present.

        Frames that are still to be done again stay as the region showed them: a correction makes nothing vanish.
        """
        view = self._view
        return self._whole or self._keyframes(view, whole=False)

    def _keyframes(self, view: _View | None, whole: bool) -> Keyframes:
        length = min(view.clock.length if view else LAST_FRAME, self.region.frames_count or LAST_FRAME)
        if view is None:
            if length == LAST_FRAME:  # nobody knows yet how long the video is
                return kept(self.segments), self.region.score
            return keyframes(
                self.segments, lambda one: shown(one, self.region.items, length), self._footage.bound
            ), self.region.score
        track, looked = view.propagation.track(), view.propagation.looked()

        def boxes(segment: Segment) -> Boxes:
            new = sampled(segment, track, view.clock, view.size, length)
            if whole:
                return new
            done = looked[view.clock.sources(segment.frames(length))]
            return np.where(done[:, None], new, shown(segment, self.region.items, length))

        return keyframes(self.segments, boxes, self._footage.bound), self._score(track, view.clock)

    def _score(self, track: Track, clock: Clock) -> float | None:
        """What was tracked now, and the region's earlier score for the frames that were kept."""
        scores = track.scores[~np.isnan(track.scores)]
        count = 0
        if self.region.score is not None:
            kept = [segment for segment in self.segments if segment.kept]
            count = sum(sequence.visible_frames(one.kept or (), one.frames(clock.length).stop) for one in kept)
        total = float(scores.sum()) + count * (self.region.score or 0.0)
        return total / (len(scores) + count) if len(scores) + count else self.region.score

    def _stretches(self, segment: Segment, clock: Clock) -> list[Stretch]:
        inside = sorted(frame for frame in self._clicked if frame in segment.frames(LAST_FRAME))
        anchors = [_source(segment.before, clock), *map(clock.source, inside), _source(segment.after, clock)]
        stretches = [Stretch(*pair) for pair in pairwise(anchors)]
        if inside and segment.before is None and self._direction == "forward":
            stretches = stretches[1:]
        if inside and segment.after is None and self._direction == "backward":
            stretches = stretches[:-1]
        return stretches

    def _prompts(self, segments: Sequence[Segment], clock: Clock, video: Video) -> list[Prompt]:
        """By frame; those that only say what the object is not come last, since they say it of what is known."""
        anchors = {item.frame: item for one in segments for item in (one.before, one.after) if item}
        shown: dict[int, Prompt] = {}
        for frame in sorted({*anchors, *self._clicked}):
            item, source = anchors.get(frame), clock.source(frame)
            clock.check(frame, self.region.frames_count)
            points = _points(self._clicked.get(frame, ()), video)
            box = self._box(item, video) if item else None
            if earlier := shown.get(source):  # two LS frames that show one picture
                box, points = box or earlier.box, earlier.points + points
            shown[source] = Prompt(self.region.id, source, box, points)
        return sorted(shown.values(), key=lambda prompt: (prompt.is_negative, prompt.frame))

    def _box(self, item: Item, video: Video) -> Box:
        box = item.box(video.width, video.height)
        if not box.clipped(video.width, video.height).area > 0:
            raise BadRequest(f"the box on frame {item.frame} lies outside the picture: draw it on the object")
        return box


def _points(clicks: Sequence[Click], video: Video) -> tuple[Point, ...]:
    return tuple(
        Point(one.x * video.width / 100, one.y * video.height / 100, one.positive is not False) for one in clicks
    )


def _span(segments: Sequence[Segment], stretches: Sequence[Stretch], clock: Clock) -> range | None:
    """The source frames that are gone through where only some are asked for: those, and the way to them."""
    within = [segment.within for segment in segments]
    if not within or EVERYWHERE in within:
        return None
    ends = {min(frame, clock.length) for one in within for frame in one}
    sources = {clock.source(frame) for frame in ends}
    sources |= {frame for one in stretches for frame in (one.first, one.last) if frame is not None}
    return range(min(sources), max(sources) + 1)


def _source(item: Item | None, clock: Clock) -> int | None:
    return None if item is None else clock.source(item.frame)
