"""Keyframes of parts: whatever is cut and joined, every frame shows the box that it showed."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backend.labelstudio.keyframe import Keyframe, boxes_at
from backend.track_editor.trim import cut_span, overlap_frames, remove_span, visible_spans

LENGTH = 40
numbers = st.floats(0, 60).map(lambda value: round(value, 4))


@st.composite
def tracks(draw: st.DrawFn) -> tuple[Keyframe, ...]:
    frames = draw(st.lists(st.integers(1, LENGTH), min_size=1, max_size=7, unique=True))
    return tuple(
        Keyframe(frame, draw(st.booleans()), draw(numbers), draw(numbers), 10, 12, draw(st.sampled_from([0, 30])))
        for frame in sorted(frames)
    )


def shown(items: tuple[Keyframe, ...]) -> np.ndarray:
    return boxes_at(items, np.arange(1, LENGTH + 1)) if items else np.full((LENGTH, 4), np.nan)


frames = st.tuples(st.integers(1, LENGTH), st.integers(1, LENGTH)).map(sorted)


@given(tracks(), frames)
def test_a_part_shows_what_the_track_shows_and_the_rest_does_elsewhere(items: tuple, frames: list[int]) -> None:
    first, last = frames
    inside = np.isin(np.arange(1, LENGTH + 1), range(first, last + 1))[:, None]
    end = last if last < LENGTH else None
    whole = shown(items)
    # A box between two cuts is rounded to 4 decimals, and what is between it and the next once more.
    np.testing.assert_allclose(shown(cut_span(items, first, end)), np.where(inside, whole, np.nan), atol=2e-4)
    np.testing.assert_allclose(shown(remove_span(items, first, end)), np.where(inside, np.nan, whole), atol=2e-4)


@given(tracks(), st.integers(1, LENGTH - 1))
def test_two_parts_joined_are_the_track_again(items: tuple, last: int) -> None:
    parts = (*cut_span(items, 1, last), *cut_span(items, last + 1, None))
    np.testing.assert_allclose(shown(parts), shown(items), atol=2e-4)


@given(tracks(), frames)
def test_keyframes_that_are_not_at_a_cut_stay_to_the_digit(items: tuple, frames: list[int]) -> None:
    first, last = frames
    known = {item.frame: item for item in items}
    for item in (*cut_span(items, first, last), *remove_span(items, first, last)):
        if item.frame in known and item.frame not in (first - 1, last):
            assert item == known[item.frame]
        elif item.frame not in known:
            assert item.is_human


@given(tracks())
def test_spans_are_the_frames_that_show_it(items: tuple) -> None:
    spans = visible_spans(items, LENGTH)
    told = [frame for first, last in spans for frame in range(first, last + 1)]
    assert told == [place + 1 for place in np.flatnonzero(~np.isnan(shown(items)[:, 0]))]
    assert all(first > before + 1 for (_, before), (first, _) in pairwise(spans))


def test_shared_is_the_first_stretch_of_both() -> None:
    assert overlap_frames([(1, 5), (9, 20)], [(6, 8), (12, 30)]) == (12, 20)
    assert overlap_frames([(1, 5)], [(6, 8)]) is None
