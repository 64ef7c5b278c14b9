"""Boxes as numbers: pixels, `x0, y0, x1, y1`, floats. Percent belongs to Label Studio and stays there."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]
"""Shape (n, 4), columns x0 y0 x1 y1. A row of NaN: the object is absent."""


class Box(NamedTuple):
    """One upright box in pixels; `x1` and `y1` are its right and lower edge."""

    x0: float
    y0: float
    x1: float
    y1: float

    @classmethod
    def from_rotated(cls, x: float, y: float, width: float, height: float, degrees: float) -> "Box":
        """The upright box around one that is rotated clockwise about its upper left corner (x, y); all in pixels."""
        angle = math.radians(degrees)
        across, along = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
        corners = np.array([[0, 0], width * across, height * along, width * across + height * along])
        (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
        return cls(x + float(x0), y + float(y0), x + float(x1), y + float(y1))

    @property
    def width(self) -> float:
        """Pixels from the left to the right edge."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """Pixels from the upper to the lower edge."""
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        """Square pixels; 0 for an empty box."""
        return max(self.width, 0.0) * max(self.height, 0.0)

    def clip(self, width: float, height: float) -> "Box":
        """The part of the box inside a picture of `width` x `height` pixels; empty if it lies outside."""
        x0, x1 = np.clip([self.x0, self.x1], 0, width)
        y0, y1 = np.clip([self.y0, self.y1], 0, height)
        return Box(float(x0), float(y0), float(x1), float(y1))


def box_iou(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Intersection over union, row by row.

    Args:
        a: shape (n, 4) or (4,).
        b: shape (n, 4) or (4,); the two are broadcast.

    Returns:
        Shape (n,), in 0..1; NaN where a row is NaN, 0 where both boxes are empty.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    upper = np.minimum(a[..., 2:], b[..., 2:])
    lower = np.maximum(a[..., :2], b[..., :2])
    intersection = np.prod(np.maximum(upper - lower, 0.0), axis=-1)
    areas = [np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0), axis=-1) for boxes in (a, b)]
    union = areas[0] + areas[1] - intersection
    nothing = np.where(np.isnan(union), np.nan, 0.0)
    ratio: NDArray[np.float64] = np.divide(intersection, union, out=nothing, where=union > 0)
    return ratio
