"""The state of a session: its objects, one state for each direction, and what is saved of it."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any, Self

import torch
from torch import Tensor

from backend.engines.sam.association import Association
from backend.engines.sam.memory_bank import MemoryBank, is_ahead
from backend.tracks.track import FrameResult


@dataclass(slots=True)
class TrackedObject:
    """One object: its memory, and where it comes from.

    Attributes:
        phrase: index of its phrase; None: it was prompted.
        first_phrase: index of the phrase that found it first.
        is_visual: it was prompted or corrected by points, box or mask, so the detector does not change it.
        found_reverse: the direction in which a phrase found it (True: in reverse); None: it exists in both.
        is_yielded: a result with it was yielded; until then the other direction ignores it.
        detected_at: the conditioning frame on which a phrase found it; None: it was prompted.
    """

    memory_bank: MemoryBank = field(default_factory=MemoryBank)
    phrase: int | None = None
    first_phrase: int | None = None
    is_visual: bool = True
    found_reverse: bool | None = None
    is_yielded: bool = True
    detected_at: int | None = None

    def is_known(self, reverse: bool) -> bool:
        """Whether it exists in a direction: where it was found until it is removed, in the other once yielded."""
        return (
            self.memory_bank.directions[reverse].removed_at is None
            if self.found_reverse is reverse
            else self.is_yielded
        )

    @property
    def has_started(self) -> bool:
        """Whether the direction that found it has reached its first frame."""
        return self.found_reverse is None or self.memory_bank.directions[self.found_reverse].joined_at is not None

    def is_tracked(self, reverse: bool) -> bool:
        """Whether it is tracked on the next frame of a direction."""
        trail = self.memory_bank.directions[reverse]
        return trail.joined_at is not None and trail.removed_at is None and trail.ended_at is None

    def will_join(self, frame: int, reverse: bool) -> bool:
        """Whether a direction at this frame has a conditioning frame of it ahead."""
        given = self.memory_bank.cond_frames
        return self.memory_bank.directions[reverse].joined_at is None and any(
            is_ahead(at, frame, reverse) for at in given
        )

    def snapshot(self, positions: Mapping[bool, int]) -> Self:
        """A copy as of these frames of the two directions; its phrase then is known to the associations."""
        phrase = self.phrase if self.is_visual else self.first_phrase
        return replace(self, memory_bank=self.memory_bank.snapshot(positions), phrase=phrase)

    def state(self) -> dict[str, Any]:
        """As plain values and tensors. The keys are those of stored sessions: do not change them."""
        return {
            "memories": self.memory_bank.state(),
            "phrase": self.phrase,
            "first": self.first_phrase,
            "is_visual": self.is_visual,
            "born": self.found_reverse,
            "is_out": self.is_yielded,
            "detected": self.detected_at,
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
            detected_at=saved.get("detected"),  # states of older versions have none
        )


@dataclass(slots=True)
class DirectionState:
    """One direction of a session.

    Attributes:
        association: of the tracks that phrases found.
        start: the frame before the first one.
        position: the last yielded frame.
        pending_results: of frames after `position`, which the hot start delays; oldest first.
        association_states: after `position` and after each pending frame.
    """

    association: Association
    start: int
    position: int
    pending_results: deque[FrameResult] = field(default_factory=deque)
    association_states: deque[dict[str, Any]] = field(default_factory=deque)

    def association_state(self) -> dict[str, Any]:
        """The association's state after `position`."""
        return self.association_states[0] if self.association_states else self.association.state()


@dataclass(frozen=True, slots=True)
class SessionState:
    """A session as of its last yielded frame; see `backend.engines.base.Session.state`.

    Attributes:
        values: plain ones, shared with nobody.
        objects: snapshots; what they share with the session are tensors, which nobody changes.
    """

    values: Mapping[str, Any]
    objects: Mapping[str, TrackedObject]

    def __bytes__(self) -> bytes:
        buffer = BytesIO()
        torch.save({**self.values, "objects": {name: one.state() for name, one in self.objects.items()}}, buffer)
        return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class ObjectMasks:
    """m objects on one frame.

    Attributes:
        names: of the objects.
        logits: shape (m, h, w), above 0 on the object.
        object_scores: shape (m,), logits of presence.
    """

    names: list[str]
    logits: Tensor
    object_scores: Tensor
