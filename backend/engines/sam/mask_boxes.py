"""Brings mask logits to the picture's size, and finds the boxes of the masks there."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BATCH_PIXELS = 2**19
"""Pixels that `masks_to_boxes` computes at once; allocating larger tensors each time is much slower."""


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
