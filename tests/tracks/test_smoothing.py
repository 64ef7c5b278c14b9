import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.tracks.geometry import box_iou
from backend.tracks.smoothing import smooth_boxes


def parked(jitter: float, count: int = 200) -> np.ndarray:
    return np.array([100.0, 100, 200, 160]) + np.random.default_rng(3).normal(0, jitter, (count, 4))


def test_jitter_is_averaged_away() -> None:
    steady = smooth_boxes(parked(1.0), 12, 0.9)
    assert steady[20:-20].std(axis=0).max() < 0.35
    assert steady.mean(axis=0) == pytest.approx([100, 100, 200, 160], abs=0.3)


def test_straight_motion_and_the_ends_stay() -> None:
    boxes = np.linspace([0, 0, 50, 60], [300, 200, 380, 260], 90)
    assert smooth_boxes(boxes, 10, 0.5) == pytest.approx(boxes)
    jittery = parked(1.0)
    assert np.array_equal(smooth_boxes(jittery, 10, 0.5)[[0, -1]], jittery[[0, -1]])


def test_a_turn_is_cut_no_further_than_the_bound() -> None:
    there = np.linspace([0, 0, 50, 60], [300, 0, 350, 60], 50)
    boxes = np.vstack([there, there[-2::-1]])
    overlap = box_iou(smooth_boxes(boxes, 20, 0.9), boxes)
    assert 0.9 <= overlap.min() < 0.99
    assert np.array_equal(smooth_boxes(boxes, 20, 1.0)[49], boxes[49])


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(0, 30), st.sampled_from([0.3, 0.8, 0.95, 1.0]))
def test_every_box_keeps_the_bound(seed: int, count: int, frames: int, bound: float) -> None:
    rng = np.random.default_rng(seed)
    corner = np.cumsum(rng.normal(0, rng.choice([0.1, 3]), (count, 2)), axis=0)
    boxes = np.hstack([corner, corner + np.exp(rng.normal(2, 0.2, (count, 2)))])
    assert (box_iou(smooth_boxes(boxes, frames, bound), boxes) >= min(bound, 1 - 1e-12)).all()
