from collections.abc import Collection
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.tracks.gaps import bridge_gaps, find_spans, is_brief, remove_ghosts

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
    found = find_spans(rows(seen))
    assert [at for span in found for at in span] == [at for at, there in enumerate(seen) if there]
    assert all(a.stop < b.start for a, b in pairwise(found))


def everywhere(boxes: np.ndarray) -> np.ndarray:
    return np.ones(len(boxes), bool)


def bridge(line: str, most: int, human: Collection[int] = (), looked: str = "") -> str:
    """`looked` has a ? where it was not looked for."""
    boxes = row(line)
    return text(bridge_gaps(boxes, np.array(list(looked.ljust(len(line)))) != "?", most, human))


def settle(line: str, human: Collection[int] = (), looked: str = "") -> str:
    boxes = row(line)
    return text(remove_ghosts(boxes, np.array(list(looked.ljust(len(line)))) != "?", human))


def test_short_drop_outs_are_bridged_in_a_straight_line() -> None:
    boxes = row("##..##...#.#")
    filled = bridge_gaps(boxes, everywhere(boxes), 2)
    assert text(filled) == "######...###"
    assert np.array_equal(filled[:6], row("######"))
    assert text(boxes) == "##..##...#.#", "what was given is left alone"
    assert bridge("##..##...#.#", 0) == "##..##...#.#"


def test_what_is_bridged_is_rounded_as_sent() -> None:
    boxes = np.array([[0.0, 0, 1, 1], [np.nan] * 4, [np.nan] * 4, [1.0, 0, 1, 1]])
    assert bridge_gaps(boxes, everywhere(boxes), 2)[1:3, 0].tolist() == [0.3333, 0.6667]


@pytest.mark.parametrize(
    ("human", "shown"), [(0, "#.######"), (7, "######.#"), (2, "#.######"), (3, "####.###"), (1, "#.######")]
)
def test_a_gap_stays_where_a_person_has_said_something_in_it_or_beside_it(human: int, shown: str) -> None:
    assert bridge("#.##.#.#", 2, [human]) == shown


def test_a_gap_stays_that_was_not_looked_at() -> None:
    assert bridge("#..#.#", 2, looked=" ?    ") == "#..###"


def test_boxes_that_stand_alone_are_no_objects() -> None:
    assert settle("###..#..##") == "###.....##"
    assert settle("###..#..##", [5]) == "###..#..##", "a person says so"
    assert settle("#..###...#") == "#..###...#", "one at the edge may go on"
    assert settle("##..#..#..", looked="     ?") == "##..#.....", "so where nobody has looked beside it"


def test_a_glimpse_is_shorter_than_that_and_ends_on_both_sides() -> None:
    def glimpse(line: str, least: int, looked: str = "") -> bool:
        return is_brief(row(line), np.array(list(looked.ljust(len(line)))) != "?", least)

    assert glimpse("...##.....", 3)
    assert not glimpse("...##.....", 2)
    assert not glimpse("...##..#..", 3), "three in all"
    assert not glimpse("...##.....", 3, "???"), "it may have been there before"
    assert not glimpse("...##.....", 3, "     ?????"), "it may go on"
    assert not glimpse("........##", 3)
    assert not glimpse("..........", 3)
