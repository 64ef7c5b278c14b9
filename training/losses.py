"""Losses of detector and tracker. Masks have shape (..., h, w): predicted logits, and truth from 0 to 1."""

import torch
from torch import Tensor
from torch.nn import functional


def focal(logits: Tensor, truth: Tensor, share: float = 0.4, sharpness: float = 1.5) -> Tensor:
    """Focal loss per element: cross entropy with less weight on correct predictions (arXiv:1708.02002)."""
    right = torch.sigmoid(logits * (2 * truth - 1))
    weight = (share * truth + (1 - share) * (1 - truth)) * (1 - right) ** sharpness
    return weight * functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")


def balanced(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross entropy per mask, with equal weight for the object and the background.

    An object covers about a fiftieth of its picture, so with the plain mean alone, training settles on empty masks.
    """
    wrong = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    on, off = ((wrong * of).sum((-2, -1)) / of.sum((-2, -1)).clamp(min=1) for of in (truth, 1 - truth))
    return (on + off) / 2


def dice(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice coefficient, per mask (arXiv:1606.04797)."""
    found = logits.sigmoid()
    both = (found * truth).sum((-2, -1))
    return 1 - (2 * both + 1) / (found.sum((-2, -1)) + truth.sum((-2, -1)) + 1)


@torch.no_grad()
def overlap(logits: Tensor, truth: Tensor) -> Tensor:
    """IoU per mask."""
    found, there = logits > 0, truth > 0.5
    return (found & there).sum((-2, -1)) / (found | there).sum((-2, -1)).clamp(min=1)


def generalised_iou(one: Tensor, other: Tensor) -> Tensor:
    """Generalised IoU of boxes x0 y0 x1 y1, shape (..., 4) (arXiv:1902.09630)."""

    def area(low: Tensor, high: Tensor) -> Tensor:
        return (high - low).clamp(min=0).prod(-1)

    both = area(torch.max(one[..., :2], other[..., :2]), torch.min(one[..., 2:], other[..., 2:]))
    around = area(torch.min(one[..., :2], other[..., :2]), torch.max(one[..., 2:], other[..., 2:])) + 1e-6
    either = area(one[..., :2], one[..., 2:]) + area(other[..., :2], other[..., 2:]) - both + 1e-6
    return both / either - (around - either) / around
