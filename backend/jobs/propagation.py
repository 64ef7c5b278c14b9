"""What a tracking job does: prompts carried through the stretches of a video between, before and after them."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count, pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from backend.engines.base import Engine, Session
from backend.masks import Rle
from backend.prompts import Direction, Phrase, Prompt, Target, by_frame
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


_Way = tuple[range, bool]
"""Source frames to go through, and whether in reverse."""


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

    @classmethod
    def along(cls, length: int, ways: Sequence[_Way], masks: bool) -> Self:
        """One track on the frames of these ways, those of one direction apart from each other, forward ones first."""
        one = cls(length, [], masks=masks)
        edges = sorted({edge for span, _ in ways for edge in (span.start, span.stop)})
        for start, stop in pairwise(edges):
            holding = [reverse for span, reverse in ways if start in span]
            one._runs.append([_Pass(range(start, stop), reverse, masks) for reverse in holding])
        return one

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
        parts = [part for passes in self._runs for part in _fused(passes)]
        first = min((frames.start for frames, _ in parts), default=0)
        stop = max((frames.stop for frames, _ in parts), default=0)
        rows = _spread(range(first, stop), parts)
        track = Track.of(rows[:, :4], rows[:, 4], self._masks())
        return replace(track, start=first + track.start)

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
    """Many tracks through one session: one look at a picture serves all of them; other threads may look while it runs.

    Args:
        length: frames of the video.
        targets: by the track's name.
        phrases: each with words of its own; what they find are more tracks, under the engine's names as far as these
            tell objects apart. They are kept on the frames of all phrases: the engine names an object after the
            phrase that fits best, wherever that one begins.
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

        self._length, self._keep_masks = length, masks
        self._prompts = by_frame(one for target in targets.values() for one in target.prompts.values())
        self._phrases = by_frame(phrases)
        self._targets = {name: made(target.prompts) for name, target in targets.items()}
        searches = [made([phrase.frame]) for phrase in phrases]
        self._searched = _ways(searches)
        self._ways = _ways([*self._targets.values(), *searches])
        self._names = _Names(targets)
        self._found: dict[str, Propagation] = {}
        self.found: dict[str, str] = {}
        """The words that a track answers to, by its name; those of its last frame, where it changed over to better."""

    @property
    def total(self) -> int:
        """Frames to do, counting those that are gone through both ways twice."""
        return sum(len(span) for span, _ in self._ways)

    def run(self, engine: Engine, video: Video) -> Generator[int]:
        """Prompt everything, then propagate; every frame that is done is told."""
        with engine.open(video) as session:
            # Phrases last, so that what they find takes no target's name.
            for _, prompts in sorted(self._prompts.items()):
                session.prompt(prompts)
            for _, phrases in sorted(self._phrases.items()):
                self._names.keep(session.prompt(phrases).phrases)
            for span, reverse in self._ways:
                self._names.begin(reverse)
                with closing(session.propagate(span, reverse)) as results:
                    for result in results:
                        self._take(result, reverse)
                        yield result.frame

    def _take(self, result: FrameResult, reverse: bool) -> None:
        is_searched = any(result.frame in span for span, way in self._searched if way == reverse)
        for name, seen in result.tracks.items():
            if name in self._targets:
                self._targets[name].take(result.frame, seen, reverse)
            elif is_searched and (words := result.phrases.get(name)):
                self._find(self._names.of(name, words), words).take(result.frame, seen, reverse)

    def _find(self, name: str, words: str) -> Propagation:
        self.found[name] = words
        if name not in self._found:
            self._found[name] = Propagation.along(self._length, self._searched, self._keep_masks)
        return self._found[name]

    def tracks(self) -> dict[str, Track]:
        """By name: the targets', then what was found on the frames of the phrases."""
        # A copy: another thread may find more meanwhile.
        found = {name: one.track() for name, one in list(self._found.items())}
        targets = {name: one.track() for name, one in self._targets.items()}
        return targets | {name: track for name, track in found.items() if len(track.scores)}


class _Names:
    """What the tracks are called that words find: as the session calls them, unless that name is another object's.

    A session that goes on elsewhere in the same direction begins that way anew, and counts its finds anew.

    Args:
        lasting: names that mean the same object on all ways.
    """

    def __init__(self, lasting: Iterable[str]) -> None:
        self._lasting = set(lasting)
        self._reverse = False
        # By the session's name: on this way, ours; and those of earlier ways, by direction.
        self._ours: dict[str, str] = {}
        self._earlier: dict[bool, set[str]] = {False: set(), True: set()}
        self._made: set[str] = set()
        self._numbers: dict[str, Iterator[int]] = {}

    def keep(self, names: Iterable[str]) -> None:
        """These, too, mean the same object on all ways."""
        self._lasting.update(names)

    def begin(self, reverse: bool) -> None:
        """Another way."""
        self._earlier[self._reverse].update(self._ours)
        self._reverse, self._ours = reverse, {}

    def of(self, name: str, words: str) -> str:
        """Our name of the track that the session calls `name`, on this way."""
        if name in self._lasting:
            return name
        if name not in self._ours:
            is_anothers = name in self._earlier[self._reverse] or name in self._made
            self._ours[name] = self._new(words) if is_anothers else name
        return self._ours[name]

    def _new(self, words: str) -> str:
        taken = (self._lasting, self._ours, *self._earlier.values(), self._made)
        numbered = (f"{words} {number}" for number in self._numbers.setdefault(words, count(1)))
        name = next(name for name in numbered if not any(name in names for names in taken))
        self._made.add(name)
        return name


def _ways(propagations: Sequence[Propagation]) -> list[_Way]:
    """Spans that hold every frame of these once in each direction in which it is to be done, and the direction."""
    ways: list[_Way] = []
    for reverse in (False, True):
        merged: list[range] = []
        for span in sorted((span for one in propagations for span in one.spans(reverse)), key=lambda span: span.start):
            if merged and span.start <= merged[-1].stop:
                merged[-1] = range(merged[-1].start, max(merged[-1].stop, span.stop))
            else:
                merged.append(span)
        ways += [(span, reverse) for span in merged]
    return ways


_Rows = tuple[range, NDArray[np.floating[Any]]]
"""Source frames, and for each a row x0 y0 x1 y1 score, NaN where the object is not there."""


def _fused(passes: Sequence["_Pass"]) -> list[_Rows]:
    """What is known of a span that was gone through in one way, or forward and then in reverse."""
    parts = [rows for one in passes if (rows := one.rows())[0]]
    if len(parts) < 2:
        return parts
    span = passes[0].span
    ahead, back = (_spread(span, [part]) for part in parts)
    boxes, scores = fuse((ahead[:, :4], ahead[:, 4]), (back[:, :4], back[:, 4]))
    return [(span, np.column_stack([boxes, scores]))]


def _spread(span: range, parts: Iterable[_Rows]) -> NDArray[np.float64]:
    """Shape (n, 5): the rows of all frames of a span."""
    whole = np.full((len(span), 5), np.nan)
    for frames, rows in parts:
        whole[frames.start - span.start : frames.stop - span.start] = rows
    return whole


class _Pass:
    """One way through one span. Only the frames from where the object is first seen to where it is last take memory."""

    __slots__ = ("_first", "_keep_masks", "_rows", "_used", "count", "masks", "reverse", "span")

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
        self._used = 0

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
            if not self._used:
                self._first = place
            row = place - self._first
            if row >= len(self._rows):
                self._grow(row + 1)
            self._rows[row] = *seen.box, seen.score
            self._used = row + 1
            if self._keep_masks and seen.mask is not None:
                self.masks[frame] = seen.mask
        self.count = place + 1

    def _grow(self, rows: int) -> None:
        """By an eighth at a time, which keeps copies rare and little unused; never beyond the span."""
        rows = min(max(rows, len(self._rows) + len(self._rows) // 8 + 64), len(self.span) - self._first)
        more = np.full((rows - len(self._rows), 5), np.nan, np.float32)
        self._rows = np.concatenate([self._rows, more])

    def rows(self) -> _Rows:
        """From where it is first seen to where it is last, by source frame."""
        used = self._used  # read first: another thread may take the next frame meanwhile
        start, rows = self._first, self._rows[:used]
        if self.reverse:
            return range(self.span.stop - start - used, self.span.stop - start), rows[::-1]
        return range(self.span.start + start, self.span.start + start + used), rows
