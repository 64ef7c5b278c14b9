"""The order in which a session goes through a video: prompts first, then passes over spans of source frames."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from backend.engines.base import Session
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
        for index in range(progress.pass_index, len(self.passes)):
            rest = self.passes[index].remaining_part(progress.done if index == progress.pass_index else 0)
            with closing(session.propagate(rest, self.passes[index].reverse)) as results:
                for result in results:
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
