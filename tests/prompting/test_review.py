"""What of some tracks is worth a look."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backend.prompting.review import ReviewedTrack, find_entries

LENGTH = 60


def track(name: str = "one", x: float = 10, scores: float = 0.9) -> ReviewedTrack:
    boxes = np.tile([x, 20.0, 12.0, 16.0], (LENGTH, 1))
    return ReviewedTrack(name, name, boxes, np.full(LENGTH, scores))


def told(*tracks: ReviewedTrack) -> list[tuple[str, int, str]]:
    return [(entry.kind, entry.frame, entry.what) for entry in find_entries(tracks)]


def test_a_steady_track_is_not_worth_a_look() -> None:
    assert told(track(), track("two", x=50)) == []
    assert told() == []


def test_low_scores_are_told_once_a_part_at_their_lowest_the_worst_first() -> None:
    one = track()
    one.scores[9:13] = (0.4, 0.3, 0.2, 0.45)
    one.scores[30] = 0.1
    assert told(one) == [("score", 31, "one: score 0.10"), ("score", 12, "one: score 0.20")]


def test_a_track_that_is_never_sure_is_judged_by_half() -> None:
    one = track(scores=0.6)
    one.scores[5] = 0.52
    assert told(one) == []
    one.scores[5] = 0.48
    assert told(one) == [("score", 6, "one: score 0.48")]


def test_a_jump_in_size_and_a_gap() -> None:
    one = track()
    one.boxes[20:, 2:] *= 2
    one.boxes[40:43] = np.nan
    assert told(one) == [
        ("size", 21, "one: size changes 4.0 times"),
        ("gap", 41, "one: not seen for 3 frames"),
    ]


def test_what_is_seen_late_or_leaves_is_no_gap() -> None:
    one = track()
    one.boxes[:10] = one.boxes[50:] = np.nan
    one.scores[:10] = one.scores[50:] = np.nan
    assert told(one) == []


def test_two_tracks_on_one_object_are_told_where_they_meet() -> None:
    one, other = track(), track("two", x=50)
    other.boxes[30:40, 0] = 11
    assert told(one, other, track("three", x=70)) == [("same", 31, "one and two: on the same object")]


@given(st.lists(st.tuples(st.integers(0, LENGTH - 1), st.integers(0, 4), st.floats(0, 1)), max_size=30))
def test_every_entry_lies_in_the_video_and_is_in_order(changes) -> None:
    one, other = track(), track("two", x=12)
    for frame, column, value in changes:
        if column == 4:
            one.scores[frame] = value
        else:
            one.boxes[frame, column] = np.nan if value > 0.9 else 100 * value
    entries = find_entries([one, other])
    assert [entry.severity for entry in entries] == sorted((entry.severity for entry in entries), reverse=True)
    assert all(1 <= entry.frame <= LENGTH and 0 <= entry.severity <= 1 for entry in entries)
