import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.geometry import iou
from backend.keyframes import thin


def walk(seed: int, count: int, jitter: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    boxes = np.cumsum(rng.normal(0, jitter, (count, 4)), axis=0) + np.array([100, 100, 160, 180])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 5)
    return boxes


@given(st.integers(0, 10**6), st.integers(0, 120), st.sampled_from([0.0, 0.3, 2.0]), st.sampled_from([0.5, 0.95, 1.0]))
def test_interpolation_keeps_the_bound_on_every_frame(seed: int, count: int, jitter: float, bound: float) -> None:
    boxes = walk(seed, count, jitter)
    chosen = thin(boxes, bound)
    assert chosen == sorted(set(chosen))
    assert set(chosen) >= ({0, count - 1} if count else set())
    rows = np.arange(count)
    between = np.stack([np.interp(rows, chosen, boxes[chosen, axis]) for axis in range(4)], axis=1) if count else boxes
    assert (iou(between, boxes) >= bound - 1e-12).all()


@pytest.mark.parametrize("count", [2, 3, 5, 100, 1000])
def test_a_straight_way_takes_two_keyframes(count: int) -> None:
    boxes = np.linspace([0, 0, 50, 60], [300, 200, 380, 260], count)
    assert thin(boxes, 0.99) == [0, count - 1]


def test_a_bend_takes_one_more() -> None:
    there = np.linspace([0, 0, 50, 60], [300, 0, 350, 60], 50)
    boxes = np.vstack([there, there[-2::-1]])
    assert thin(boxes, 0.999) == [0, 49, 98]
