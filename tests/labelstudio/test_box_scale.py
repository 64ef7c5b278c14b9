"""A person's sizes carried to a model's boxes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.labelstudio.box_scale import UNKNOWN, mean_scale, measure_scale, parse_scales, scale_boxes, scales_to_json
from backend.labelstudio.region import Region
from backend.labelstudio.region import parse_region as parse_region
from backend.tracks.geometry import Box
from tests.labelstudio.bodies import drawn, keyframe, moved

SIZE = (640, 360)
MOST = math.log(1.5) + 1e-9
MODEL = Box(100, 100, 200, 150)
places, lengths = st.floats(0, 300), st.floats(1, 300)
boxes = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), places, places, lengths, lengths)
axes = st.one_of(st.none(), st.floats(-MOST, MOST))
growths = st.tuples(axes, axes)


def test_a_box_that_is_larger_all_around_says_by_how_much() -> None:
    assert measure_scale(Box(95, 98, 205, 152), MODEL) == pytest.approx((math.log(1.1), math.log(54 / 50)))
    assert measure_scale(Box(105, 102, 195, 148), MODEL) == pytest.approx((math.log(0.9), math.log(46 / 50)))


@pytest.mark.parametrize(
    "person",
    [
        Box(110, 105, 210, 155),  # moved
        Box(100, 100, 240, 170),  # drawn on beyond an edge that is hidden
        Box(99, 99, 240, 170),
        Box(300, 100, 400, 150),  # another thing
        Box(0, 0, 600, 300),
        MODEL,
    ],
)
def test_a_box_that_was_moved_or_drawn_on_says_nothing_of_the_size(person: Box) -> None:
    assert measure_scale(person, MODEL) == UNKNOWN


def test_a_model_without_a_box_is_not_learned_from() -> None:
    assert measure_scale(MODEL, Box(*[math.nan] * 4)) == UNKNOWN
    assert measure_scale(MODEL, Box(150, 120, 150, 120)) == UNKNOWN


def test_few_corrections_say_less_than_many() -> None:
    assert mean_scale([]) == mean_scale([UNKNOWN]) == (0, 0)
    assert mean_scale([(0.3, None)]) == pytest.approx((0.2, 0))
    assert mean_scale([(0.3, 0.1), (0.3, None), (None, -0.1)]) == pytest.approx((0.24, 0))


def test_boxes_grow_about_their_centres_and_not_beyond_the_picture() -> None:
    rows = np.array([[100, 100, 200, 150], [600, 10, 640, 50], [np.nan] * 4])
    large = scale_boxes(rows, (math.log(1.2), math.log(1.1)), SIZE)
    np.testing.assert_allclose(large, [[90, 97.5, 210, 152.5], [596, 8, 640, 52], [np.nan] * 4])


@given(boxes, boxes)
def test_what_is_learned_is_bounded(person: Box, model: Box) -> None:
    assert all(one is None or abs(one) <= MOST for one in measure_scale(person, model))


@given(st.lists(growths), boxes)
def test_boxes_change_by_no_more_than_what_was_learned(known: list, box: Box) -> None:
    by = mean_scale(known)
    (row,) = scale_boxes(np.array([box]), by, (10**4, 10**4))
    for axis in range(2):
        said = [abs(one[axis]) for one in known if one[axis] is not None]
        assert abs(by[axis]) <= max(said, default=0) + 1e-12
        assert row[axis + 2] - row[axis] <= (box[axis + 2] - box[axis]) * 1.5 + 1e-6
        assert row[axis] < row[axis + 2]
        assert row[axis] >= 0


@given(st.lists(boxes))
def test_without_corrections_nothing_changes_to_the_digit(some: list[Box]) -> None:
    rows = np.array(some, float).reshape(-1, 4)
    np.testing.assert_array_equal(scale_boxes(rows, mean_scale([]), SIZE), rows)


@given(st.dictionaries(st.integers(1, 10**6), growths))
def test_what_is_kept_comes_back(known: dict) -> None:
    back = parse_scales(scales_to_json(known))
    assert back.keys() == known.keys()
    for frame, one in known.items():
        assert back[frame] == tuple(axis if axis is None else pytest.approx(axis, abs=1e-4) for axis in one)


@pytest.mark.parametrize("value", [None, [], "x", {"a": [0, 0]}, {"9" * 5000: [0, 0]}, {"1": 5}, {"1": [0]}])
def test_what_is_none_of_ours_is_left_out(value: object) -> None:
    assert parse_scales(value) == {}


def test_numbers_that_cannot_be_are_not_known() -> None:
    assert parse_scales({"1": [9.0, "x"], "2": [math.nan, True], "3": [0, -0.1]}) == {
        1: UNKNOWN,
        2: UNKNOWN,
        3: (0, -0.1),
    }


def answered(*more: dict, **meta: object) -> dict:
    """A track of one human keyframe on frame 1, and others as they came."""
    human, ours = (parse_region(drawn(keyframe(frame))).keyframes[0].to_json(25) for frame in (1, 90))
    return drawn(human, {**ours, "human": False}, *more, origin="prediction", meta=meta)


def corrections(region: dict) -> dict:
    found: Region = parse_region(region)
    return dict(found.corrections)


def test_only_what_was_set_on_a_track_that_was_there_is_a_correction() -> None:
    assert corrections(drawn(keyframe(1), keyframe(50))) == {}
    assert corrections(answered()) == {}
    assert corrections(moved(answered(), 50, x=12)) == {50: UNKNOWN}
    assert corrections(moved(answered(), 1, x=12)) == {1: UNKNOWN}


def test_a_switch_is_no_correction() -> None:
    region = answered()
    region["value"]["sequence"][1]["enabled"] = False
    assert corrections(region) == {}


def test_what_was_learned_is_forgotten_with_its_keyframe_and_when_that_is_changed() -> None:
    known = {"1": [0.1, 0.2], "50": [0.3, 0.1]}
    assert corrections(answered(corrected=known)) == {1: (0.1, 0.2)}
    assert corrections(moved(answered(corrected=known), 1, x=12)) == {1: UNKNOWN}
