from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from backend.settings import KeyframeSettings
from backend.tracks.geometry import box_iou
from backend.tracks.keyframe_selection import (
    MAX_CHECKS,
    BoxRun,
    min_kept_iou,
    select_fewest,
    select_keyframes,
    select_within_budget,
)

BOUNDS = st.sampled_from([0.1, 0.5, 0.8, 0.9, 0.95, 0.99, 1.0])
TOLERANCES = st.sampled_from([(0.0, 0.0), (1.0, 1.0), (0.4, 2.0)])
Tolerance = tuple[float, float]


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


@st.composite
def runs(draw: st.DrawFn, most: int = 40) -> BoxRun:
    """What keyframes set is what is there, or off by some."""
    boxes = draw(tracks(most))
    assume(len(boxes))
    rng = np.random.default_rng(len(boxes))
    off = np.round(rng.normal(0, 0.3, boxes.shape), 4) * draw(st.booleans())
    keys = boxes + off
    keys[[0, -1]] = boxes[[0, -1]]
    keys[:, 2:] = np.maximum(keys[:, 2:], keys[:, :2] + 1e-4)
    return BoxRun(boxes, keys)


def between(keys: np.ndarray, i: int, j: int) -> np.ndarray:
    share = np.arange(1, j - i)[:, None] / (j - i)
    return keys[i] * (1 - share) + keys[j] * share


def holds(shown: np.ndarray, boxes: np.ndarray, bound: float, px: Tolerance) -> np.ndarray:
    """The rule as issue 9 says it; at bound 1 what stays to the digit, give or take the last bit."""
    off = np.abs(shown - boxes)
    near = (off <= np.array(px * 2) - 1e-12).all(axis=1) | (off < 1e-13).all(axis=1)
    return near | (box_iou(shown, boxes) >= bound + 1e-9)


def fewest(run: BoxRun, bound: float, px: Tolerance) -> int:
    """By trying every pair of frames on every frame between."""
    counts = [1]
    for j in range(1, len(run.boxes)):
        good = [i for i in range(j) if holds(between(run.keyframe_boxes, i, j), run.boxes[i + 1 : j], bound, px).all()]
        counts.append(1 + min(counts[i] for i in good))
    return counts[-1]


@pytest.mark.slow
@given(runs(), BOUNDS, TOLERANCES)
def test_it_is_the_minimum(run: BoxRun, bound: float, px: Tolerance) -> None:
    assert len(select_fewest(run, bound, px)) == fewest(run, bound, px)


@given(runs(200), BOUNDS, TOLERANCES, st.sampled_from([0, 50, MAX_CHECKS]))
def test_every_frame_keeps_the_bound(run: BoxRun, bound: float, px: Tolerance, most: int) -> None:
    chosen = select_fewest(run, bound, px, most)
    assert chosen == sorted(set(chosen))
    assert (chosen[0], chosen[-1]) == (0, len(run.boxes) - 1)
    for i, j in pairwise(chosen):
        boxes, shown = run.boxes[i + 1 : j], between(run.keyframe_boxes, i, j)
        off = np.abs(shown - boxes)
        near = (off <= np.array(px * 2)).all(axis=1) | (off < 1e-13).all(axis=1)
        assert (near | (box_iou(shown, boxes) >= bound)).all()


@given(runs(200), BOUNDS, TOLERANCES, st.integers(1, 200))
def test_what_comes_changes_only_the_end_of_what_takes_no_time(
    run: BoxRun, bound: float, px: Tolerance, count: int
) -> None:
    part = BoxRun(run.boxes[:count], run.keyframe_boxes[:count])
    whole, before = select_fewest(run, bound, px, 0), select_fewest(part, bound, px, 0)
    same = len([None for a, b in zip(whole, before, strict=False) if a == b])
    assert whole[:same] == before[:same]
    # A part that a single line keeps takes two keyframes, also where the search would have broken it up.
    is_one_line = before == sorted({0, len(part.boxes) - 1})
    assert (
        is_one_line
        or len(whole) == same
        or whole[same - 1] + 2 * (whole[same] - whole[same - 1]) + 2 >= len(part.boxes)
    )


def test_a_part_that_one_line_keeps_takes_two_keyframes_whatever_comes() -> None:
    boxes = np.tile([10.0, 10, 30, 30], (40, 1))
    boxes[7] -= [6, 0, 6, 0]
    boxes[8] += [6, 0, 6, 0]
    boxes[25:] += [100, 0, 100, 0]
    assert select_fewest(BoxRun.from_boxes(boxes[:20]), 0.5, max_checks=0) == [0, 19]
    assert select_fewest(BoxRun.from_boxes(boxes), 0.5, max_checks=0) == [0, 7, 8, 24, 25, 39]


@pytest.mark.parametrize("count", [2, 3, 5, 100, 1000])
def test_a_straight_way_takes_two_keyframes(count: int) -> None:
    boxes = np.linspace([0, 0, 50, 60], [300, 200, 380, 260], count)
    assert select_fewest(BoxRun.from_boxes(boxes), 0.99) == [0, count - 1]


def test_a_bend_takes_one_more() -> None:
    there = np.linspace([0, 0, 50, 60], [300, 0, 350, 60], 50)
    boxes = np.vstack([there, there[-2::-1]])
    assert select_fewest(BoxRun.from_boxes(boxes), 0.999) == [0, 49, 98]


def test_a_segment_may_hold_again_further_on() -> None:
    boxes = np.tile([10.0, 10, 30, 30], (40, 1))
    boxes[10:20] += [6, 0, 6, 0]
    assert select_fewest(BoxRun.from_boxes(boxes), 0.95) == [0, 9, 10, 19, 20, 39]
    boxes[10:20] -= [5.9, 0, 5.9, 0]
    assert select_fewest(BoxRun.from_boxes(boxes), 0.95) == [0, 39]


@pytest.mark.parametrize("edge", range(4))
@pytest.mark.parametrize("size", [20, 0.2])
@pytest.mark.parametrize(("share", "more"), [(0.9502, 0), (0.9498, 1), (1 / 0.9502, 0), (1 / 0.9498, 1)])
def test_one_edge_may_move_up_to_the_limit(edge: int, size: float, share: float, more: int) -> None:
    boxes = np.tile([90.0, 90, 90 + size, 90 + size], (40, 1))
    boxes[20:] -= 50
    boxes[9, edge] += size * (share - 1) * (1 if edge > 1 else -1)
    assert len(select_fewest(BoxRun.from_boxes(boxes), 0.95)) == 4 + more


def test_long_segments_are_not_cut() -> None:
    boxes = np.tile([10.0, 10, 30, 30], (4_000, 1))
    boxes[1_800:] += 0.3 * np.arange(2_200)[:, None]
    assert select_fewest(BoxRun.from_boxes(boxes), 0.95, (0.01, 0.01)) == [0, 1_800, 3_999]


def test_what_may_not_be_looked_at_costs_a_few_more() -> None:
    rng = np.random.default_rng(6)
    run = BoxRun.from_boxes(np.round(rng.normal([20, 30, 42, 44], 0.15, (2_000, 4)), 4))
    counts = []
    for most in (0, 1, 30_000, 1_000_000):
        chosen = select_fewest(run, 0.95, max_checks=most)
        assert min_kept_iou(run, chosen) >= 0.95
        assert chosen[-1] == 1_999
        counts.append(len(chosen))
    assert counts[1] <= counts[0] + 1
    assert counts[3] < counts[2] < counts[1]
    assert counts[3] == len(select_fewest(run, 0.95))


def test_what_takes_no_time_is_taken_where_it_is_fewer() -> None:
    boxes = np.tile([10.0, 10, 30, 30], (2_000, 1))
    boxes[1_000:] += 0.02 * np.arange(1_000)[:, None]
    assert [
        len(select_fewest(BoxRun.from_boxes(boxes), 0.95, max_checks=most)) for most in (0, 100_000, MAX_CHECKS)
    ] == [3, 3, 3]


@pytest.mark.parametrize("width", [1e-16, 1e-11])
def test_a_box_without_a_width_ends_no_loop(width: float) -> None:
    boxes = np.tile([10.0, 10, 15, 15], (6, 1)) + np.arange(6)[:, None] ** 2
    boxes[2, 2] = boxes[2, 0] + width
    assert {0, 2, 5} <= {*select_fewest(BoxRun.from_boxes(boxes), 0.95)}


@pytest.mark.slow
@given(st.lists(runs(20), min_size=1, max_size=3), TOLERANCES)
def test_a_budget_gets_the_best_bound(several: list[BoxRun], px: Tolerance) -> None:
    reached: list[float] = []
    for count in range(0, sum(len(run.boxes) for run in several) + 2, 4):
        chosen = select_within_budget(several, count, px)
        bound = min(min_kept_iou(run, rows, px) for run, rows in zip(several, chosen, strict=True))
        assert sum(map(len, chosen)) <= max(count, sum(min(2, len(run.boxes)) for run in several))
        if any((run.keyframe_boxes != run.boxes).any() for run in several):
            continue  # what a keyframe sets may be off by more than any bound between
        assert bound >= max(reached, default=0) - 1 / 4096
        if bound + 2 / 4096 < 1:
            assert sum(len(select_fewest(run, bound + 2 / 4096, px)) for run in several) > count
        reached.append(bound)


def test_the_mode_says_what_is_chosen() -> None:
    boxes = np.round(np.random.default_rng(1).normal([10, 10, 20, 20], 0.3, (60, 4)), 4)
    several = [BoxRun.from_boxes(boxes[:40]), BoxRun.from_boxes(boxes[40:])]
    every = select_keyframes(several, KeyframeSettings(mode="exact"), (0, 0))
    assert every == [list(range(40)), list(range(20))]
    assert select_keyframes(several, KeyframeSettings(iou=0.9), (0, 0)) == [select_fewest(run, 0.9) for run in several]
    assert select_keyframes(several, KeyframeSettings(iou=0.9), (0, 0), max_checks=0) == [
        select_fewest(run, 0.9, max_checks=0) for run in several
    ]
    rule = KeyframeSettings(mode="budget", budget=17)
    for spent in (0, 5):
        assert 17 - spent - 3 < sum(map(len, select_keyframes(several, rule, (0, 0), spent))) <= 17 - spent
    assert all(len(rows) == 2 for rows in select_keyframes(several, rule, (0, 0), 40)), "the ends in any case"


def test_what_is_shown_at_keyframes_counts_for_the_bound_too() -> None:
    boxes = np.tile([10.0, 10, 20, 20], (3, 1))
    keys = boxes.copy()
    keys[1] += [1, 0, 1, 0]
    assert min_kept_iou(BoxRun(boxes, keys), [0, 1, 2]) == pytest.approx(9 / 11)
    assert min_kept_iou(BoxRun(boxes, keys), [0, 1, 2], (1.0, 0.0)) == 1


@pytest.mark.parametrize("shapes", [((0, 4), (0, 4)), ((3, 4), (2, 4)), ((3, 3), (3, 3))])
def test_a_run_is_boxes_and_as_many_keys(shapes: tuple) -> None:
    with pytest.raises(ValueError, match=r"both must be \(n, 4\), n > 0"):
        BoxRun(*map(np.zeros, shapes))


def test_one_frame_is_one_keyframe() -> None:
    assert (
        select_fewest(BoxRun.from_boxes(np.array([[1.0, 1, 2, 2]])), 0.95)
        == select_fewest(BoxRun.from_boxes(np.array([[1.0, 1, 2, 2]])), 0.95, max_checks=0)
        == [0]
    )
