"""Carries a person's corrections to the frames beside them."""

from collections.abc import Collection, Mapping

import numpy as np

from backend.tracks.geometry import Box, Boxes, box_iou

REACH = 20
"""Frames over which a correction fades. Further away, the model is not known to be wrong in the same way."""
_SAME = 0.5
"""Minimum IoU of the person's and the model's box. Below it, the model was probably on another object."""


def follow_corrections(boxes: Boxes, corrections: Mapping[int, Box], given: Collection[int] = ()) -> Boxes:
    """Move and resize the model's boxes near corrections as these differ from the model's boxes on their own rows.

    The difference, as a share of the box's size, fades linearly over `REACH` rows, or up to the next row where a person
    set the box if that is nearer.

    Args:
        boxes: shape (n, 4), one row per frame; NaN stays NaN.
        corrections: a person's boxes by row, in the same unit; rows without a box of the model change nothing.
        given: further rows where a person set the box.

    Returns:
        Shape (n, 4).
    """
    bounds = [-REACH - 1, *sorted({*corrections, *given}), len(boxes) + REACH]
    shares = np.zeros_like(boxes)
    for before, row, after in zip(bounds, bounds[1:], bounds[2:], strict=False):
        if row not in corrections or not 0 <= row < len(boxes):
            continue
        person, model = np.asarray(corrections[row], float), boxes[row]
        if not box_iou(person, model) >= _SAME:  # NaN, too
            continue
        start, stop = max(before, row - REACH), min(after, row + REACH)
        rows = np.arange(max(start, 0), min(stop + 1, len(boxes)))
        weights = np.interp(rows, [start, row, stop], [0.0, 1.0, 0.0])
        shares[rows] += weights[:, None] * (person - model) / np.tile(model[2:] - model[:2], 2)
    return boxes + shares * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
