"""Turns the model's mask logits, which are small and above 0 inside an object, into clean masks and boxes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

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
BATCH_PIXELS = 2**19
"""Pixels that `masks_to_boxes` computes at once; allocating larger tensors each time is much slower."""


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


def _find_windows(mask: NDArray[np.bool_], area: int) -> list[_Window]:
    """Where the components of a mask are, each with one more pixel to each side and all that it encloses.

    A mask so narrow that a background of `area` pixels may cross it is one window.
    """
    height, width = mask.shape
    if min(height, width) <= area:
        return [(slice(0, height), slice(0, width))]
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
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


class _Axis(NamedTuple):
    """Samples along one side of a mask: each lies between two of its pixels, `share` of the way; shapes (size,)."""

    low: Tensor
    high: Tensor
    share: Tensor


def _sample_axis(length: int, size: int, device: torch.device) -> _Axis:
    """Where the centres of `size` pixels lie among `length`, in float32 as `interpolate` computes them."""
    place = ((torch.arange(size, dtype=torch.float32, device=device) + 0.5) * (length / size) - 0.5).clamp_(0)
    low = place.long()
    return _Axis(low, (low + 1).clamp_(max=length - 1), place - low)


def _interpolate(low: Tensor, high: Tensor, share: Tensor) -> Tensor:
    return low * (1 - share) + high * share


def masks_at_size(logits: Tensor, height: int, width: int) -> Tensor:
    """Resize logits to the picture's size (bilinear, align_corners=False) and threshold them at 0.

    Uses plain products and sums, so that `masks_to_boxes` can compute single pixels with equal results.

    Args:
        logits: shape (n, h, w).
        height: rows of the picture.
        width: columns of the picture.

    Returns:
        Shape (n, height, width), bool.
    """
    count, h, w = logits.shape
    rows, columns = _sample_axis(h, height, logits.device), _sample_axis(w, width, logits.device)
    masks = torch.empty((count, height, width), dtype=torch.bool, device=logits.device)
    for mask, out in zip(logits.float(), masks, strict=True):  # one at a time: floats at the picture's size are large
        wide = _interpolate(mask[:, columns.low], mask[:, columns.high], columns.share)
        torch.gt(_interpolate(wide[rows.low], wide[rows.high], rows.share[:, None]), 0, out=out)
    return masks


def mask_in_box(logits: Tensor, box: Sequence[float], height: int, width: int) -> NDArray[np.bool_]:
    """As `masks_at_size`, for one mask whose box is known: nothing outside of it is computed.

    Args:
        logits: shape (h, w).
        box: of `masks_to_boxes`.
        height: rows of the picture.
        width: columns of the picture.

    Returns:
        Shape (height, width).
    """
    x0, y0, x1, y1 = map(int, box)
    rows, columns = (
        _Axis(*(part[start:stop] for part in _sample_axis(length, size, logits.device)))
        for length, size, start, stop in ((logits.shape[0], height, y0, y1), (logits.shape[1], width, x0, x1))
    )
    wide = _interpolate(logits[:, columns.low], logits[:, columns.high], columns.share)
    inside = _interpolate(wide[rows.low], wide[rows.high], rows.share[:, None]) > 0
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = inside.cpu().numpy()
    return mask


def masks_to_boxes(logits: Tensor, height: int, width: int) -> NDArray[np.float32]:
    """The boxes around `masks_at_size(logits, height, width)`, computing only pixels near the edges.

    Args:
        logits: shape (n, h, w).
        height: rows of the picture.
        width: columns of the picture.

    Returns:
        Shape (n, 4), x0 y0 x1 y1 in pixels of the picture, x1 and y1 behind the last column and row; rows of NaN for
        empty masks.
    """
    count, h, w = logits.shape
    if not count:
        return np.empty((0, 4), np.float32)
    logits = logits.float()
    rows, columns = _sample_axis(h, height, logits.device), _sample_axis(w, width, logits.device)
    # amax > 0 equals (logits > 0).any, and is ten times as fast on a CPU.
    across, down = logits.amax(1) > 0, logits.amax(2) > 0
    every_row, every_column = _samples_near(rows, down), _samples_near(columns, across)
    heights, widths = _max_samples(h, height) * every_column.shape[1], _max_samples(w, width) * every_row.shape[1]
    most = max(1, BATCH_PIXELS // (2 * max(heights, widths)))
    parts = (slice(start, start + most) for start in range(0, count, most))
    ends = [
        _find_all_ends(logits[part], rows, columns, across[part], down[part], every_row[part], every_column[part])
        for part in parts
    ]
    found = torch.cat(ends, 1).T.cpu().numpy()  # the only transfer, but for spikes
    result = found[:, :4].astype(np.float32)
    unknown = (found[:, 2] <= found[:, 0]) | (found[:, 3] <= found[:, 1])
    result[unknown] = np.nan
    for index in np.flatnonzero(unknown & (found[:, 4] > 0)):
        result[index] = _mask_to_box(masks_at_size(logits[index : index + 1], height, width)[0].cpu().numpy())
    return result


def _find_all_ends(
    logits: Tensor, rows: _Axis, columns: _Axis, across: Tensor, down: Tensor, every_row: Tensor, every_column: Tensor
) -> Tensor:
    """The left, top, right and bottom ends of n masks, and whether there are any; shape (5, n). See `_find_ends`.

    Args:
        across, down: whether a column or row of the logits has any above 0.
        every_row, every_column: the samples that may be inside.
    """

    def is_row_outside(near: Tensor) -> Tensor:
        return _sample(logits, rows, columns, near, every_column).amax(2) <= 0

    def is_column_outside(near: Tensor) -> Tensor:
        return _sample(logits, rows, columns, every_row[:, None], near.flatten(1)).amax(1) <= 0

    left, right = _find_ends(columns, across, is_column_outside)
    top, bottom = _find_ends(rows, down, is_row_outside)
    return torch.stack([left, top, right, bottom, down.any(1)])


def _samples_near(axis: _Axis, inside: Tensor) -> Tensor:
    """The samples of an axis that may be inside, shape (n, k); on a GPU all of them, as that needs no wait for it.

    Args:
        axis: of the picture.
        inside: as for `_find_ends`.
    """
    size = len(axis.low)
    if inside.device.type != "cpu":
        return torch.arange(size, device=inside.device).expand(len(inside), -1)
    first, last = _find_outer(inside)
    start, stop = torch.searchsorted(axis.high, first), torch.searchsorted(axis.low, last, right=True)
    # At least one: in a picture smaller than the mask, none may read it.
    reach = max(1, int(torch.where(inside.any(1), stop - start, 1).amax()))
    return (start[:, None] + torch.arange(reach)).clamp_(max=size - 1)


def _find_outer(inside: Tensor) -> tuple[Tensor, Tensor]:
    """The first and last row or column of each of n masks that has a pixel; shapes (n,)."""
    return inside.int().argmax(1), inside.shape[1] - 1 - inside.flip(1).int().argmax(1)


def _max_samples(length: int, size: int) -> int:
    """Of `size` samples along `length` pixels, the maximum number that lie next to two of the pixels."""
    return 2 * -(-size // length) + 1


def _find_ends(axis: _Axis, inside: Tensor, is_outside: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The first sample along an axis that is inside, and the one behind the last; shapes (n,).

    Samples that read only logits up to 0 are outside, so the ends lie at or after the first and last of `inside`,
    nearly always next to them. If all samples next to one are outside, the result is the axis' size, or 0.

    Args:
        axis: of the picture.
        inside: shape (n, length), whether a row or column of the logits has any above 0.
        is_outside: computes whether samples (n, 2, k) of the axis are outside; shape (n, 2 * k).
    """
    length, size = inside.shape[1], len(axis.low)
    first, last = _find_outer(inside)
    reach = torch.arange(_max_samples(length, size), device=inside.device)
    heads = (torch.searchsorted(axis.high, first)[:, None] + reach).clamp_(max=size - 1)
    tails = (torch.searchsorted(axis.low, last, right=True)[:, None] - len(reach) + reach).clamp_(min=0)
    no_head, no_tail = is_outside(torch.stack([heads, tails], 1)).chunk(2, 1)
    return heads.masked_fill(no_head, size).amin(1), (tails + 1).masked_fill_(no_tail, 0).amax(1)


def _sample(logits: Tensor, rows: _Axis, columns: _Axis, y: Tensor, x: Tensor) -> Tensor:
    """The resized logits in some rows and columns of the picture; the logits' own rows are resized once for each group.

    Args:
        y: shape (n, groups, k), rows, ascending without gaps in a group.
        x: shape (n, l), columns.

    Returns:
        Shape (n, groups * k, l).
    """
    (count, h, _), (_, groups, k) = logits.shape, y.shape
    low, high = rows.low[y], rows.high[y]
    first = low[:, :, :1]
    span = min(h, (k - 1) * h // len(rows.low) + 3)  # so many rows of the logits lie under a group's samples
    numbers = torch.arange(max(count * groups, span), device=y.device)
    group, under = numbers[: count * groups, None], (first + numbers[:span]).clamp_(max=h - 1).flatten(1)
    lines = logits[group[:count], under]
    left, right = (lines.gather(2, end[x][:, None].expand(*under.shape, -1)) for end in columns[:2])
    wide = _interpolate(left, right, columns.share[x][:, None]).view(count * groups, span, -1)
    upper, lower = (wide[group, (end - first).flatten(0, 1)] for end in (low, high))
    return _interpolate(upper, lower, rows.share[y].flatten(0, 1)[:, :, None]).view(count, groups * k, -1)


def _mask_to_box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.nan, np.nan, np.nan, np.nan
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
