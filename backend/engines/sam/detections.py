"""What an engine's detector returns, and how sessions call it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from backend.engines.sam.device import Batcher
from backend.tracks.prompts import Exemplar


@dataclass(frozen=True, slots=True)
class Query:
    """A kind of object to find on one frame.

    Attributes:
        text: its words; empty: exemplars alone.
        exemplars: on this frame, with boxes as shares of the picture.
    """

    text: str
    exemplars: tuple[Exemplar, ...] = ()


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

    @classmethod
    def empty(cls, mask_size: tuple[int, int], device: torch.device) -> Self:
        """No detections."""
        numbers = torch.zeros(0, device=device)
        return cls(torch.zeros(0, *mask_size, device=device), numbers, numbers.long())

    def __len__(self) -> int:
        return len(self.scores)


class Detector(Protocol):
    """Finds the objects that words or exemplars describe.

    Attributes:
        batches: runs phrases in batches.
    """

    batches: Batcher

    def check_texts(self, texts: Sequence[str]) -> None:
        """Check the words of queries; those that have none are empty.

        Raises:
            BadRequest: one is too long.
        """
        ...

    def detect_queries(self, image: Any, queries: Sequence[Query]) -> Detections:
        """Detect objects on a frame; `Detections.phrases` are indices of the queries.

        Args:
            image: features of the frame, from the same model's image encoder.
            queries: what to find.
        """
        ...
