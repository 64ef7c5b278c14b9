from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from backend import keyframes
from backend.geometry import iou
from backend.keyframes import kept_bound, thin, thin_to

BOUNDS = st.sampled_from([0.1, 0.5, 0.8, 0.9, 0.95, 0.99, 1.0])
TOLERANCES = st.sampled_from([0.0, 1.0, (0.4, 2.0)])


@st.composite
def tracks(draw: st.DrawFn, most: int = 40) -> np.ndarray:
    """As they are sent: to 4 decimals. Parked, drifting or running, jittery or not, of one size or of many."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    count = draw(st.integers(0, most))
    jitter, speed, growth = (draw(st.sampled_from(values)) for values in ([0, 0.3, 1.5], [0, 0.2, 4], [0, 0.01, 0.1]))
    rows = np.arange(count)[:, None]
    centre = np.array([30, 40]) + np.cumsum(rng.normal(0, speed, (count, 2)), axis=0) + rng.normal(0, speed, 2) * rows
    size = np.array([2, 3]) * draw(st.sampled_from([1, 15]))
    size = size * np.exp(np.cumsum(rng.normal(0, growth, (count, 2)), axis=0))
    corner = np.round(centre - size / 2 + rng.normal(0, jitter, (count, 2)), 4)
    return np.hstack([corner, corner + np.maximum(np.round(size + rng.normal(0, jitter, (count, 2)), 4), 1e-4)])


def between(boxes: np.ndarray, i: int, j: int) -> np.ndarray:
    share = np.arange(1, j - i)[:, None] / (j - i)
    return boxes[i] * (1 - share) + boxes[j] * share


def holds(shown: np.ndarray, boxes: np.ndarray, bound: float, px: float | tuple[float, float]) -> np.ndarray:
    """The rule as issue 9 says it; at bound 1 what stays to the digit, give or take the last bit."""
    off = np.abs(shown - boxes)
    near = (off <= np.tile(np.broadcast_to(px, 2), 2) - 1e-12).all(axis=1) | (off < 1e-13).all(axis=1)
    return near | (iou(shown, boxes) >= bound + 1e-9)


def fewest(boxes: np.ndarray, bound: float, px: float | tuple[float, float]) -> int:
    """By trying every pair of frames on every frame between."""
    counts = [1]
    for j in range(1, len(boxes)):
        good = [i for i in range(j) if holds(between(boxes, i, j), boxes[i + 1 : j], bound, px).all()]
        counts.append(1 + min(counts[i] for i in good))
    return counts[-1]


@settings(deadline=None, max_examples=150)
@given(tracks(), BOUNDS, TOLERANCES)
def test_it_is_the_minimum(boxes: np.ndarray, bound: float, px: float | tuple[float, float]) -> None:
    assume(len(boxes))
    assert len(thin(boxes, bound, px)) == fewest(boxes, bound, px)


@settings(deadline=None)
@given(tracks(200), BOUNDS, TOLERANCES, st.sets(st.integers(0, 199), max_size=4))
def test_every_frame_keeps_the_bound(
    boxes: np.ndarray, bound: float, px: float | tuple[float, float], always: set[int]
) -> None:
    always = {row for row in always if row < len(boxes)}
    chosen = thin(boxes, bound, px, always)
    assert chosen == sorted(set(chosen))
    assert set(chosen) >= always | ({0, len(boxes) - 1} if len(boxes) else set())
    for i, j in pairwise(chosen):
        shown, off = between(boxes, i, j), np.abs(between(boxes, i, j) - boxes[i + 1 : j])
        near = (off <= np.tile(np.broadcast_to(px, 2), 2)).all(axis=1) | (off < 1e-13).all(axis=1)
        assert (near | (iou(shown, boxes[i + 1 : j]) >= bound)).all()


@settings(deadline=None, max_examples=30)
@given(tracks(80), BOUNDS, TOLERANCES, st.integers(0, 79))
def test_a_row_that_is_always_chosen_splits_the_track(
    boxes: np.ndarray, bound: float, px: float | tuple[float, float], row: int
) -> None:
    assume(row < len(boxes))
    parts = len(thin(boxes[: row + 1], bound, px)) + len(thin(boxes[row:], bound, px)) - 1
    assert len(thin(boxes, bound, px, [row])) == parts


@pytest.mark.parametrize("count", [2, 3, 5, 100, 1000])
def test_a_straight_way_takes_two_keyframes(count: int) -> None:
    boxes = np.linspace([0, 0, 50, 60], [300, 200, 380, 260], count)
    assert thin(boxes, 0.99) == [0, count - 1]


def test_a_bend_takes_one_more() -> None:
    there = np.linspace([0, 0, 50, 60], [300, 0, 350, 60], 50)
    boxes = np.vstack([there, there[-2::-1]])
    assert thin(boxes, 0.999) == [0, 49, 98]


def test_a_segment_may_hold_again_further_on() -> None:
    boxes = np.tile([10.0, 10, 30, 30], (40, 1))
    boxes[10:20] += [6, 0, 6, 0]
    assert thin(boxes, 0.95) == [0, 9, 10, 19, 20, 39]
    boxes[10:20] -= [5.9, 0, 5.9, 0]
    assert thin(boxes, 0.95) == [0, 39]


@pytest.mark.parametrize("edge", range(4))
@pytest.mark.parametrize("size", [20, 0.2])
@pytest.mark.parametrize(("share", "more"), [(0.9502, 0), (0.9498, 1), (1 / 0.9502, 0), (1 / 0.9498, 1)])
def test_one_edge_may_move_up_to_the_limit(edge: int, size: float, share: float, more: int) -> None:
    boxes = np.tile([90.0, 90, 90 + size, 90 + size], (40, 1))
    boxes[20:] -= 50
    boxes[9, edge] += size * (share - 1) * (1 if edge > 1 else -1)
    assert len(thin(boxes, 0.95)) == 4 + more


def test_long_segments_are_not_cut() -> None:
    boxes = np.tile([10.0, 10, 30, 30], (4_000, 1))
    boxes[1_800:] += 0.3 * np.arange(2_200)[:, None]
    assert thin(boxes, 0.95, 0.01) == [0, 1_800, 3_999]


@pytest.mark.parametrize("stretch", [1, 3, 1000])
def test_where_paths_are_checked_makes_no_difference(monkeypatch: pytest.MonkeyPatch, stretch: int) -> None:
    rng = np.random.default_rng(5)
    boxes = np.round(rng.normal([20, 30, 42, 44], 0.15, (800, 4)), 4)
    count = len(thin(boxes, 0.95))
    assert 10 < count < 200
    monkeypatch.setattr(keyframes, "_STRETCH", stretch)
    monkeypatch.setattr(keyframes, "_CELLS", 1000)
    assert len(thin(boxes, 0.95)) == count


def test_a_track_that_takes_too_long_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    boxes = np.round(rng.normal([20, 30, 42, 44], 0.1, (800, 4)), 4)
    count = len(thin(boxes, 0.95))
    monkeypatch.setattr(keyframes, "_ROWS", 50)
    assert len(thin(boxes, 0.95)) == count
    monkeypatch.setattr(keyframes, "_MOST", 400 * 400)
    chosen = thin(boxes, 0.95)
    assert count < len(chosen) < count + 8
    assert kept_bound(boxes, chosen) >= 0.95


@settings(deadline=None, max_examples=40)
@given(tracks(30), TOLERANCES, st.sets(st.integers(0, 29), max_size=2))
def test_a_budget_gets_the_best_bound(boxes: np.ndarray, px: float | tuple[float, float], always: set[int]) -> None:
    always = {row for row in always if row < len(boxes)}
    reached = []
    for count in range(0, len(boxes) + 2, 3):
        chosen, bound = thin_to(boxes, count, px, always)
        assert set(chosen) >= always
        assert len(chosen) <= max(count, len(always | {0, len(boxes) - 1}))
        assert bound == kept_bound(boxes, chosen, px)
        assert bound >= max(reached, default=0) - 1 / 4096
        if bound + 2 / 4096 < 1:
            assert len(thin(boxes, bound + 2 / 4096, px, always)) > count
        reached.append(bound)


def test_a_budget_of_all_keeps_all() -> None:
    boxes = np.random.default_rng(1).normal([10, 10, 20, 20], 1, (7, 4))
    assert thin_to(boxes, 7) == (list(range(7)), 1.0)
    assert thin(boxes, 1.0) == list(range(7))


def test_an_empty_track_has_none() -> None:
    assert thin(np.empty((0, 4)), 0.95) == []
    assert thin_to(np.empty((0, 4)), 3) == ([], 1.0)
