"""What an engine's detector returns, and how sessions call it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from backend.engines.sam.device import Batcher


@dataclass(frozen=True, slots=True)
class Detections:
    """n objects on one frame, those of the first phrase first.

    Attributes:
        logits: shape (n, h, w), above 0 on the object.
        scores: shape (n,), from 0 to 1.
        phrases: shape (n,), int64, indices of phrases.
    """

    logits: Tensor
    scores: Tensor
    phrases: Tensor

    def __len__(self) -> int:
        return len(self.scores)


class Detector(Protocol):
    """Finds the objects that phrases describe.

    Attributes:
        batches: runs phrases in batches.
    """

    batches: Batcher

    def encode_phrases(self, phrases: Sequence[str]) -> Any:
        """Encode phrases, or take them from the cache.

        Raises:
            BadRequest: there are none, or one is empty or too long.
        """
        ...

    def detect_phrases(self, image: Any, phrases: Sequence[str]) -> Detections:
        """Detect the objects of phrases on a frame.

        Args:
            image: features of the frame, from the same model's image encoder.
            phrases: what to find.
        """
        ...
