"""What an engine's detector returns, and how sessions call it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from backend.engines.sam.device import Batcher
from backend.engines.sam.postprocess import mask_iou, suppress_rivals
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
    """n objects on one frame, those of the first phrase first; all but their masks is on the host.

    Attributes:
        logits: shape (n, h, w), above 0 on the object.
        scores: shape (n,), from 0 to 1.
        phrases: shape (n,), int64, indices of phrases.
        ious: shape (n + m, n + m), the IoU of their masks, and m tracks' behind them, with each other.
        is_finite: whether all numbers are.
    """

    logits: Tensor
    scores: Tensor
    phrases: Tensor
    ious: Tensor
    is_finite: bool = True

    @classmethod
    def select(cls, logits: Tensor, scores: Tensor, phrases: Tensor, tracks: Tensor, nms_iou: float = 0.0) -> Self:
        """What stays of detections on the device, which is read once: one wait for it.

        Args:
            logits, scores, phrases: of all detections.
            tracks: shape (m, h, w), masks of tracks on the frame, as logits.
            nms_iou: of objects of one phrase with an IoU above it only the best is kept; 0: all are.
        """
        masks, count = torch.cat([logits > 0, tracks > 0]), len(scores)
        is_finite = logits.isfinite().all() & scores.isfinite().all()
        numbers = (mask_iou(masks, masks).flatten(), scores.float(), phrases.float(), is_finite.float()[None])
        read = torch.cat(numbers).cpu()
        ious = read[: len(masks) ** 2].view(len(masks), len(masks))
        scores, phrases = read[ious.numel() :][: 2 * count].view(2, count)
        rivals = (ious[:count, :count] > nms_iou) & (phrases[:, None] == phrases)
        keep = suppress_rivals(rivals, scores) if nms_iou else torch.ones(count, dtype=torch.bool)
        rows = keep.nonzero()[:, 0]
        kept = torch.cat([rows, torch.arange(count, len(masks))])
        logits = logits[rows.to(logits.device)] if len(rows) < count else logits
        return cls(logits, scores[rows], phrases[rows].long(), ious[kept][:, kept], bool(read[-1]))

    @classmethod
    def none(cls, tracks: Tensor) -> Self:
        """No detections beside tracks; the argument is that of `select`."""
        nothing = torch.zeros(0, device=tracks.device)
        return cls.select(tracks[:0], nothing, nothing, tracks)

    def keep(self, rows: Sequence[int]) -> Self:
        """Some of them, in this order."""
        kept = [*rows, *range(len(self), len(self.ious))]
        logits, scores, phrases = (values[list(rows)] for values in (self.logits, self.scores, self.phrases))
        return replace(self, logits=logits, scores=scores, phrases=phrases, ious=self.ious[kept][:, kept])

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

    def detect_queries(self, image: Any, queries: Sequence[Query], tracks: Tensor) -> Detections:
        """Detect objects on a frame; `Detections.phrases` are indices of the queries.

        Args:
            image: features of the frame, from the same model's image encoder.
            queries: what to find.
            tracks: see `Detections.select`.
        """
        ...

    def describe(self, image: Any, masks: Tensor) -> Tensor:
        """What the image encoder has made of n masks' places: the mean of its features there, shape (n, width).

        Args:
            image: see `detect_queries`.
            masks: shape (n, h, w), bool.
        """
        ...
