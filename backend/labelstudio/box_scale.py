"""How much larger or smaller a person draws an object than the model does, and boxes scaled accordingly."""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from backend.labelstudio.json_values import read_number
from backend.tracks.geometry import Box, Boxes, box_iou

_SAME = 0.5
"""Minimum IoU of the person's and the model's box. Below it, the model was probably on another object."""
_AGREE = 0.25
"""Opposite edges agree if the smaller shift is at least this share of the larger one."""
_DOUBT = 0.5
"""Weight of a prior for "same size", in corrections: people correct where the model is at its worst."""
_LARGEST = 1.5
"""Largest factor for a box's width or height; its inverse is the smallest."""

BoxScale = tuple[float | None, float | None]
"""Natural logarithms of the factors for a box's width and height; None: unknown."""
UNKNOWN: BoxScale = (None, None)


def measure_scale(person: Box, model: Box) -> BoxScale:
    """Compare the size of a person's box with that of the model's on the same frame.

    Opposite edges have to agree: both lie further out, or both further in. Otherwise the box was only moved, or the
    person extended it behind something that hides the object, and the scale is unknown.

    Args:
        person, model: boxes in the same unit.
    """
    drawn, seen = np.array(person), np.array(model)
    if not box_iou(drawn, seen) >= _SAME:
        return UNKNOWN
    outwards = np.stack([seen[:2] - drawn[:2], drawn[2:] - seen[2:]])
    less, more = np.sort(np.abs(outwards), axis=0)
    agree = (np.prod(np.sign(outwards), axis=0) > 0) & (less >= _AGREE * more)
    factors = np.clip((drawn[2:] - drawn[:2]) / (seen[2:] - seen[:2]), 1 / _LARGEST, _LARGEST)
    wide, high = (float(scale) if is_known else None for scale, is_known in zip(np.log(factors), agree, strict=True))
    return wide, high


def mean_scale(known: Sequence[BoxScale]) -> tuple[float, float]:
    """Mean scale of several corrections, closer to 0 the fewer there are; 0 if none is known."""
    axes = [[value for scale in known if (value := scale[axis]) is not None] for axis in range(2)]
    wide, high = (sum(values) / (len(values) + _DOUBT) for values in axes)
    return wide, high


def scale_boxes(boxes: Boxes, by: tuple[float, float], size: tuple[int, int]) -> Boxes:
    """Scale boxes about their centres, clipped to the picture. A scale of 0 returns them unchanged.

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
    """Read the output of `scales_to_json`, by LS frame; invalid entries are skipped."""
    scales: dict[int, BoxScale] = {}
    limit = math.log(_LARGEST) + 1e-3
    for frame, pair in value.items() if isinstance(value, Mapping) else ():
        if re.fullmatch("[0-9]{1,9}", str(frame)) and isinstance(pair, list) and len(pair) == 2:
            scales[int(frame)] = read_number(pair[0], limit), read_number(pair[1], limit)
    return scales


def scales_to_json(known: Mapping[int, BoxScale]) -> dict[str, list[float | None]]:
    """Scales by LS frame as JSON."""
    return {
        str(frame): [None if scale is None else round(scale, 4) for scale in known[frame]] for frame in sorted(known)
    }
