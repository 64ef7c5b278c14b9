"""When an object is there: drop-outs that are bridged, ghosts that are none.

Boxes have shape (n, 4), a row a frame, NaN where the object is not there; `looked` has shape (n,) and says where it was
looked for at all; `human` are rows on which a person has said something of it, by a box or a click.
"""

from collections.abc import Collection
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from backend.tracks.geometry import Boxes

IsTracked = NDArray[np.bool_]


def find_spans(boxes: Boxes) -> list[range]:
    """The rows on which it is there, as half-open spans."""
    there = np.concatenate([[False], ~np.isnan(boxes[:, 0]), [False]])
    edges = np.flatnonzero(there[1:] != there[:-1]).reshape(-1, 2)
    return [range(start, stop) for start, stop in edges.tolist()]


def bridge_gaps(boxes: Boxes, looked: IsTracked, most: int, human: Collection[int] = ()) -> Boxes:
    """The boxes with gaps of at most `most` rows filled in a straight line, to 4 decimals.

    A gap stays where it was not looked for in all of it, and where a person has said something in it or beside it.
    """
    filled = boxes.copy()
    for before, after in pairwise(find_spans(boxes)):
        first, stop = before.stop, after.start
        is_human = any(row in human for row in range(first - 1, stop + 1))
        if stop - first <= most and looked[first:stop].all() and not is_human:
            share = np.arange(1, stop - first + 1)[:, None] / (stop - first + 1)
            filled[first:stop] = np.round(boxes[first - 1] + (boxes[stop] - boxes[first - 1]) * share, 4)
    return filled


def remove_ghosts(boxes: Boxes, looked: IsTracked, human: Collection[int] = ()) -> Boxes:
    """The boxes without those that stand alone: on the row before and on the row after it was looked for in vain."""
    kept = boxes.copy()
    for span in find_spans(boxes):
        if len(span) == 1 and span.start not in human and _is_enclosed(span, looked):
            kept[span.start] = np.nan
    return kept


def is_brief(boxes: Boxes, looked: IsTracked, least: int) -> bool:
    """It is there on fewer than `least` rows, and was looked for in vain before them and after them."""
    seen = find_spans(boxes)
    return bool(seen) and sum(map(len, seen)) < least and _is_enclosed(range(seen[0].start, seen[-1].stop), looked)


def _is_enclosed(span: range, looked: IsTracked) -> bool:
    """It was looked for on the row before and on the row after."""
    return span.start > 0 and span.stop < len(looked) and bool(looked[span.start - 1] and looked[span.stop])
