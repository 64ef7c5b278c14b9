"""The keyframes of a track that grows, one after another: what was given once is never taken back."""

import threading
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.jobs.job import Job
from backend.jobs.spec import OBJECT_TRACK, ResolvedJob
from backend.settings import KeyframeSettings
from backend.tracks.gaps import find_spans
from backend.tracks.geometry import Box, Boxes
from backend.tracks.keyframe_selection import MAX_CHECKS_UNFINISHED, BoxRun, select_keyframes
from backend.tracks.masks import Rle


@dataclass(frozen=True, slots=True)
class TrackedFrame:
    """A keyframe.

    Attributes:
        frame: the LS frame.
        source: the source frame that it shows.
        box: in pixels.
        mask: of the object, if masks are kept.
    """

    frame: int
    source: int
    box: Box
    mask: Rle | None = None


@dataclass(frozen=True, slots=True)
class FeedPart:
    """What a feed has to give now.

    Attributes:
        frames: keyframes that were not given before, in the order in which they were tracked.
        done: LS frames that are tracked.
        total: LS frames to track.
        size: width and height of the video's pictures; (0, 0): it is not open yet.
        is_complete: nothing will follow.
    """

    frames: list[TrackedFrame]
    done: int
    total: int
    size: tuple[int, int]
    is_complete: bool


class TrackFeed:
    """Gives the keyframes of the track of one prompt, away from it in one direction or in both; thread-safe.

    A keyframe is given once no later frame can make it needless: the fewest between the last one that was given and
    the newest frame are chosen again each time, and the newest frame itself is given when the object ends there.

    Args:
        job: of `InteractiveSession.start_track`, with prompts on one frame.
        rule: how keyframes are chosen.
    """

    def __init__(self, job: Job, rule: KeyframeSettings) -> None:
        self.job = job
        # A budget is for the whole track, which is not known yet.
        self._rule = rule if rule.mode != "budget" else replace(rule, mode="iou", budget=0)
        spec = job.row.spec
        self._prompt = spec.prompts[0].frame
        self._last = max((frames.last for frames in spec.ranges), default=None)
        self._first = min((frames.first for frames in spec.ranges), default=1)
        ways = {first is None for first, _ in spec.intervals}  # whether a way goes back
        self._ways = {reverse: _Way() for reverse in sorted(ways)}
        if len(ways) == 2:
            self._ways[True].given = 0  # the prompt's frame is given on the way forward
        self._lock = threading.Lock()

    def read(self) -> FeedPart:
        """What was not given before."""
        with self._lock:
            # Read before the results: if the job ends in between, they are complete all the same.
            is_complete, resolved = self.job.has_ended, self.job.resolved
            if resolved is None:
                return FeedPart([], 0, 0, (0, 0), is_complete)
            frames, done, total = list[TrackedFrame](), 0, 0
            for reverse, way in self._ways.items():
                numbers = self._frames(reverse, resolved.clock.length)
                boxes, sources, looked = _sample(numbers, resolved)
                count = len(looked) if looked.all() else int(looked.argmin())
                done, total = done + count, total + len(numbers)
                masks = resolved.propagation.target(OBJECT_TRACK).track().masks
                for row in way.advance(boxes[:count], self._rule, is_complete=is_complete or count == len(numbers)):
                    source = int(sources[row])
                    frames.append(TrackedFrame(numbers[row], source, Box(*boxes[row].tolist()), masks.get(source)))
            overlap = len(self._ways) - 1  # the prompt's frame is on both ways
            return FeedPart(frames, max(done - overlap, 0), total - overlap, resolved.size, is_complete)

    def _frames(self, reverse: bool, length: int) -> range:
        """The LS frames of a way, in its order."""
        if reverse:
            return range(self._prompt, self._first - 1, -1)
        return range(self._prompt, min(self._last or length, length) + 1)


class _Way:
    """One direction. `given` is the row of the last keyframe that was given; None: none was."""

    def __init__(self) -> None:
        self.given: int | None = None

    def advance(self, boxes: Boxes, rule: KeyframeSettings, *, is_complete: bool) -> list[int]:
        """The rows of the next keyframes.

        Args:
            boxes: shape (n, 4), from the prompt's frame on; NaN where the object is absent.
            is_complete: no more rows follow.
        """
        start = self.given or 0
        rows: list[int] = []
        for span in find_spans(boxes[start:]):
            first, stop = start + span.start, start + span.stop
            is_open = stop == len(boxes) and not is_complete
            run = BoxRun.from_boxes(boxes[first:stop])
            (chosen,) = select_keyframes([run], rule, (rule.px, rule.px), max_checks=MAX_CHECKS_UNFINISHED)
            ends = {first, stop - 1}
            rows += [first + row for row in chosen if not is_open or first + row < stop - 1 or len(ends) == 1]
        new = [row for row in rows if self.given is None or row > self.given]
        self.given = new[-1] if new else self.given
        return new


def _sample(numbers: range, resolved: ResolvedJob) -> tuple[Boxes, NDArray[np.int64], NDArray[np.bool_]]:
    """On LS frames: the boxes in pixels, the source frames that they show, and whether these were tracked."""
    buffer = resolved.propagation.target(OBJECT_TRACK)
    looked = buffer.processed_frames()
    sources = resolved.clock.source_frames(np.array(numbers, np.int64))
    boxes, _ = buffer.track().at(sources)
    return boxes, sources, looked[sources]
