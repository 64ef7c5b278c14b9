"""What a tracking job does: prompts carried through the stretches of a video between, before and after them."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count, groupby, pairwise
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from backend.engines.base import Engine, Session
from backend.tracks.masks import Rle
from backend.tracks.prompts import Direction, Phrase, Prompt, by_frame
from backend.tracks.track import Block, FrameResult, Rows, Track, fuse
from backend.video import Video


@dataclass(frozen=True, slots=True)
class Interval:
    """The source frames from one prompted frame to the next, both included; None: to the video's start or end."""

    first: int | None
    last: int | None


def intervals_between(frames: Sequence[int], direction: Direction) -> list[Interval]:
    """The stretches between sorted prompted frames, and beyond the outer ones where `direction` leads."""
    stretches = [Interval(first, last) for first, last in pairwise(frames)]
    if direction != "forward":
        stretches.insert(0, Interval(None, frames[0]))
    if direction != "backward":
        stretches.append(Interval(frames[-1], None))
    return stretches


Pass = tuple[range, bool]
"""Source frames to go through, and whether in reverse."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a propagation is: so many frames of one of its ways, all ways before that one done."""

    pass_index: int = 0
    done: int = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """What a session is to do: prompts, all before it begins, each group on one frame; then the ways."""

    prompts: Sequence[Sequence[Prompt | Phrase]]
    passes: Sequence[Pass]

    def prompt(self, session: Session) -> frozenset[str]:
        """Prompt everything; the names of what phrases find at once."""
        return frozenset(name for group in self.prompts for name in session.prompt(group).phrases)

    def propagate(self, session: Session, progress: Progress) -> Generator[tuple[int, FrameResult]]:
        """The number of the way and the result of every frame from a place on."""
        for number, (span, reverse) in enumerate(self.passes[progress.pass_index :], start=progress.pass_index):
            done = progress.done if number == progress.pass_index else 0
            rest = range(span.start, span.stop - done) if reverse else range(span.start + done, span.stop)
            with closing(session.propagate(rest, reverse)) as results:
                for result in results:
                    yield number, result


class TrackBuffer:
    """One track through some stretches of a video of `length` frames; other threads may look while it runs.

    Args:
        stretches: between two prompted frames it goes both ways, else away from the prompted one.
        max_frames: how far to go beyond a prompted frame towards the video's start or end; 0: no limit.
        span: source frames that are not left; None: the whole video.
    """

    def __init__(
        self, length: int, intervals: Sequence[Interval], max_frames: int = 0, span: range | None = None
    ) -> None:
        self._length = length
        span = span or range(length)
        reach = max_frames or length
        self._runs: list[list[_PassBuffer]] = []
        for stretch in intervals:
            first, last = stretch.first, stretch.last
            passes = []
            if first is not None:
                end = min(first + reach, span.stop - 1) if last is None else last
                passes.append(_PassBuffer(range(first, end + 1), False))
            if last is not None:
                start = max(last - reach, span.start) if first is None else first
                passes.append(_PassBuffer(range(start, last + 1), True))
            self._runs.append(passes)

    @classmethod
    def from_passes(cls, length: int, passes: Sequence[Pass]) -> Self:
        """One track on the frames of these ways, those of one direction apart from each other, forward ones first."""
        one = cls(length, [])
        edges = sorted({edge for span, _ in passes for edge in (span.start, span.stop)})
        for start, stop in pairwise(edges):
            holding = [reverse for span, reverse in passes if start in span]
            one._runs.append([_PassBuffer(range(start, stop), reverse) for reverse in holding])
        return one

    @property
    def _passes(self) -> Iterator["_PassBuffer"]:
        return (one for passes in self._runs for one in passes)

    def spans(self, reverse: bool) -> list[range]:
        """The frames to do in one direction."""
        return [one.span for one in self._passes if one.reverse == reverse]

    def add(self, frames: range, rows: Rows, reverse: bool, masks: Mapping[int, Rle] = MappingProxyType({})) -> None:
        """What a session saw of the track on these frames; other frames than its own are ignored.

        The same frames may be taken again, as long as the same was seen there.

        Args:
            frames: consecutive, from the lowest.
            rows: shape (frames, 5).
            masks: by frame.
        """
        for one in self._passes:
            inside = range(max(frames.start, one.span.start), min(frames.stop, one.span.stop))
            if one.reverse == reverse and inside:
                one.add(inside, rows[inside.start - frames.start : inside.stop - frames.start])
                one.masks |= {frame: mask for frame, mask in masks.items() if frame in inside}

    def track(self) -> Track:
        """What is known now."""
        parts = [part for passes in self._runs for part in _fuse_passes(passes)]
        first = min((frames.start for frames, _ in parts), default=0)
        stop = max((frames.stop for frames, _ in parts), default=0)
        rows = _expand(range(first, stop), parts)
        track = Track.of(rows[:, :4], rows[:, 4], self._masks())
        return replace(track, start=first + track.start)

    def _masks(self) -> dict[int, Rle]:
        """By frame; of two ways through it the one that started nearer."""
        nearest: dict[int, tuple[int, Rle]] = {}
        for one in self._passes:
            for frame, mask in list(one.masks.items()):  # another thread may add some meanwhile
                if frame not in nearest or one.offset(frame) < nearest[frame][0]:
                    nearest[frame] = one.offset(frame), mask
        return {frame: mask for frame, (_, mask) in nearest.items()}

    def processed_frames(self) -> NDArray[np.bool_]:
        """Shape (length,): the frames that were done, from either side."""
        return _frame_mask(self._length, [_completed_part(one.span, one.reverse, one.count) for one in self._passes])


class PropagationRun:
    """Tracks through one session: one look at a picture serves all of them; other threads may look while it runs.

    Args:
        length: frames of the video.
        targets: the stretches to go through by the track's name.
        prompts: of these tracks.
        phrases: each with words of its own; what they find are more tracks, under the engine's names as far as these
            tell objects apart. They are kept on the frames of all phrases: the engine names an object after the
            phrase that fits best, wherever that one begins.
        direction: from the frame of a phrase.
        max_frames: how far to go from there, and beyond the outer prompts of a target; 0: no limit.
        span: source frames that are not left.
    """

    def __init__(
        self,
        length: int,
        targets: Mapping[str, Sequence[Interval]],
        prompts: Iterable[Prompt],
        phrases: Sequence[Phrase] = (),
        direction: Direction = "forward",
        *,
        max_frames: int = 0,
        span: range | None = None,
    ) -> None:
        self._length = length
        self._targets = {name: TrackBuffer(length, stretches, max_frames, span) for name, stretches in targets.items()}
        searches = [TrackBuffer(length, intervals_between([one.frame], direction), max_frames, span) for one in phrases]
        self._phrase_passes = merge_passes(searches)
        # Clicks that only say what the object is not come after all that says what it is. Phrases come last, so that
        # what they find takes no target's name.
        ordered = sorted(prompts, key=lambda one: (one.is_negative, one.frame))
        shown = [list(same) for _, same in groupby(ordered, key=lambda one: (one.is_negative, one.frame))]
        words = [some for _, some in sorted(by_frame(phrases).items())]
        self.schedule = Schedule([*shown, *words], merge_passes([*self._targets.values(), *searches]))
        self._names = _TrackNames(targets)
        self._phrase_tracks: dict[str, TrackBuffer] = {}
        self.track_phrases: dict[str, str] = {}
        """The words that a track answers to, by its name; those of its last frame, where it changed over to better."""
        self._pass_index = -1
        self.progress = Progress()
        """How far it is."""

    @property
    def total(self) -> int:
        """Frames to do, counting those that are gone through both ways twice."""
        return sum(len(span) for span, _ in self.schedule.passes)

    @property
    def done(self) -> int:
        """Frames done."""
        place = self.progress
        return sum(len(span) for span, _ in self.schedule.passes[: place.pass_index]) + place.done

    @property
    def newest_frame(self) -> int | None:
        """The source frame that was done last."""
        place = self.progress
        if not place.done:
            return None
        span, reverse = self.schedule.passes[place.pass_index]
        begun = _completed_part(span, reverse, place.done)
        return begun[0] if reverse else begun[-1]

    def run(self, engine: Engine, video: Video, masks: bool = False) -> Generator[int]:
        """Prompt everything, then propagate; every frame that is done is told. Masks are kept where asked for."""
        with engine.open(video) as session:
            self.add_initial_tracks(self.schedule.prompt(session))
            for way, result in self.schedule.propagate(session, Progress()):
                for block in Block.of([result], self.schedule.passes[way][1], masks):
                    self.add(way, block)
                yield result.frame

    def add_initial_tracks(self, names: Iterable[str]) -> None:
        """What phrases have found at once means the same object on all ways."""
        self._names.add_shared(names)

    def add(self, pass_index: int, block: Block) -> None:
        """What a session saw on one of the ways, block by block in the order in which it came."""
        if pass_index != self._pass_index:
            self._pass_index = pass_index
            self._names.begin_pass(block.reverse)
        inside = [span for span, reverse in self._phrase_passes if reverse == block.reverse]
        for row, name in enumerate(block.tracks):
            masks = block.masks.get(name, {})
            if name in self._targets:
                self._targets[name].add(block.frames, block.rows[row], block.reverse, masks)
            elif (words := block.phrases.get(name)) and any(_overlap(block.frames, span) for span in inside):
                found = self._phrase_track(self._names.resolve(name, words), words)
                found.add(block.frames, block.rows[row], block.reverse, masks)
        span, reverse = self.schedule.passes[pass_index]
        self.progress = Progress(
            pass_index, span.stop - block.frames.start if reverse else block.frames.stop - span.start
        )

    @property
    def track_count(self) -> int:
        """Tracks that are known of."""
        return len(self._targets) + len(self._phrase_tracks)

    def _phrase_track(self, name: str, words: str) -> TrackBuffer:
        self.track_phrases[name] = words
        if name not in self._phrase_tracks:
            self._phrase_tracks[name] = TrackBuffer.from_passes(self._length, self._phrase_passes)
        return self._phrase_tracks[name]

    def target(self, name: str) -> TrackBuffer:
        """What is known of a target."""
        return self._targets[name]

    def processed_frames(self, name: str) -> NDArray[np.bool_]:
        """Shape (length,): the frames on which a track was looked for."""
        if name in self._targets:
            return self._targets[name].processed_frames()
        place = self.progress
        done = [span for span, _ in self.schedule.passes[: place.pass_index]]
        done += [
            _completed_part(*way, place.done) for way in self.schedule.passes[place.pass_index : place.pass_index + 1]
        ]
        return _frame_mask(self._length, done) & _frame_mask(self._length, [span for span, _ in self._phrase_passes])

    def tracks(self) -> dict[str, Track]:
        """By name: the targets', then what was found on the frames of the phrases."""
        # A copy: another thread may find more meanwhile.
        found = {name: one.track() for name, one in list(self._phrase_tracks.items())}
        targets = {name: one.track() for name, one in self._targets.items()}
        return targets | {name: track for name, track in found.items() if len(track.scores)}


def _completed_part(span: range, reverse: bool, done: int) -> range:
    """The first frames of a way."""
    return span[len(span) - done :] if reverse else span[:done]


def _frame_mask(length: int, spans: Iterable[range]) -> NDArray[np.bool_]:
    marked = np.zeros(length, bool)
    for span in spans:
        marked[span.start : span.stop] = True
    return marked


def _overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop


class _TrackNames:
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

    def add_shared(self, names: Iterable[str]) -> None:
        """These, too, mean the same object on all ways."""
        self._lasting.update(names)

    def begin_pass(self, reverse: bool) -> None:
        """Another way."""
        self._earlier[self._reverse].update(self._ours)
        self._reverse, self._ours = reverse, {}

    def resolve(self, name: str, words: str) -> str:
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


def merge_passes(propagations: Sequence[TrackBuffer]) -> list[Pass]:
    """Spans that hold every frame of these once in each direction in which it is to be done, and the direction."""
    ways: list[Pass] = []
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


def _fuse_passes(passes: Sequence["_PassBuffer"]) -> list[_Rows]:
    """What is known of a span that was gone through in one way, or forward and then in reverse."""
    parts = [rows for one in passes if (rows := one.rows())[0]]
    if len(parts) < 2:
        return parts
    span = passes[0].span
    ahead, back = (_expand(span, [part]) for part in parts)
    boxes, scores = fuse((ahead[:, :4], ahead[:, 4]), (back[:, :4], back[:, 4]))
    return [(span, np.column_stack([boxes, scores]))]


def _expand(span: range, parts: Iterable[_Rows]) -> NDArray[np.float64]:
    """Shape (n, 5): the rows of all frames of a span."""
    whole = np.full((len(span), 5), np.nan)
    for frames, rows in parts:
        whole[frames.start - span.start : frames.stop - span.start] = rows
    return whole


class _PassBuffer:
    """One way through one span. Only the frames from where the object is first seen to where it is last take memory."""

    __slots__ = ("_first", "_rows", "_used", "count", "masks", "reverse", "span")

    def __init__(self, span: range, reverse: bool) -> None:
        self.span = span
        self.reverse = reverse
        self.count = 0
        self.masks: dict[int, Rle] = {}
        self._first = 0
        # In the order of travel from the place `_first`.
        self._rows: Rows = np.empty((0, 5), np.float32)
        self._used = 0

    def offset(self, frame: int) -> int:
        """How many frames it is from the start."""
        return self.span[-1] - frame if self.reverse else frame - self.span[0]

    def add(self, frames: range, rows: Rows) -> None:
        """The next frames, rows by source frame; or some that were taken before."""
        place, rows = self.offset(frames[-1] if self.reverse else frames[0]), rows[::-1] if self.reverse else rows
        seen = np.flatnonzero(~np.isnan(rows[:, 0]))
        if len(seen):
            start, stop = int(seen[0]), int(seen[-1]) + 1
            if not self._used:
                self._first = place + start
            first, last = place + start - self._first, place + stop - self._first
            if last > len(self._rows):
                self._grow(last)
            self._rows[first:last] = rows[start:stop]
            self._used = max(self._used, last)
        self.count = max(self.count, place + len(rows))

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
