"""How much larger or smaller a person draws an object than the model does, and the model's boxes made that large."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from backend.tracks.geometry import Box, Boxes, box_iou

_SAME = 0.5
"""The least IoU of two boxes around one thing: a correction with less says that the model was on something else."""
_AGREE = 0.25
"""Opposite edges agree where the one that is off less is off at least so much as the other."""
_DOUBT = 0.5
"""So many corrections that say "no larger and no smaller" are added: people correct where the model is at its worst."""
_LARGEST = 1.5
"""A box becomes at most so many times as wide or high, or that part of it."""

BoxScale = tuple[float | None, float | None]
"""Natural logarithms of the factors for a box's width and height; None: nothing is known of it."""
UNKNOWN: BoxScale = (None, None)


def measure_scale(person: Box, model: Box) -> BoxScale:
    """What a person's box says of the size of the model's on the same frame.

    Opposite edges have to agree, both further out or both further in: a box that was moved says nothing of its size,
    nor does one that a person drew on beyond the edge that something hides.

    Args:
        person, model: in one unit.
    """
    drawn, seen = np.array(person), np.array(model)
    if not box_iou(drawn, seen) >= _SAME:
        return UNKNOWN
    outwards = np.stack([seen[:2] - drawn[:2], drawn[2:] - seen[2:]])
    less, more = np.sort(np.abs(outwards), axis=0)
    agree = (np.prod(np.sign(outwards), axis=0) > 0) & (less >= _AGREE * more)
    factors = np.clip((drawn[2:] - drawn[:2]) / (seen[2:] - seen[:2]), 1 / _LARGEST, _LARGEST)
    wide, high = (float(one) if known else None for one, known in zip(np.log(factors), agree, strict=True))
    return wide, high


def mean_scale(known: Sequence[BoxScale]) -> tuple[float, float]:
    """What several corrections say together, the fewer the less; 0 where none says anything."""
    said = [[one[axis] for one in known] for axis in range(2)]
    numbers = [[one for one in some if one is not None] for some in said]
    wide, high = (sum(some) / (len(some) + _DOUBT) for some in numbers)
    return wide, high


def scale_boxes(boxes: Boxes, by: tuple[float, float], size: tuple[int, int]) -> Boxes:
    """Boxes that grow about their centres, as far as the picture goes; by nothing: as they are, to the digit.

    Args:
        boxes: shape (n, 4), pixels; NaN stays NaN.
        by: natural logarithms of the factors for width and height.
        size: width and height of the picture, pixels.

    Returns:
        Shape (n, 4).
    """
    if by == (0.0, 0.0):
        return boxes
    centres, halves = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * np.exp(by)
    return np.clip(np.hstack([centres - halves, centres + halves]), 0.0, np.tile(size, 2))


def parse_scales(value: object) -> dict[int, BoxScale]:
    """Read what `written` wrote, by LS frame; what is none of it is left out."""
    found: dict[int, BoxScale] = {}
    for frame, one in value.items() if isinstance(value, Mapping) else ():
        if re.fullmatch("[0-9]{1,9}", str(frame)) and isinstance(one, list) and len(one) == 2:
            found[int(frame)] = _number(one[0]), _number(one[1])
    return found


def scales_to_json(known: Mapping[int, BoxScale]) -> dict[str, list[float | None]]:
    """As JSON takes it."""
    return {str(frame): [one if one is None else round(one, 4) for one in known[frame]] for frame in sorted(known)}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= np.log(_LARGEST) + 1e-3:
        return None
    return float(value)
