"""The order in which a session goes through a video: prompts first, then passes over spans of source frames."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from backend.engines.base import Propagation, Session
from backend.tracks.prompts import Direction, Phrase, Prompt
from backend.tracks.track import FrameResult


@dataclass(frozen=True, slots=True)
class Interval:
    """The source frames from one prompted frame to the next, both included; None: to the video's start or end."""

    first: int | None
    last: int | None


def intervals_between(frames: Sequence[int], direction: Direction) -> list[Interval]:
    """The intervals between sorted prompted frames, and beyond the outer ones as `direction` says."""
    intervals = [Interval(first, last) for first, last in pairwise(frames)]
    if direction != "forward":
        intervals.insert(0, Interval(None, frames[0]))
    if direction != "backward":
        intervals.append(Interval(frames[-1], None))
    return intervals


class Pass(NamedTuple):
    """Consecutive source frames that a session goes through, from the last to the first if `reverse`."""

    span: range
    reverse: bool

    def completed_part(self, done: int) -> range:
        """The frames of the span that are done after `done` frames."""
        return self.span[len(self.span) - done :] if self.reverse else self.span[:done]

    def remaining_part(self, done: int) -> range:
        """The frames of the span that are not done after `done` frames."""
        return self.span[: len(self.span) - done] if self.reverse else self.span[done:]


def merge_passes(passes: Iterable[Pass]) -> list[Pass]:
    """The fewest passes that cover every frame of these once per direction; forward passes come first."""
    merged: list[Pass] = []
    for span, reverse in sorted(passes, key=lambda item: (item.reverse, item.span.start)):
        if merged and merged[-1].reverse == reverse and span.start <= merged[-1].span.stop:
            start, stop = merged[-1].span.start, max(merged[-1].span.stop, span.stop)
            merged[-1] = Pass(range(start, stop), reverse)
        else:
            merged.append(Pass(span, reverse))
    return merged


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a session is: `done` frames of one pass, with all passes before it complete."""

    pass_index: int = 0
    done: int = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """What a session does.

    Attributes:
        prompts: given before the first pass; each group lies on one frame.
        passes: in this order.
    """

    prompts: Sequence[Sequence[Prompt | Phrase]]
    passes: Sequence[Pass]

    def prompt(self, session: Session) -> frozenset[str]:
        """Give all prompts; returns the names of the tracks that phrases find on their first frame."""
        return frozenset(name for group in self.prompts for name in session.prompt(group).phrases)

    def propagate(self, session: Session, progress: Progress) -> Generator[tuple[int, FrameResult]]:
        """Continue from `progress`; yields the index of the pass and the result of every frame."""
        with closing(Cursor(self, session, progress)) as cursor:
            while not cursor.is_complete:
                index, result = cursor.pass_index, next(cursor.propagation)
                cursor.advance()
                yield index, result

    @property
    def total(self) -> int:
        """Frames of all passes."""
        return sum(len(span) for span, _ in self.passes)

    def count_done(self, progress: Progress) -> int:
        """Frames of all passes that are done."""
        return sum(len(span) for span, _ in self.passes[: progress.pass_index]) + progress.done

    def place_after(self, pass_index: int, frames: range) -> Progress:
        """How far a session is once it has processed these frames of a pass."""
        span, reverse = self.passes[pass_index]
        return Progress(pass_index, span.stop - frames.start if reverse else frames.stop - span.start)

    def is_next(self, progress: Progress, pass_index: int, frames: range) -> bool:
        """Whether these frames of a pass are the next ones."""
        if pass_index >= len(self.passes):
            return False
        span, reverse = self.passes[pass_index]
        before = span.stop - frames.stop if reverse else frames.start - span.start
        return self.count_done(Progress(pass_index, before)) == self.count_done(progress)

    def completed_parts(self, progress: Progress) -> list[range]:
        """The source frames that are done, pass by pass."""
        index = progress.pass_index
        completed = [span for span, _ in self.passes[:index]]
        return completed + [current.completed_part(progress.done) for current in self.passes[index : index + 1]]


class Position(NamedTuple):
    """Where a session stands: the direction of its pass, and the source frame whose result is next."""

    reverse: bool
    frame: int

    @property
    def order(self) -> tuple[bool, int]:
        """Sorts positions so that the first ones meet the others: forward before reverse, the rearmost first."""
        return self.reverse, -self.frame if self.reverse else self.frame


class Cursor:
    """A session on its way through a schedule, one frame at a time.

    Args:
        progress: where to start.

    Attributes:
        pass_index: of the pass that it is in.
    """

    def __init__(self, schedule: Schedule, session: Session, progress: Progress) -> None:
        self._passes, self._session = schedule.passes, session
        self.pass_index, self._done = progress.pass_index, progress.done
        self._propagation: Propagation | None = None
        self._skip_completed_passes()

    @property
    def is_complete(self) -> bool:
        """Whether all passes are done."""
        return self.pass_index >= len(self._passes)

    @property
    def position(self) -> Position:
        """Where the session stands; only before the schedule is complete."""
        span, reverse = self._passes[self.pass_index]
        return Position(reverse, span[-1 - self._done] if reverse else span[self._done])

    @property
    def propagation(self) -> Propagation:
        """The results of the pass; take one, then call `advance`."""
        if self._propagation is None:
            current = self._passes[self.pass_index]
            self._propagation = self._session.propagate(current.remaining_part(self._done), current.reverse)
        return self._propagation

    def advance(self) -> None:
        """Go on to the next frame: the result of this one was taken from `propagation`."""
        self._done += 1
        self._skip_completed_passes()

    def close(self) -> None:
        """End the pass, whether it is complete or not."""
        if self._propagation is not None:
            self._propagation.close()
            self._propagation = None

    def _skip_completed_passes(self) -> None:
        while not self.is_complete and self._done >= len(self._passes[self.pass_index].span):
            self.close()
            self.pass_index, self._done = self.pass_index + 1, 0
