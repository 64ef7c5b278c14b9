import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backend.datasets.polygons import mask_outline, mask_polygons
from backend.tracks.masks import Rle

blocks = arrays(bool, (6, 8)).filter(np.any)


@given(blocks, st.integers(3, 6))
def test_one_polygon_covers_all_parts_of_a_mask(parts: np.ndarray, scale: int) -> None:
    mask = np.kron(parts, np.ones((scale, scale))).astype(bool)
    outline = mask_outline(Rle.from_mask(mask))
    assert outline is not None
    drawn = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(drawn, [np.floor(outline).astype(np.int32)], 1)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(filled, [np.floor(polygon).astype(np.int32) for polygon in mask_polygons(Rle.from_mask(mask))], 1)
    assert (drawn.astype(bool) >= mask).all()
    # A joining line is drawn one pixel wide, and has no area.
    assert cv2.morphologyEx(drawn - (drawn & filled), cv2.MORPH_OPEN, np.ones((3, 3))).sum() <= 9
    assert cv2.contourArea(outline.astype(np.float32)[:, None]) >= 0


def test_two_parts_are_joined_by_a_line_to_and_fro() -> None:
    mask = np.zeros((20, 30), bool)
    mask[2:8, 2:10] = mask[10:18, 20:28] = True
    outline = mask_outline(Rle.from_mask(mask))
    assert outline is not None
    assert {tuple(point) for point in outline.tolist()} == {
        (x + 0.5, y + 0.5) for x0, y0, x1, y1 in ((2, 2, 9, 7), (20, 10, 27, 17)) for x in (x0, x1) for y in (y0, y1)
    }
    assert cv2.contourArea(outline.astype(np.float32)) == 7 * 5 + 7 * 7


def test_a_line_of_pixels_has_no_outline() -> None:
    mask = np.zeros((20, 30), bool)
    mask[5, 3:9] = True
    assert mask_outline(Rle.from_mask(mask)) is None
