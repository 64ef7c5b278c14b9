"""The boxes beside a person's correction follow it, and no others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.tracks.corrections import REACH, follow_corrections
from backend.tracks.geometry import Box

MODEL = Box(100, 100, 200, 150)
COUNT = 100


def track(*absent: int) -> np.ndarray:
    """The model's box on every frame."""
    boxes = np.tile(np.array(MODEL, float), (COUNT, 1))
    boxes[list(absent)] = np.nan
    return boxes


def test_a_difference_fades() -> None:
    shown = follow_corrections(track(), {50: Box(110, 100, 210, 150)})
    assert shown[50] == pytest.approx([110, 100, 210, 150])
    assert shown[50 - REACH // 2] == pytest.approx([105, 100, 205, 150])
    assert np.array_equal(shown[[50 - REACH, 50 + REACH]], track()[:2])
    assert np.array_equal(shown, follow_corrections(track(), {50: Box(110, 100, 210, 150)}, [50]))


def test_it_is_a_share_of_the_boxs_size() -> None:
    boxes = track()
    boxes[51:, 2:] += [100, 50]  # it is twice as large
    shown = follow_corrections(boxes, {50: Box(95, 100, 205, 150)})
    by = 2 * (1 - 1 / REACH)
    assert shown[51] == pytest.approx([100 - 5 * by, 100, 300 + 5 * by, 200])


def test_it_ends_where_a_person_set_the_next_box() -> None:
    shown = follow_corrections(track(), {50: Box(110, 100, 210, 150)}, [48, 56])
    assert shown[47:58, 0] == pytest.approx([100, 100, 105, 110, *(100 + 10 * np.arange(5, -1, -1) / 6), 100])


def test_between_two_corrections_the_nearer_one_counts_more() -> None:
    shown = follow_corrections(track(), {50: Box(110, 100, 210, 150), 54: Box(100, 104, 200, 154)})
    assert shown[50:55, 0] == pytest.approx([110, 107.5, 105, 102.5, 100])
    assert shown[50:55, 1] == pytest.approx([100, 101, 102, 103, 104])


@pytest.mark.parametrize("person", [Box(151, 100, 251, 150), Box(0, 0, 400, 400)])
def test_a_model_that_was_on_something_else_is_not_moved(person: Box) -> None:
    assert np.array_equal(follow_corrections(track(), {50: person}), track())


def test_where_the_model_saw_nothing_there_is_nothing() -> None:
    boxes = track(50, *range(60, 64))
    assert np.array_equal(follow_corrections(boxes, {50: MODEL}), boxes, equal_nan=True)
    shown = follow_corrections(boxes, {58: Box(110, 100, 210, 150), -3: MODEL, COUNT + 3: MODEL})
    assert np.array_equal(np.isnan(shown), np.isnan(boxes))
    assert shown[64, 0] > 100


rows, edges = st.integers(-5, COUNT + 5), st.floats(-40, 40)
people = st.builds(lambda a, b, c, d: Box(100 + a, 100 + b / 2, 200 + c, 150 + d / 2), edges, edges, edges, edges)


@given(st.dictionaries(rows, people, max_size=8), st.sets(rows, max_size=4))
def test_no_box_leaves_what_lies_between_the_models_and_the_corrections(
    corrections: dict[int, Box], given_rows: set[int]
) -> None:
    shown = follow_corrections(track(), corrections, given_rows)
    around = np.array([MODEL, *corrections.values()])
    assert (shown >= around.min(0) - 1e-9).all()
    assert (shown <= around.max(0) + 1e-9).all()
    assert (shown[:, 2:] > shown[:, :2]).all()
    far = [row for row in range(COUNT) if all(abs(row - other) >= REACH for other in corrections)]
    assert np.array_equal(shown[far], track()[far])
    apart = [row for row in given_rows - corrections.keys() if 0 <= row < COUNT]
    assert shown[apart] == pytest.approx(track()[apart])
