"""What a tracking job does: prompts carried through the stretches of a video between, before and after them."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from backend.engines.base import Engine, Session
from backend.geometry import Boxes
from backend.prompts import Direction, Prompt
from backend.tracks import Track, fuse
from backend.video import Video


@dataclass(frozen=True, slots=True)
class Stretch:
    """The source frames from one prompted frame to the next, both included; None: to the video's start or end."""

    first: int | None
    last: int | None


def stretches_between(frames: Sequence[int], direction: Direction) -> list[Stretch]:
    """The stretches between sorted prompted frames, and beyond the outer ones where `direction` leads."""
    stretches = [Stretch(first, last) for first, last in pairwise(frames)]
    if direction != "forward":
        stretches.insert(0, Stretch(None, frames[0]))
    if direction != "backward":
        stretches.append(Stretch(frames[-1], None))
    return stretches


class Propagation:
    """One track through some stretches of a video of `length` frames; other threads may look while it runs.

    Args:
        stretches: between two prompted frames it goes both ways, else away from the prompted one.
        max_frames: how far to go beyond a prompted frame towards the video's start or end; 0: no limit.
        span: source frames that are not left; None: the whole video.
    """

    def __init__(
        self, length: int, stretches: Sequence[Stretch], max_frames: int = 0, span: range | None = None
    ) -> None:
        self._length = length
        span = span or range(length)
        reach = max_frames or length
        self._runs: list[list[_Pass]] = []
        for stretch in stretches:
            first, last = stretch.first, stretch.last
            passes = []
            if first is not None:
                end = min(first + reach, span.stop - 1) if last is None else last
                passes.append(_Pass(range(first, end + 1)))
            if last is not None:
                start = max(last - reach, span.start) if first is None else first
                passes.append(_Pass(range(start, last + 1), reverse=True))
            self._runs.append(passes)

    @property
    def total(self) -> int:
        """Frames to do, counting those that are gone through both ways twice."""
        return sum(len(one.span) for passes in self._runs for one in passes)

    @property
    def done(self) -> int:
        """Frames done."""
        return sum(one.count for passes in self._runs for one in passes)

    def run(self, engine: Engine, video: Video, prompts: Sequence[Prompt], cancelled: Callable[[], bool]) -> None:
        """Prompt and propagate until done or cancelled; all prompts are of one track."""
        with engine.open(video) as session:
            for prompt in prompts:
                session.prompt([prompt])
            for one in (one for passes in self._runs for one in passes):
                if not one.run(session, prompts[0].track, cancelled):
                    return

    def track(self) -> Track:
        """What is known now: NaN boxes where the object is not there or where nobody has looked yet."""
        boxes, scores = np.full((self._length, 4), np.nan), np.full(self._length, np.nan)
        for passes in self._runs:
            results = [one.results() for one in passes]
            span, found, score = results[0] if len(results) == 1 else _fused(*results)
            boxes[span.start : span.stop], scores[span.start : span.stop] = found, score
        return Track(boxes, scores)

    def looked(self) -> NDArray[np.bool_]:
        """Shape (length,): the frames that were done, from either side."""
        done = np.zeros(self._length, bool)
        for one in (one for passes in self._runs for one in passes):
            span = one.span[len(one.span) - one.count :] if one.reverse else one.span[: one.count]
            done[span.start : span.stop] = True
        return done


_Results = tuple[range, Boxes, NDArray[np.float64]]


def _fused(forward: _Results, backward: _Results) -> _Results:
    return forward[0], *fuse(forward[1:], backward[1:])


class _Pass:
    """One way through one span."""

    def __init__(self, span: range, reverse: bool = False) -> None:
        self.span = span
        self.reverse = reverse
        self.count = 0
        # Single precision: a ten-thousandth of a percent even at 8192 pixels, in half the memory.
        self._boxes = np.full((len(span), 4), np.nan, np.float32)
        self._scores = np.full(len(span), np.nan, np.float32)

    def run(self, session: Session, track: str, cancelled: Callable[[], bool]) -> bool:
        """False: cancelled."""
        with closing(session.propagate(self.span, self.reverse)) as results:
            for result in results:
                if cancelled():
                    return False
                seen = result.tracks[track]
                row = result.frame - self.span.start
                if seen.box is not None:
                    self._boxes[row], self._scores[row] = seen.box, seen.score
                self.count += 1
        return True

    def results(self) -> _Results:
        return self.span, self._boxes.astype(float), self._scores.astype(float)
