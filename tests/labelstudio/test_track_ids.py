"""Which tracks are of one object, whatever else was found and in which order."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.labelstudio.keyframe import Keyframe, boxes_at, mark_as_ours
from backend.labelstudio.region import Region
from backend.labelstudio.track_ids import (
    TrackIdentity,
    TrackShape,
    assign_identities,
    match_shapes,
    read_shapes,
    shape_overlaps,
)
from tests.labelstudio.bodies import drawn, keyframe

LENGTH = 10_000


def track(
    lane: int, first: int = 1, last: int = LENGTH, *, shift: float = 0, step: int = 2_000
) -> tuple[Keyframe, ...]:
    """An object in a lane of its own, which goes to and fro; `shift` in percent to the right, of a width of 8."""
    frames = sorted({first, *range(first, last, step), last})
    return tuple(
        mark_as_ours(Keyframe(frame, frame != last, 10 + (frame // step) % 2 * 60 + shift, 9 * lane, 8, 8))
        for frame in frames
    )


def sight(lane: int, *called: str, **more: float) -> TrackShape:
    return TrackShape(track(lane, **more), frozenset(called))


def region(lane: int, number: int | None = None, *, name: str = "", **more: float) -> Region:
    meta = {"phrase": "car"} | ({"track_id": number} if number else {})
    return Region(name or f"r{lane}", "box", "video", ("Car",), track(lane, **more), meta=meta)


def overlap(a: Sequence[Keyframe], b: Sequence[Keyframe], *, is_tracked: bool = True) -> float:
    return shape_overlaps([TrackShape(a)], [TrackShape(b, is_tracked=is_tracked)])[0, 0]


def test_the_overlap_is_the_mean_iou_of_the_frames_where_both_show() -> None:
    assert overlap(track(1), track(1)) == 1
    assert overlap(track(1), track(1, 1, 4_001)) == pytest.approx(1)
    assert overlap(track(1), track(1, shift=2)) == pytest.approx(6 / 10)
    assert overlap(track(1), track(1, shift=3)) == 0, "5 / 11 are too little"
    assert overlap(track(1), track(2)) == 0


def test_few_frames_in_common_are_no_evidence() -> None:
    assert overlap(track(1, 1, 1_000), track(1, 996, 2_000)) == 0
    assert overlap(track(1, 1, 1_000), track(1, 801, 1_800, step=200)) == 0, "they are elsewhere"
    still = [mark_as_ours(Keyframe(frame, frame in (1, 801), 10, 10, 8, 8)) for frame in (1, 1_000, 801, 1_800)]
    assert overlap(still[:2], still[2:]) == 1


@pytest.mark.parametrize("first", [1, 333, 7_777])
def test_the_shortest_track_of_a_long_video_is_seen(first: int) -> None:
    assert overlap(track(1), _part(track(1), first, first + 2)) == pytest.approx(1, abs=0.01)


def _part(items: Sequence[Keyframe], first: int, last: int) -> list[Keyframe]:
    rows = boxes_at(items, np.arange(first, last + 1)).tolist()
    return [mark_as_ours(Keyframe(first + at, first + at != last, *row)) for at, row in enumerate(rows)]


def test_what_was_drawn_by_hand_is_judged_where_it_was_drawn() -> None:
    hand = [Keyframe(4_001, True, 10, 9, 8, 8)]
    assert overlap(track(1), hand, is_tracked=False) == 1
    assert overlap(track(1), hand) == 0, "a track that stays there is another one"


def test_the_nearest_goes_first_and_of_those_as_near_the_one_of_the_same_name() -> None:
    new = {"a": sight(1, shift=1), "b": sight(1, shift=0.1)}
    assert match_shapes(new, {"x": sight(1)}) == {"b": "x"}
    assert match_shapes(new, {"x": sight(1), "y": sight(1, shift=1.5)}) == {"b": "x", "a": "y"}
    named = {"a": sight(1, "person", "Person"), "b": sight(1, "car", "Car", shift=0.1)}
    assert match_shapes(named, {"x": sight(1, "car", "Car"), "y": sight(1, "person", "Person", shift=0.1)}) == {
        "b": "x",
        "a": "y",
    }
    assert match_shapes({"far": sight(1, "car", shift=2), "near": sight(1, "bus")}, {"x": sight(1, "car")}) == {
        "near": "x"
    }
    assert match_shapes({}, {"x": sight(1)}) == match_shapes(new, {}) == {}


lanes = st.lists(st.integers(0, 9), unique=True)


@given(lanes, lanes, st.randoms(use_true_random=False), st.floats(-1, 1))
def test_identities_do_not_depend_on_the_order_or_on_what_else_is_found(
    there: list[int], added: list[int], chance: random.Random, shift: float
) -> None:
    before = [region(lane, 10 + lane) for lane in there]
    both = list(dict.fromkeys([*there, *added]))
    chance.shuffle(both)
    found = assign_identities({f"n{lane}": sight(lane, shift=shift) for lane in both}, [before])
    assert {name: found[name] for name in (f"n{lane}" for lane in there)} == {
        f"n{lane}": TrackIdentity(f"r{lane}", 10 + lane) for lane in there
    }
    new = [one for one in found.values() if one.id is None]
    assert [one.number for one in new] == [max([0, *(10 + lane for lane in there)]) + 1 + at for at in range(len(new))]


@given(st.permutations(range(4)), st.permutations(range(4)))
def test_tracks_that_are_all_near_are_matched_alike_in_any_order(order: list[int], others: list[int]) -> None:
    new = {f"n{at}": sight(1, shift=0.4 * at) for at in range(4)}
    old = {f"o{at}": sight(1, shift=0.4 * at + 0.2) for at in range(4)}
    shuffled = {f"n{at}": new[f"n{at}"] for at in order}, {f"o{at}": old[f"o{at}"] for at in others}
    assert match_shapes(*shuffled) == match_shapes(new, old)
    assert len(match_shapes(new, old)) == 4


def test_numbers_that_were_ever_used_are_not_given_again() -> None:
    found = assign_identities({"a": sight(1), "b": sight(2)}, [[region(2, 3)]], {7})
    assert found == {"a": TrackIdentity(None, 8), "b": TrackIdentity("r2", 3)}
    assert assign_identities({"a": sight(1)}, []) == {"a": TrackIdentity(None, 1)}


def test_the_first_that_knows_an_object_names_it() -> None:
    newest, older = [region(1, 1)], [region(1, 5, name="old"), region(2, 1, name="other"), region(3, name="drawn")]
    found = assign_identities({"a": sight(1), "b": sight(2), "c": sight(3), "d": sight(1, shift=0.5)}, [newest, older])
    assert found["a"] == TrackIdentity("r1", 1)
    assert found["b"] == TrackIdentity(None, 7), "number 1 is taken, and so that region is no use"
    assert found["c"] == TrackIdentity("drawn", 6)
    assert found["d"] == TrackIdentity("old", 5)


def test_only_regions_of_the_video_that_can_be_read_are_tracks() -> None:
    good, other = drawn(keyframe(1)), drawn(keyframe(1), id="other") | {"to_name": "second"}
    results = [good, other, {"type": "textarea"}, {"type": "videorectangle"}, drawn(id="empty"), "nothing"]
    assert [one.id for one in read_shapes(results)] == [good["id"], "other"]
    assert [one.id for one in read_shapes(results, "video")] == [good["id"]]
    assert read_shapes(None) == read_shapes({"a": 1}) == []
