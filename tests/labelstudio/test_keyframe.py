import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import BadRequest
from backend.labelstudio.keyframe import Keyframe, boxes_to_percent, count_visible_frames, parse_keyframes
from tests.labelstudio.bodies import keyframe

percents = st.floats(-20, 120, allow_nan=False)
sizes = st.floats(0.01, 120)
items = st.builds(
    Keyframe,
    frame=st.integers(1, 10**6),
    enabled=st.booleans(),
    x=percents,
    y=percents,
    width=sizes,
    height=sizes,
    rotation=st.one_of(st.just(0), st.floats(-180, 180)),
)


def through_the_page(written: dict) -> Keyframe:
    """JSON out and in, as a browser does it: whole numbers lose their point and -0 its sign."""
    text = json.dumps({key: int(v) if isinstance(v, float) and v.is_integer() else v for key, v in written.items()})
    return parse_keyframes([json.loads(text)])[0]


@given(items)
def test_a_written_keyframe_comes_back_to_the_digit_and_answered(item: Keyframe) -> None:
    back = through_the_page(item.to_json(25))
    assert not back.is_corrected
    assert back.is_human  # the strategy draws no fingerprint: a person set it
    for name in ("frame", "enabled", "x", "y", "width", "height", "rotation"):
        assert getattr(back, name) == getattr(item, name)


@given(items, st.sampled_from(["x", "y", "width", "height", "rotation"]), st.floats(0.001, 5))
def test_a_moved_keyframe_is_seen_as_corrected_whatever_it_carries(item: Keyframe, name: str, by: float) -> None:
    written = item.to_json(25)
    moved = parse_keyframes([{**written, name: written[name] + by}])[0]
    assert moved.is_corrected
    assert not moved.is_toggled


@given(items)
def test_a_neighbours_fingerprint_fits_no_other_frame(item: Keyframe) -> None:
    neighbour = item.frame - 1 if item.frame > 1 else 2
    assert parse_keyframes([{**item.to_json(25), "frame": neighbour}])[0].is_corrected


@given(items)
def test_the_drift_of_a_redraw_is_no_correction(item: Keyframe) -> None:
    rounded = item.to_json(25) | {
        name: round(getattr(item, name), 3) for name in ("x", "y", "width", "height", "rotation")
    }
    rounded["width"] = max(rounded["width"], 0.01)
    exact = parse_keyframes([{key: v for key, v in rounded.items() if key != "fp"}])[0]
    drifted = {**rounded, "fp": exact.fingerprint, "x": rounded["x"] + 1e-13}
    assert not parse_keyframes([drifted])[0].is_corrected


def test_the_fingerprint_is_the_documented_one() -> None:
    item = Keyframe(30, True, 10.5, -0.00001, 12, 16.66666)
    assert item.fingerprint == fingerprint_by_hand("30|1|10.5000|0.0000|12.0000|16.6667|0.0000")


def fingerprint_by_hand(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:8]


def test_a_toggle_is_told_from_a_move() -> None:
    written = parse_keyframes([keyframe(30)])[0].to_json(25)
    toggled = parse_keyframes([{**written, "enabled": False}])[0]
    assert toggled.is_corrected
    assert toggled.is_toggled


def test_a_later_keyframe_on_the_same_frame_counts_and_all_are_sorted() -> None:
    sequence = parse_keyframes([keyframe(50), keyframe(1), keyframe(50, x=33)])
    assert [(item.frame, item.x) for item in sequence] == [(1, 10), (50, 33)]


@pytest.mark.parametrize(
    ("sequence", "sentence"),
    [
        ([], "no keyframe"),
        (None, "no keyframe"),
        ([7], "not an object"),
        ([keyframe(0)], "no frame 0"),
        ([keyframe(1) | {"frame": "1"}], "no frame '1'"),
        ([keyframe(4, width=0)], "box on frame 4 is empty"),
        ([keyframe(4, height=-3)], "box on frame 4 is empty"),
        ([keyframe(4, x=float("nan"))], "frame 4 has no number for x"),
        ([{"frame": 4, "x": 1, "y": 1, "width": 3}], "frame 4 has no number for height"),
    ],
)
def test_what_cannot_be_read_is_named(sequence: object, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        parse_keyframes(sequence)


def test_percent_and_pixels_agree() -> None:
    rows = boxes_to_percent(np.array([[64.0, 36, 128, 180], [np.nan] * 4]), 640, 360)
    assert rows[0].tolist() == [10, 10, 10, 40]
    assert np.isnan(rows[1]).all()
    box = parse_keyframes([keyframe(1, 10, 10, 10, 40)])[0].box(640, 360)
    assert np.allclose(box, (64, 36, 128, 180))


@given(
    st.floats(0, 90),
    st.floats(0, 90),
    st.floats(0.1, 10),
    st.floats(0.1, 10),
    st.integers(16, 8000),
    st.integers(16, 8000),
)
def test_the_way_to_pixels_and_back_is_exact_to_the_rounding(x, y, w, h, width, height) -> None:
    box = parse_keyframes([keyframe(1, x, y, w, h)])[0].box(width, height)
    assert np.allclose(boxes_to_percent(np.array([box]), width, height)[0], [x, y, w, h], atol=1.01e-4)


def test_a_rotated_box_is_prompted_by_its_upright_hull() -> None:
    item = parse_keyframes([keyframe(1, 50, 50, 10, 20, rotation=90)])[0]
    # A quarter turn clockwise about the upper left corner (320, 180): 64 wide becomes 64 down, 72 high becomes 72 left.
    assert np.allclose(item.box(640, 360), (320 - 72, 180, 320, 180 + 64))


def test_visible_frames_follow_label_studios_lifespans() -> None:
    items = parse_keyframes([keyframe(1), keyframe(10, enabled=False), keyframe(20), keyframe(21, enabled=False)])
    assert count_visible_frames(items, 101) == 10 + 2
    assert count_visible_frames(parse_keyframes([keyframe(91)]), 101) == 10


def test_of_a_tool_that_counts_from_0_what_the_page_shows_is_read() -> None:
    zero = {**keyframe(1, x=10), "frame": 0}
    first, last = parse_keyframes([zero, keyframe(10, x=30)])
    assert (first.frame, first.x, last.frame) == (1, 12, 10)
    assert [item.frame for item in parse_keyframes([zero, keyframe(1, x=33), keyframe(10)])] == [1, 10]
    assert [item.frame for item in parse_keyframes([{**zero, "enabled": False}, keyframe(10)])] == [10]
