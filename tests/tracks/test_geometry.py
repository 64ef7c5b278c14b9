import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backend.tracks.geometry import Box, box_iou

coordinates = st.floats(-100, 1000)


@given(st.lists(coordinates, min_size=4, max_size=4), st.lists(coordinates, min_size=4, max_size=4))
def test_iou_is_symmetric_and_between_0_and_1(a: list[float], b: list[float]) -> None:
    value = box_iou(np.array(a), np.array(b))
    assert value == box_iou(np.array(b), np.array(a))
    assert 0 <= value <= 1


def test_iou_of_known_boxes() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 5, 5], [np.nan] * 4])
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 0, 30, 10], [5, 5, 5, 5], [0, 0, 1, 1]])
    assert np.allclose(box_iou(boxes, others), [1, 1 / 3, 0, 0, np.nan], equal_nan=True)


def test_a_clipped_box_stays_in_the_picture() -> None:
    assert Box(-5, 10, 30, 700).clip(20, 360) == Box(0, 10, 20, 360)
    assert Box(-5, 10, -1, 70).clip(20, 360).area == 0
