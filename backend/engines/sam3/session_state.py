"""What a session keeps of its objects and of its two ways through the video, and how both are saved."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from backend.engines.sam3.association import Association
from backend.engines.sam3.memory_bank import MemoryBank, is_ahead
from backend.tracks.track import FrameResult


@dataclass(slots=True)
class TrackedObject:
    """One object: what is remembered of it, and where it comes from.

    Attributes:
        phrase: index of the phrase that it answers to; None: a person showed it.
        first: index of the phrase that found it.
        is_visual: a person showed or corrected it, so that its memories alone say where it is, not the detector.
        born: the way on which a phrase found it; None: it is there whichever way is gone.
        is_out: a result with it has been yielded; until then the other way knows nothing of it.
    """

    memory_bank: MemoryBank = field(default_factory=MemoryBank)
    phrase: int | None = None
    first_phrase: int | None = None
    is_visual: bool = True
    found_reverse: bool | None = None
    is_yielded: bool = True

    def is_known(self, reverse: bool) -> bool:
        """Whether a way knows it: the one that found it until it finds it false, the other one once it is out."""
        return (
            self.memory_bank.directions[reverse].removed_at is None
            if self.found_reverse is reverse
            else self.is_yielded
        )

    @property
    def has_started(self) -> bool:
        """Whether the way that found it has come to where it begins."""
        return self.found_reverse is None or self.memory_bank.directions[self.found_reverse].joined_at is not None

    def is_tracked(self, reverse: bool) -> bool:
        """Whether it is looked for on the next frame of a way."""
        trail = self.memory_bank.directions[reverse]
        return trail.joined_at is not None and trail.removed_at is None and trail.ended_at is None

    def will_join(self, frame: int, reverse: bool) -> bool:
        """Whether a way that has come to a frame will meet it where it was given."""
        given = self.memory_bank.cond_frames
        return self.memory_bank.directions[reverse].joined_at is None and any(
            is_ahead(at, frame, reverse) for at in given
        )

    def snapshot(self, positions: Mapping[bool, int]) -> Self:
        """It, as it was when the ways had come to these frames; what phrase it then answered to, they know."""
        phrase = self.phrase if self.is_visual else self.first_phrase
        return replace(self, memory_bank=self.memory_bank.snapshot(positions), phrase=phrase)

    def state(self) -> dict[str, Any]:
        """As plain values and tensors."""
        return {
            "memories": self.memory_bank.state(),
            "phrase": self.phrase,
            "first": self.first_phrase,
            "is_visual": self.is_visual,
            "born": self.found_reverse,
            "is_out": self.is_yielded,
        }

    @classmethod
    def from_state(cls, saved: Mapping[str, Any], device: torch.device) -> Self:
        """From `state`, onto a device."""
        return cls(
            memory_bank=MemoryBank.from_state(saved["memories"], device),
            phrase=saved["phrase"],
            first_phrase=saved["first"],
            is_visual=saved["is_visual"],
            found_reverse=saved["born"],
            is_yielded=saved["is_out"],
        )


@dataclass(slots=True)
class DirectionState:
    """A direction's way through the video.

    Attributes:
        association: what it knows of the tracks that words have found.
        since: the frame before the first one.
        at: the last frame that was yielded.
        ahead: results of the frames after `at` that hot start holds back, oldest first.
        pasts: the association's states after `at` and after each of those frames.
    """

    association: Association
    start: int
    position: int
    pending_results: deque[FrameResult] = field(default_factory=deque)
    association_states: deque[dict[str, Any]] = field(default_factory=deque)

    def association_state(self) -> dict[str, Any]:
        """The association's state after `at`."""
        return self.association_states[0] if self.association_states else self.association.state()


@dataclass(frozen=True, slots=True)
class ObjectMasks:
    """m objects on one frame.

    Attributes:
        names: of the objects.
        logits: shape (m, h, w), above 0 on the object.
        scores: shape (m,), logits of "it is there".
    """

    names: list[str]
    logits: Tensor
    object_scores: Tensor
