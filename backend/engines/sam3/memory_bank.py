"""What is kept of one object: memories of the frames where it was given, and of the last ones where it was tracked.

A tracked frame is looked at for `Reach.pointers` frames and then dropped, so that a video of any length takes the same
room. Forward and backward keep their own tracked frames, and share the given ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor


class Memory(NamedTuple):
    """One frame of one object.

    Attributes:
        features: shape (positions, memory width): picture and mask as the memory encoder sees them; None: too long ago.
        pointer: shape (width,): the object in one vector.
        logits: shape (h, w): the mask at the model's resolution; None: too long ago.
        score: logit of "it is there".
        quality: how well the object was seen, from 0 to 1.
    """

    features: Tensor | None
    pointer: Tensor
    logits: Tensor | None
    score: float
    quality: float = 1.0

    def cloned(self) -> "Memory":
        """With storage of its own."""
        return Memory._make(value.clone() if isinstance(value, Tensor) else value for value in self)


class Reach(NamedTuple):
    """How far the model looks: at so many tracked frames' features and pointers, and at so many given frames.

    Attributes:
        least: of the tracked frames the last one counts, and before it those of a better quality than this, so that the
            object is not forgotten while it is hidden; None: all do, as in transformers 5.23.
    """

    features: int
    pointers: int
    given: int
    least: float | None = None


class History(NamedTuple):
    """What the model looks at to find an object on the next frame.

    Attributes:
        features: of K frames, each shape (positions, memory width).
        ages: of the same frames: 0 for a given one, else how many frames ago.
        pointers: of P frames, each shape (width,).
        distances: of the same frames: how many frames ago.
    """

    features: list[Tensor]
    ages: list[int]
    pointers: list[Tensor]
    distances: list[int]


def lies_ahead(frame: int, at: int, reverse: bool) -> bool:
    """Whether a way that has come to `at` has a frame before it."""
    return frame < at if reverse else frame > at


@dataclass(slots=True)
class Trail:
    """What one direction's way has seen of an object.

    Attributes:
        since: the frame on which the object joined the way; None: it has not.
        removed: the frame on which the way's hot start found it false; None: it has not.
        ended: the frame on which the way gave it up, since it had been gone for long; None: it has not.
        tracked: frames on which it was found, newest last.
        confirmed: those of them that the detector confirmed.
    """

    since: int | None = None
    removed: int | None = None
    ended: int | None = None
    tracked: dict[int, Memory] = field(default_factory=dict)
    confirmed: dict[int, Memory] = field(default_factory=dict)

    def as_of(self, at: int, reverse: bool) -> Self:
        """It, as it was when it had come to a frame."""
        since, removed, ended = (
            None if frame is None or lies_ahead(frame, at, reverse) else frame
            for frame in (self.since, self.removed, self.ended)
        )
        tracked, confirmed = (
            {frame: memory for frame, memory in memories.items() if not lies_ahead(frame, at, reverse)}
            for memories in (self.tracked, self.confirmed)
        )
        return type(self)(since, removed, ended, tracked, confirmed)

    def is_over(self, at: int, reverse: bool) -> bool:
        """Whether a way that has come to `at` does without it from here on."""
        last = self.ended if self.removed is None else self.removed
        return last is not None and not lies_ahead(last, at, reverse)


@dataclass(slots=True)
class Memories:
    """Of one object. Frames are source frames; `reverse` says which way they are gone through."""

    given: dict[int, Memory] = field(default_factory=dict)
    trails: dict[bool, Trail] = field(default_factory=lambda: {False: Trail(), True: Trail()})

    def history(self, frame: int, reverse: bool, reach: Reach) -> History:
        """What to look at on a frame, as SAM 2 and SAM 3 choose it (arXiv:2408.00714, section 4): the given frames
        nearest in time, then the last tracked ones, and the pointers of those that lie behind."""
        trail, back = self.trails[reverse], -1 if reverse else 1
        chosen = nearest({**self.given, **trail.confirmed}, frame, reach.given)
        past = self._past(frame, reverse, reach)
        seen = [(0, memory) for memory in chosen.values()]
        for age, at in reversed(past[: reach.features]):
            memory = trail.tracked.get(at) or (None if at in chosen else trail.confirmed.get(at) or self.given.get(at))
            if memory is not None:
                seen.append((age, memory))
        pointers = [(back * (frame - at), memory) for at, memory in chosen.items() if back * (frame - at) >= 0]
        pointers += [(age, trail.tracked[at]) for age, at in past if at in trail.tracked]
        ages, features = [], []
        for age, memory in seen:
            if memory.features is not None:
                ages.append(age)
                features.append(memory.features)
        return History(features, ages, [memory.pointer for _, memory in pointers], [age for age, _ in pointers])

    def _past(self, frame: int, reverse: bool, reach: Reach) -> list[tuple[int, int]]:
        """The tracked frames to look back at from a frame, last one first: what they count as, frames ago, and which.

        With `Reach.least` as facebookresearch/sam3 has it (`Sam3TrackerBase.frame_filter`): they count in their order.
        """
        tracked, back = self.trails[reverse].tracked, -1 if reverse else 1
        if reach.least is None:
            return [(age, frame - back * age) for age in range(1, reach.pointers)]
        good = (at for at, memory in tracked.items() if memory.quality > reach.least)
        before = sorted((at for at in good if back * (frame - at) > 1), key=lambda at: back * (frame - at))
        return list(enumerate([frame - back, *before][: reach.pointers - 1], 1))

    def at(self, frame: int) -> Memory | None:
        """What is still kept of a frame."""
        for memories in self._all():
            if frame in memories:
                return memories[frame]
        return None

    def was_tracked(self, frame: int, at: int, reverse: bool) -> bool:
        """Whether a way that has come to `at` went over a frame with the object."""
        since = self.trails[reverse].since
        return since is not None and not lies_ahead(frame, at, reverse) and not lies_ahead(since, frame, reverse)

    def forget_around(self, frame: int, reach: Reach) -> None:
        """Drop what was tracked near a frame that a person has corrected: it did not know better."""
        for trail in self.trails.values():
            for memories in (trail.tracked, trail.confirmed):
                for at in [at for at in memories if abs(at - frame) <= reach.features + 1]:
                    del memories[at]

    def prune(self, frame: int, reverse: bool, reach: Reach) -> None:
        """Drop what cannot be looked at any more from this frame on, going this way."""
        trail, back = self.trails[reverse], -1 if reverse else 1
        pasts = [self._past(now, reverse, reach) for now in (frame, frame + back)]
        whole = {at for past in pasts for _, at in past[: reach.features]}
        pointers = {at for past in pasts for _, at in past}
        for at in list(trail.tracked):
            age = back * (frame - at)
            if age <= reach.features or at in whole:
                continue
            if at not in pointers:
                del trail.tracked[at]
            elif trail.tracked[at].features is not None:
                trail.tracked[at] = trail.tracked[at]._replace(features=None, logits=None)
        # Those ahead are of frames that were computed and not yielded, and may be undone.
        passed = [at for at in trail.confirmed if not lies_ahead(at, frame, reverse)]
        for at in passed[: -reach.given]:
            if back * (frame - at) > reach.features:
                del trail.confirmed[at]

    def as_of(self, ats: Mapping[bool, int]) -> Self:
        """These, as they were when the two ways had come to these frames."""
        return type(self)(
            dict(self.given), {reverse: trail.as_of(ats[reverse], reverse) for reverse, trail in self.trails.items()}
        )

    def saved(self) -> dict[str, Any]:
        """As plain values and tensors."""
        return {
            "given": _saved(self.given),
            "trails": {
                reverse: [trail.since, trail.removed, trail.ended, _saved(trail.tracked), _saved(trail.confirmed)]
                for reverse, trail in self.trails.items()
            },
        }

    @classmethod
    def restored(cls, saved: Mapping[str, Any], device: torch.device) -> Self:
        """From `saved`, onto a device."""
        return cls(
            _restored(saved["given"], device),
            {
                reverse: Trail(since, removed, ended, _restored(tracked, device), _restored(confirmed, device))
                for reverse, (since, removed, ended, tracked, confirmed) in saved["trails"].items()
            },
        )

    def _all(self) -> Iterator[Mapping[int, Memory]]:
        yield self.given
        for trail in self.trails.values():
            yield trail.confirmed
            yield trail.tracked


def nearest(memories: Mapping[int, Memory], frame: int, count: int) -> dict[int, Memory]:
    """At most `count` (two or more): the last one before the frame, the first one from it on, and then the nearest."""
    if len(memories) <= count:
        return dict(memories)
    first = [
        max((at for at in memories if at < frame), default=None),
        min((at for at in memories if at >= frame), default=None),
    ]
    chosen = [at for at in first if at is not None]
    others = sorted((at for at in memories if at not in chosen), key=lambda at: abs(at - frame))
    return {at: memories[at] for at in [*chosen, *others[: count - len(chosen)]]}


def _saved(memories: Mapping[int, Memory]) -> dict[int, tuple[Any, ...]]:
    # Cloned, since a view would be saved with all that it is a view of.
    return {at: tuple(memory.cloned()) for at, memory in memories.items()}


def _restored(saved: Mapping[int, Sequence[Any]], device: torch.device) -> dict[int, Memory]:
    return {
        at: Memory._make(value.to(device) if isinstance(value, Tensor) else value for value in memory)
        for at, memory in saved.items()
    }
