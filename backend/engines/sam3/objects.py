"""What a session keeps of its objects and of its two ways through the video, and how both are saved."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from backend.engines.sam3.association import Association
from backend.engines.sam3.memory_bank import Memories, lies_ahead
from backend.tracks.track import FrameResult


@dataclass(slots=True)
class Object:
    """One object: what is remembered of it, and where it comes from.

    Attributes:
        phrase: index of the phrase that it answers to; None: a person showed it.
        first: index of the phrase that found it.
        is_visual: a person showed or corrected it, so that its memories alone say where it is, not the detector.
        born: the way on which a phrase found it; None: it is there whichever way is gone.
        is_out: a result with it has been yielded; until then the other way knows nothing of it.
    """

    memories: Memories = field(default_factory=Memories)
    phrase: int | None = None
    first: int | None = None
    is_visual: bool = True
    born: bool | None = None
    is_out: bool = True

    def is_known(self, reverse: bool) -> bool:
        """Whether a way knows it: the one that found it until it finds it false, the other one once it is out."""
        return self.memories.trails[reverse].removed is None if self.born is reverse else self.is_out

    @property
    def has_begun(self) -> bool:
        """Whether the way that found it has come to where it begins."""
        return self.born is None or self.memories.trails[self.born].since is not None

    def is_carried(self, reverse: bool) -> bool:
        """Whether it is looked for on the next frame of a way."""
        trail = self.memories.trails[reverse]
        return trail.since is not None and trail.removed is None and trail.ended is None

    def will_join(self, frame: int, reverse: bool) -> bool:
        """Whether a way that has come to a frame will meet it where it was given."""
        given = self.memories.given
        return self.memories.trails[reverse].since is None and any(lies_ahead(at, frame, reverse) for at in given)

    def as_of(self, ats: Mapping[bool, int]) -> Self:
        """It, as it was when the ways had come to these frames; what phrase it then answered to, they know."""
        phrase = self.phrase if self.is_visual else self.first
        return replace(self, memories=self.memories.as_of(ats), phrase=phrase)

    def saved(self) -> dict[str, Any]:
        """As plain values and tensors."""
        return {
            "memories": self.memories.saved(),
            "phrase": self.phrase,
            "first": self.first,
            "is_visual": self.is_visual,
            "born": self.born,
            "is_out": self.is_out,
        }

    @classmethod
    def restored(cls, saved: Mapping[str, Any], device: torch.device) -> Self:
        """From `saved`."""
        return cls(**{**saved, "memories": Memories.restored(saved["memories"], device)})


@dataclass(slots=True)
class Way:
    """A direction's way through the video.

    Attributes:
        association: what it knows of the tracks that words have found.
        since: the frame before the first one.
        at: the last frame that was yielded.
        ahead: results of the frames after `at` that hot start holds back, oldest first.
        pasts: the association's states after `at` and after each of those frames.
    """

    association: Association
    since: int
    at: int
    ahead: deque[FrameResult] = field(default_factory=deque)
    pasts: deque[dict[str, Any]] = field(default_factory=deque)

    def past(self) -> dict[str, Any]:
        """The association's state after `at`."""
        return self.pasts[0] if self.pasts else self.association.state()


@dataclass(frozen=True, slots=True)
class Seen:
    """m objects on one frame.

    Attributes:
        names: of the objects.
        logits: shape (m, h, w), above 0 on the object.
        scores: shape (m,), logits of "it is there".
    """

    names: list[str]
    logits: Tensor
    scores: Tensor
