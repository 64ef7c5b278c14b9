"""When an object is there: drop-outs that are bridged, ghosts that are none. Rows of NaN stand for "not there"."""

from collections.abc import Collection
from itertools import pairwise

import numpy as np

from backend.geometry import Boxes


def spans(boxes: Boxes) -> list[range]:
    """The rows on which it is there, as half-open spans; boxes of shape (n, 4)."""
    there = np.concatenate([[False], ~np.isnan(boxes[:, 0]), [False]])
    edges = np.flatnonzero(there[1:] != there[:-1]).reshape(-1, 2)
    return [range(start, stop) for start, stop in edges.tolist()]


def bridged(boxes: Boxes, most: int, human: Collection[int] = ()) -> Boxes:
    """The boxes with gaps of at most `most` rows filled in a straight line, to 4 decimals.

    Args:
        human: rows that a person has set; a gap beside one stays.
    """
    filled = boxes.copy()
    for before, after in pairwise(spans(boxes)):
        last, first = before[-1], after.start
        if first - last - 1 <= most and last not in human and first not in human:
            share = np.arange(1, first - last)[:, None] / (first - last)
            filled[last + 1 : first] = np.round(boxes[last] + (boxes[first] - boxes[last]) * share, 4)
    return filled


def without_ghosts(boxes: Boxes, least: int, human: Collection[int], first: int, last: int) -> Boxes:
    """The boxes without what was seen for too short a time to be real, unless a person has shown it.

    That is all of a track with boxes on fewer than `least` rows, and boxes that stand alone, none before and none
    after. What is seen on the first or the last row that was looked at may go on beyond, and stays.

    Args:
        human: rows that a person has set, or clicked on.
        first, last: the outer rows that were looked at.
    """
    kept, seen = boxes.copy(), spans(boxes)
    is_short = sum(map(len, seen)) < least and not any(row in span for row in human for span in seen)
    for span in seen:
        is_inside = first < span.start and span[-1] < last
        if is_inside and (is_short or (len(span) == 1 < least and span.start not in human)):
            kept[span.start : span.stop] = np.nan
    return kept
