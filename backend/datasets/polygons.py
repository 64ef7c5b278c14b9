"""Polygons of masks. YOLO holds one polygon an object, so the parts of a mask are joined by lines without width."""

import cv2
import numpy as np
from numpy.typing import NDArray

from backend.tracks.masks import Rle

Polygon = NDArray[np.float64]
"""Shape (n, 2), pixels; the centre of the upper left pixel is (0.5, 0.5)."""


def mask_polygons(mask: Rle) -> list[Polygon]:
    """The outlines of a mask's parts, holes filled; parts of fewer than three corners are left out."""
    contours, _ = cv2.findContours(mask.to_mask().astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [contour[:, 0].astype(float) + 0.5 for contour in contours if len(contour) >= 3]


def simplify_polygon(polygon: Polygon, epsilon: float) -> Polygon:
    """A polygon with fewer corners, at least three.

    Args:
        epsilon: how far it may leave the given one, as a share of its length.
    """
    contour = polygon.astype(np.float32)
    simple = cv2.approxPolyDP(contour, epsilon * cv2.arcLength(contour, closed=True), closed=True)[:, 0]
    return simple.astype(float) if len(simple) >= 3 else polygon


def mask_outline(mask: Rle) -> Polygon | None:
    """One polygon of a mask; None if no part of it has an area."""
    polygons = mask_polygons(mask)
    return join_polygons(polygons) if polygons else None


def join_polygons(polygons: list[Polygon]) -> Polygon:
    """Join polygons into one.

    As Ultralytics' `merge_multi_segment` does, each is joined by a line to and fro between its nearest points to the
    polygons before it. A line has no width, so it adds no pixels.
    """
    polygons = sorted(polygons, key=len, reverse=True)
    joined = polygons[0]
    for polygon in polygons[1:]:
        distances = ((joined[:, None] - polygon[None]) ** 2).sum(2)
        near, far = np.unravel_index(distances.argmin(), distances.shape)
        loop = np.roll(polygon, -far, axis=0)
        joined = np.concatenate([joined[: near + 1], loop, loop[:1], joined[near:]])
    return joined
