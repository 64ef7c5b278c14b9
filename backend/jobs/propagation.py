"""What a tracking job does: prompts carried through the stretches of a video between, before and after them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from backend.engines.base import Engine, Session
from backend.geometry import Boxes
from backend.masks import Rle
from backend.prompts import Direction, Phrase, Prompt, Target
from backend.tracks import FrameResult, Observation, Track, fuse
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
        masks: keep them, where the engine gives some.
    """

    def __init__(
        self,
        length: int,
        stretches: Sequence[Stretch],
        max_frames: int = 0,
        span: range | None = None,
        masks: bool = False,
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
                passes.append(_Pass(range(first, end + 1), False, masks))
            if last is not None:
                start = max(last - reach, span.start) if first is None else first
                passes.append(_Pass(range(start, last + 1), True, masks))
            self._runs.append(passes)

    @property
    def _passes(self) -> Iterator["_Pass"]:
        return (one for passes in self._runs for one in passes)

    @property
    def total(self) -> int:
        """Frames to do, counting those that are gone through both ways twice."""
        return sum(len(one.span) for one in self._passes)

    @property
    def done(self) -> int:
        """Frames done."""
        return sum(one.count for one in self._passes)

    def run(self, engine: Engine, video: Video, prompts: Sequence[Prompt], cancelled: Callable[[], bool]) -> None:
        """Prompt and propagate until done or cancelled; all prompts are of one track."""
        with engine.open(video) as session:
            for prompt in prompts:
                session.prompt([prompt])
            for one in self._passes:
                if not one.run(session, prompts[0].track, cancelled):
                    return

    def spans(self, reverse: bool) -> list[range]:
        """The frames to do in one direction."""
        return [one.span for one in self._passes if one.reverse == reverse]

    def take(self, frame: int, seen: Observation, reverse: bool) -> None:
        """What a session saw of the track, frame by frame in this direction; other frames than its own are ignored."""
        for one in self._passes:
            if one.reverse == reverse and frame in one.span:
                one.take(frame, seen)

    def track(self) -> Track:
        """What is known now."""
        boxes, scores = np.full((self._length, 4), np.nan), np.full(self._length, np.nan)
        for passes in self._runs:
            results = [one.results() for one in passes]
            span, found, score = results[0] if len(results) == 1 else _fused(*results)
            boxes[span.start : span.stop], scores[span.start : span.stop] = found, score
        return Track.of(boxes, scores, self._masks())

    def _masks(self) -> dict[int, Rle]:
        """By frame; of two ways through it the one that started nearer."""
        nearest: dict[int, tuple[int, Rle]] = {}
        for one in self._passes:
            for frame, mask in one.masks.items():
                if frame not in nearest or one.place(frame) < nearest[frame][0]:
                    nearest[frame] = one.place(frame), mask
        return {frame: mask for frame, (_, mask) in nearest.items()}

    def looked(self) -> NDArray[np.bool_]:
        """Shape (length,): the frames that were done, from either side."""
        done = np.zeros(self._length, bool)
        for one in self._passes:
            span = one.span[len(one.span) - one.count :] if one.reverse else one.span[: one.count]
            done[span.start : span.stop] = True
        return done


class Propagations:
    """Many tracks through one session: one look at a picture serves all of them.

    Args:
        length: frames of the video.
        targets: by the track's name.
        phrases: each with words of its own; what they find are more tracks, under the engine's names.
        direction: beyond the outer prompts of a target, and from the frame of a phrase.
        max_frames: how far to go there; 0: no limit.
        span: source frames that are not left.
        masks: keep them, where the engine gives some.
    """

    def __init__(
        self,
        length: int,
        targets: Mapping[str, Target],
        phrases: Sequence[Phrase],
        direction: Direction,
        *,
        max_frames: int = 0,
        span: range | None = None,
        masks: bool = False,
    ) -> None:
        def made(frames: Iterable[int]) -> Propagation:
            return Propagation(length, stretches_between(sorted(frames), direction), max_frames, span, masks)

        prompts: list[Prompt | Phrase] = [one for target in targets.values() for one in target.prompts.values()]
        # Phrases last, so that what they find takes no target's name.
        self._prompts = [*_by_frame(prompts), *_by_frame(phrases)]
        self._tracks = {name: made(target.prompts) for name, target in targets.items()}
        self._new = {phrase.text: partial(made, [phrase.frame]) for phrase in phrases}
        self._ways = _ways([*self._tracks.values(), *(new() for new in self._new.values())])
        self.found: dict[str, str] = {}
        """The words that a track answers to, by its name; the last ones, where better ones were found."""

    @property
    def total(self) -> int:
        """Frames to do, counting those that are gone through both ways twice."""
        return sum(len(span) for span, _ in self._ways)

    def run(self, engine: Engine, video: Video) -> Iterator[int]:
        """Prompt everything, then propagate; every frame that is done is told."""
        with engine.open(video) as session:
            for prompts in self._prompts:
                session.prompt(prompts)
            for span, reverse in self._ways:
                with closing(session.propagate(span, reverse)) as results:
                    for result in results:
                        self._take(result, reverse)
                        yield result.frame

    def _take(self, result: FrameResult, reverse: bool) -> None:
        for name, seen in result.tracks.items():
            words = result.phrases.get(name)
            if words and name not in self._tracks:
                self._tracks[name] = self._new[words]()
            if words:
                self.found[name] = words
            if name in self._tracks:
                self._tracks[name].take(result.frame, seen, reverse)

    def tracks(self) -> dict[str, Track]:
        """By name: the targets', then what was found inside the frames of its phrase."""
        tracks = {name: one.track() for name, one in self._tracks.items()}
        return {name: track for name, track in tracks.items() if name not in self.found or len(track.scores)}


def _by_frame(prompts: Iterable[Prompt | Phrase]) -> list[list[Prompt | Phrase]]:
    frames: dict[int, list[Prompt | Phrase]] = {}
    for prompt in prompts:
        frames.setdefault(prompt.frame, []).append(prompt)
    return [alike for _, alike in sorted(frames.items())]


def _ways(propagations: Sequence[Propagation]) -> list[tuple[range, bool]]:
    """Spans that hold every frame of these once in each direction in which it is to be done, and the direction."""
    ways: list[tuple[range, bool]] = []
    for reverse in (False, True):
        merged: list[range] = []
        for span in sorted((span for one in propagations for span in one.spans(reverse)), key=lambda span: span.start):
            if merged and span.start <= merged[-1].stop:
                merged[-1] = range(merged[-1].start, max(merged[-1].stop, span.stop))
            else:
                merged.append(span)
        ways += [(span, reverse) for span in merged]
    return ways


_Results = tuple[range, Boxes, NDArray[np.float64]]


def _fused(forward: _Results, backward: _Results) -> _Results:
    return forward[0], *fuse(forward[1:], backward[1:])


class _Pass:
    """One way through one span. Only the frames from where the object is first seen to where it is last take memory."""

    def __init__(self, span: range, reverse: bool, keep_masks: bool) -> None:
        self.span = span
        self.reverse = reverse
        self.count = 0
        self.masks: dict[int, Rle] = {}
        self._keep_masks = keep_masks
        self._first = 0
        # Columns x0 y0 x1 y1 score, in the order of travel from the place `_first`. Single precision: a ten-thousandth
        # of a percent even at 8192 pixels, in half the memory.
        self._rows = np.empty((0, 5), np.float32)

    def place(self, frame: int) -> int:
        """How many frames it is from the start."""
        return self.span[-1] - frame if self.reverse else frame - self.span[0]

    def run(self, session: Session, track: str, cancelled: Callable[[], bool]) -> bool:
        """False: cancelled."""
        with closing(session.propagate(self.span, self.reverse)) as results:
            for result in results:
                if cancelled():
                    return False
                self.take(result.frame, result.tracks[track])
        return True

    def take(self, frame: int, seen: Observation) -> None:
        """The next frame."""
        place = self.place(frame)
        if seen.box is not None:
            if not len(self._rows):
                self._first = place
            row = place - self._first
            if row >= len(self._rows):
                self._grow(row + 1)
            self._rows[row] = *seen.box, seen.score
            if self._keep_masks and seen.mask is not None:
                self.masks[frame] = seen.mask
        self.count = place + 1

    def _grow(self, rows: int) -> None:
        """By an eighth at a time, which keeps copies rare and little unused; never beyond the span."""
        rows = min(max(rows, len(self._rows) + len(self._rows) // 8 + 64), len(self.span) - self._first)
        more = np.full((rows - len(self._rows), 5), np.nan, np.float32)
        self._rows = np.concatenate([self._rows, more])

    def results(self) -> _Results:
        rows, count = self._rows, len(self.span)
        whole = np.full((count, 5), np.nan)
        whole[self._first : self._first + len(rows)] = rows
        if self.reverse:
            whole = whole[::-1]
        return self.span, whole[:, :4], whole[:, 4]
