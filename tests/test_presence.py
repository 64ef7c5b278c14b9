from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backend.presence import bridged, spans, without_ghosts

SEEN = st.lists(st.booleans(), max_size=40)


def rows(seen: list[bool]) -> np.ndarray:
    """A box that goes right by one a frame, where it is seen."""
    boxes = np.arange(len(seen))[:, None] + np.array([0.0, 10, 5, 5])
    boxes[~np.array(seen, bool)] = np.nan
    return boxes


def text(boxes: np.ndarray) -> str:
    return "".join(".#"[int(there)] for there in ~np.isnan(boxes[:, 0]))


def row(line: str) -> np.ndarray:
    return rows([mark == "#" for mark in line])


@given(SEEN)
def test_spans_are_the_frames_on_which_it_is_there(seen: list[bool]) -> None:
    found = spans(rows(seen))
    assert [at for span in found for at in span] == [at for at, there in enumerate(seen) if there]
    assert all(a.stop < b.start for a, b in pairwise(found))


def test_short_drop_outs_are_bridged_in_a_straight_line() -> None:
    boxes = row("##..##...#.#")
    filled = bridged(boxes, 2)
    assert text(filled) == "######...###"
    assert np.array_equal(filled[:6], row("######"))
    assert text(boxes) == "##..##...#.#", "what was given is left alone"
    assert text(bridged(boxes, 0)) == text(boxes)


def test_what_is_bridged_is_rounded_as_sent() -> None:
    boxes = np.array([[0.0, 0, 1, 1], [np.nan] * 4, [np.nan] * 4, [1.0, 0, 1, 1]])
    assert bridged(boxes, 2)[1:3, 0].tolist() == [0.3333, 0.6667]


def test_a_gap_beside_a_persons_keyframe_stays() -> None:
    assert text(bridged(row("#.##.#.#"), 2, human=[0])) == "#.######"
    assert text(bridged(row("#.##.#.#"), 2, human=[7])) == "######.#"
    assert text(bridged(row("#.##.#.#"), 2, human=[2])) == "#.######"
    assert text(bridged(row("#.##.#.#"), 2, human=[3])) == "####.###"


def test_boxes_that_stand_alone_are_no_objects() -> None:
    assert text(without_ghosts(row("###..#..##"), 3, (), 0, 9)) == "###.....##"
    assert text(without_ghosts(row("###..#..##"), 3, [5], 0, 9)) == "###..#..##"
    assert text(without_ghosts(row("#..###...#"), 3, (), 0, 9)) == "#..###...#", "one at the edge may go on"
    assert text(without_ghosts(row(".#.###..#."), 3, (), 1, 8)) == ".#.###..#.", "so at the edge of what was looked at"


def test_a_track_of_too_few_frames_is_none() -> None:
    assert text(without_ghosts(row("...##....."), 3, (), 0, 9)) == ".........."
    assert text(without_ghosts(row("...##....."), 2, (), 0, 9)) == "...##....."
    assert text(without_ghosts(row("...##....."), 3, [4], 0, 9)) == "...##....."
    assert text(without_ghosts(row("...##....#"), 3, (), 0, 9)) == "...##....#", "three in all"
    assert text(without_ghosts(row("...##....."), 3, (), 3, 9)) == "...##.....", "it may have been there before"
    assert text(without_ghosts(row("........##"), 3, (), 0, 9)) == "........##"


@given(SEEN, st.integers(0, 1))
def test_nothing_is_removed_where_one_frame_is_enough(seen: list[bool], least: int) -> None:
    boxes = rows(seen)
    assert np.array_equal(without_ghosts(boxes, least, (), 0, len(seen) - 1), boxes, equal_nan=True)
