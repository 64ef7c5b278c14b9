"""Cleans up the presence of an object: bridges short gaps and removes isolated boxes.

Boxes have shape (n, 4), one row per frame, NaN where the object is absent. `is_tracked` has shape (n,): whether the
frame was tracked at all. `human` contains the rows with a person's box or click.
"""

from collections.abc import Collection
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from backend.tracks.geometry import Boxes

IsTracked = NDArray[np.bool_]


def find_spans(boxes: Boxes) -> list[range]:
    """The rows on which the object is present, as half-open spans."""
    there = np.concatenate([[False], ~np.isnan(boxes[:, 0]), [False]])
    edges = np.flatnonzero(there[1:] != there[:-1]).reshape(-1, 2)
    return [range(start, stop) for start, stop in edges.tolist()]


def bridge_gaps(boxes: Boxes, is_tracked: IsTracked, max_rows: int, human: Collection[int] = ()) -> Boxes:
    """Fill gaps of at most `max_rows` rows by linear interpolation, rounded to 4 decimals.

    Gaps that were not tracked completely stay, as do those with a human row in them or next to them.
    """
    filled = boxes.copy()
    for before, after in pairwise(find_spans(boxes)):
        first, stop = before.stop, after.start
        is_human = any(row in human for row in range(first - 1, stop + 1))
        if stop - first <= max_rows and is_tracked[first:stop].all() and not is_human:
            share = np.arange(1, stop - first + 1)[:, None] / (stop - first + 1)
            filled[first:stop] = np.round(boxes[first - 1] + (boxes[stop] - boxes[first - 1]) * share, 4)
    return filled


def remove_ghosts(boxes: Boxes, is_tracked: IsTracked, human: Collection[int] = ()) -> Boxes:
    """Remove boxes on a single row, if the rows before and after were tracked."""
    kept = boxes.copy()
    for span in find_spans(boxes):
        if len(span) == 1 and span.start not in human and _is_enclosed(span, is_tracked):
            kept[span.start] = np.nan
    return kept


def is_brief(boxes: Boxes, is_tracked: IsTracked, min_rows: int) -> bool:
    """Whether the object is present on fewer than `min_rows` rows, with tracked rows before and after."""
    seen = find_spans(boxes)
    return (
        bool(seen) and sum(map(len, seen)) < min_rows and _is_enclosed(range(seen[0].start, seen[-1].stop), is_tracked)
    )


def _is_enclosed(span: range, is_tracked: IsTracked) -> bool:
    """Whether the rows before and after a span were tracked."""
    return span.start > 0 and span.stop < len(is_tracked) and bool(is_tracked[span.start - 1] and is_tracked[span.stop])
