"""Turns the model's mask logits, which are small and above 0 inside an object, into clean masks."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.errors import EngineError

HOLE_LOGIT, SPECK_LOGIT = 0.1, -0.1
"""Logits of filled holes and removed specks."""
ABSENT_LOGIT = -10.0
"""Logit of a pixel outside an object."""
MIN_KEPT_SHARE = 0.3
"""A mask that keeps a smaller share of itself beside others is not encoded into memory."""


def fetch(logits: Sequence[Tensor], numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Read masks and numbers from the device in one transfer, which is one wait for it.

    Args:
        logits: of masks, shapes (n, h, w).
        numbers: shape (m, k).

    Returns:
        All masks, shape (sum of n, h, w), and the numbers, in float32 on the host.
    """
    if not logits:
        return torch.zeros(0, 1, 1), numbers.float().cpu()
    packed = torch.cat([*(part.float().flatten() for part in logits), numbers.float().flatten()]).cpu()
    count = packed.numel() - numbers.numel()
    return packed[:count].view(-1, *logits[0].shape[1:]), packed[count:].view_as(numbers)


def check_finite(logits: Tensor, scores: Tensor, frame: int) -> None:
    """Check masks and scores of a frame; with a NaN score a mask is replaced by that of an absent object.

    Raises:
        EngineError: some are not finite.
    """
    if not (logits.isfinite().all() and scores.isfinite().all()):
        raise not_finite(frame)


def not_finite(frame: int) -> EngineError:
    """The error about masks or scores that are not."""
    return EngineError(
        f"the masks on frame {frame} are not finite: set dtype: float32, or check that the weights are complete"
    )


def mask_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of every mask with every other.

    Args:
        a: shape (n, h, w), bool.
        b: shape (m, h, w), bool.

    Returns:
        Shape (n, m), float32, 0..1; 0 where both masks are empty.
    """
    # Doubles count exactly; floats may be reduced to TF32, or to bfloat16 under autocast. MPS has no doubles.
    exact = torch.float32 if a.device.type == "mps" else torch.float64
    first, second = a.flatten(1).to(exact), b.flatten(1).to(exact)
    intersection = first @ second.T
    union = first.sum(1)[:, None] + second.sum(1) - intersection
    return (intersection / union.clamp(min=1)).float()


def suppress_rivals(rivals: Tensor, scores: Tensor) -> Tensor:
    """Greedy non-maximum suppression: of rivals the one with the highest score stays.

    Args:
        rivals: shape (n, n), bool: one of both is dropped.
        scores: shape (n,); of equal ones the earlier counts as higher.

    Returns:
        Shape (n,), bool: what stays.
    """
    keep = np.zeros(len(scores), bool)
    for index in torch.argsort(scores, descending=True, stable=True).tolist():
        keep[index] = not (rivals[index].numpy() & keep).any()
    return torch.from_numpy(keep)


def clean_masks(logits: Tensor, area: int) -> Tensor:
    """Fill small holes, then remove small specks; both are 8-connected components.

    As `fill_holes_in_mask_scores` of Transformers 5.23, which does nothing without a kernel from the hub.

    Args:
        logits: shape (n, h, w).
        area: the largest component to change, pixels. A speck is also at most half of its mask. 0: change nothing.

    Returns:
        Shape (n, h, w); `logits` itself where nothing changes.
    """
    if area <= 0:
        return logits
    cleaned = logits
    for index, mask in enumerate((logits > 0).cpu().numpy()):
        windows, changes = _find_windows(mask, area), list[tuple[_Window, NDArray[np.bool_], float]]()
        filled = mask.copy()
        for window in windows:
            if _may_have_holes(window, mask.shape):
                holes = _small_components(~mask[window], area, window, mask.shape)
                if holes.any():
                    filled[window] |= holes
                    changes.append((window, holes, HOLE_LOGIT))
        most = min(area, int(np.count_nonzero(filled)) // 2)
        for window in windows:
            inner = _shrink(window)
            if _is_inside(window, mask.shape) and filled[inner].size <= most and filled[inner].all():
                changes.append((inner, filled[inner], SPECK_LOGIT))  # most specks are such a rectangle
                continue
            specks = _small_components(filled[window], most, window, mask.shape)
            if specks.any():
                changes.append((window, specks, SPECK_LOGIT))
        for window, parts, value in changes:
            cleaned = logits.clone() if cleaned is logits else cleaned
            cleaned[index][window][torch.from_numpy(parts).to(logits.device)] = value
    return cleaned


_Window = tuple[slice, slice]
"""Rows and columns of a mask."""
_PIXELS_PER_WINDOW = 1200
"""How much of a whole mask is searched in the time that one window takes; measured on masks of 160 and 288 pixels."""


def _find_windows(mask: NDArray[np.bool_], area: int) -> list[_Window]:
    """Where the components of a mask are, each with one more pixel to each side and all that it encloses.

    One window is the whole mask where that takes less time, as noise does, and where the mask is so narrow that a
    background of `area` pixels may cross it.
    """
    height, width = mask.shape
    whole = [(slice(0, height), slice(0, width))]
    if min(height, width) <= area:
        return whole
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if len(contours) * _PIXELS_PER_WINDOW > mask.size:
        return whole
    return [
        (slice(max(0, y - 1), min(height, y + tall + 1)), slice(max(0, x - 1), min(width, x + wide + 1)))
        for x, y, wide, tall in map(cv2.boundingRect, contours)
    ]


def _is_inside(window: _Window, shape: tuple[int, ...]) -> bool:
    """Whether the mask goes on at every side of a window."""
    return all(part.start > 0 and part.stop < length for part, length in zip(window, shape, strict=True))


def _may_have_holes(window: _Window, shape: tuple[int, ...]) -> bool:
    """Whether a component may enclose anything, alone or with the sides of the mask."""
    # A hole needs three rows and columns, and a window has one more to each side.
    return not _is_inside(window, shape) or min(part.stop - part.start for part in window) >= 5


def _shrink(window: _Window) -> _Window:
    """A window without the pixel more to each side."""
    rows, columns = window
    return slice(rows.start + 1, rows.stop - 1), slice(columns.start + 1, columns.stop - 1)


def _small_components(part: NDArray[np.bool_], area: int, window: _Window, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The connected components with at most `area` pixels.

    Args:
        part: of a larger mask.
        area: the largest component, pixels.
        window: where the part is in the mask. What reaches a side where the mask goes on is no small component.
        shape: of the mask.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats(part.astype(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] <= area
    small[0] = False  # what is not in the mask
    rows, columns = window
    for goes_on, side in (
        (rows.start > 0, labels[0]),
        (rows.stop < shape[0], labels[-1]),
        (columns.start > 0, labels[:, 0]),
        (columns.stop < shape[1], labels[:, -1]),
    ):
        if goes_on:
            small[side] = False
    return np.asarray(small[labels]) if small.any() else np.zeros_like(part)


def suppress_shrunk_masks(logits: Tensor) -> Tensor:
    """Empty the masks that lose most of their area when every pixel goes to the mask with the highest logit.

    Args:
        logits: shape (n, h, w).
    """
    present = logits > 0
    surest = logits.argmax(0) == torch.arange(len(logits), device=logits.device)[:, None, None]
    kept = (present & surest).sum((1, 2)) / present.sum((1, 2)).clamp(min=1)
    return torch.where((kept >= MIN_KEPT_SHARE)[:, None, None], logits, logits.clamp(max=ABSENT_LOGIT))


def resolve_overlaps(masks: Tensor, scores: Tensor, phrases: Sequence[int | None]) -> Tensor:
    """Give every pixel to one object of a phrase, the one with the best score; the first of equal ones.

    Args:
        masks: shape (n, height, width), true on the object.
        scores: shape (n,).
        phrases: of the n objects; None: a prompted one, which is left as it is.

    Returns:
        Shape (n, height, width).
    """
    claimed = masks.clone()
    taken: dict[int, Tensor] = {}
    for row in scores.argsort(descending=True, stable=True).tolist():
        phrase = phrases[row]
        if phrase is None:
            continue
        if phrase in taken:
            claimed[row] &= ~taken[phrase]
            taken[phrase] |= masks[row]
        else:
            taken[phrase] = masks[row].clone()
    return claimed
