"""The objects of a clip: their look and motion, in closed form."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SHAPES = ("circle", "square", "triangle", "star")
COLOURS = {"red": (215, 45, 40), "green": (45, 170, 60), "blue": (45, 80, 215), "yellow": (235, 205, 45)}
SHADES = 22
"""Maximum difference of a shade from its colour, in grey levels."""
BREATH, BREATHS = 0.12, 0.12
"""How much an object grows and shrinks, as a share of its size, and how fast, in radians per frame."""
SUBPIXEL = 4
"""Fractional bits of coordinates for OpenCV's drawing functions."""

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Thing:
    """One object.

    Attributes:
        shape, colour: as phrases name them.
        rgb: its exact shade.
        radius: of a circle of about the same area, pixels.
        start, velocity: centre on frame 0, and motion per frame, pixels; shape (2,).
        lows, highs: limits at which its centre turns back, pixels; shape (2,).
        angle, spin: rotation on frame 0 in radians, and radians per frame.
        phase: of growing and shrinking, radians.
        away: frames on which it is absent.
    """

    shape: str
    colour: str
    rgb: tuple[float, float, float]
    radius: float
    start: Vector
    velocity: Vector
    lows: Vector
    highs: Vector
    angle: float
    spin: float
    phase: float
    away: range = range(0)

    def centre(self, frame: int) -> Vector:
        """Its centre on a frame, pixels; shape (2,)."""
        span = np.maximum(self.highs - self.lows, 1e-9)
        # A straight path, reflected at the limits.
        folded: Vector = self.highs - np.abs((self.start - self.lows + self.velocity * frame) % (2 * span) - span)
        return folded

    def outline(self, frame: int) -> Vector:
        """Its corners, shape (n, 2), pixels."""
        radius = self.radius * (1 + BREATH * np.sin(self.phase + BREATHS * frame))
        turns, reach = _OUTLINES[self.shape]
        turns = turns + self.angle + self.spin * frame
        around: Vector = self.centre(frame) + radius * reach[:, None] * np.stack([np.cos(turns), np.sin(turns)], 1)
        return around

    def draw(self, frame: int, size: tuple[int, int]) -> tuple[tuple[slice, slice], NDArray[np.uint8]]:
        """Its window in a picture of `size` (width, height), and its coverage of each pixel there, 0 to 255."""
        outline = self.outline(frame)
        left, top = np.clip(np.floor(outline.min(0)).astype(int) - 1, 0, size)
        right, bottom = np.clip(np.ceil(outline.max(0)).astype(int) + 2, 0, size)
        cover = np.zeros((bottom - top, right - left), np.uint8)
        if cover.size:
            corners = np.rint((outline - (left, top)) * 2**SUBPIXEL).astype(np.int32)
            cv2.fillPoly(cover, [corners], 255, cv2.LINE_AA, SUBPIXEL)
        return (slice(top, bottom), slice(left, right)), cover


def _regular(corners: int, *reach: float) -> tuple[Vector, Vector]:
    """Angles and distances of corners from the centre."""
    return np.arange(corners) * 2 * np.pi / corners, np.resize(np.array(reach), corners)


_OUTLINES = {
    "circle": _regular(32, 1.0),
    "square": _regular(4, 1.2),
    "triangle": _regular(3, 1.35),
    "star": _regular(10, 1.35, 0.6),
}
