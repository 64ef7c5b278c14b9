"""Prompts of the prompting page applied to regions: only what lies between neighbouring prompts is computed again."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import BadRequest
from backend.jobs.spec import FramePrompts
from backend.labelstudio.keyframe import Keyframe, mark_as_ours
from backend.labelstudio.region import Region
from backend.labelstudio.region_results import format_region
from backend.predict.page_track import PageTrack, new_prompts, plan_track, region_prompts
from backend.tracks.frame_range import FrameRange

BOX = (10.0, 20.0, 12.0, 16.0, 0.0)
ON = (50.0, 50.0, True)


def region(humans: tuple[int, ...] = (), ours: tuple[int, ...] = (), clicks: tuple[int, ...] = ()) -> Region:
    """A region that was answered with keyframes on these frames, from clicks on those."""
    keys = [Keyframe(frame, True, *BOX, human=True).seal() for frame in humans]
    keys += [mark_as_ours(Keyframe(frame, True, *BOX)) for frame in ours]
    meta: dict[str, Any] = {"points": {f"c{frame}": [frame, *ON] for frame in clicks}} if clicks else {}
    return Region("r", "box", "video", ("Car",), tuple(sorted(keys, key=lambda key: key.frame)), meta=meta)


def click(*frames: int) -> list[FramePrompts]:
    return [FramePrompts(frame, None, (ON,)) for frame in frames]


def test_a_new_object_is_tracked_from_its_prompts() -> None:
    assert plan_track(region(), click(5, 9), "forward").intervals == ((5, 9), (9, None))
    assert plan_track(region(), click(5, 9), "both").intervals == ((None, 5), (5, 9), (9, None))
    boxes = plan_track(region(), [FramePrompts(5, BOX)], "backward")
    assert boxes.intervals == ((None, 5),)
    assert [key.frame for key in boxes.fixed] == [5]


def test_a_click_between_clicks_leaves_the_rest_of_the_track() -> None:
    plan = plan_track(region(ours=(1, 20, 40, 60, 80, 100), clicks=(1, 40, 80)), click(60), "forward")
    assert plan.intervals == ((40, 60), (60, 80))
    assert [one.frame for one in plan.prompts] == [40, 60, 80]
    kept = [key.frame for segment in plan.segments for key in segment.kept or ()]
    assert kept == [1, 20, 40, 80, 100]


def test_a_box_in_a_persons_untracked_region_computes_between_its_neighbours_alone() -> None:
    drawn = Region("r", "box", "video", ("Car",), tuple(Keyframe(frame, True, *BOX) for frame in (1, 30, 60, 90)))
    assert plan_track(drawn, [FramePrompts(45, BOX)], "forward").intervals == ((30, 45), (45, 60))
    assert plan_track(drawn, click(45), "both").intervals == ((30, 45), (45, 60))


def test_a_range_limits_what_is_tracked() -> None:
    plan = plan_track(region(), click(10), "both", FrameRange(5, 30))
    assert plan.ranges == (FrameRange(5, 30),)
    assert plan_track(region(ours=(1, 100)), click(10), "both", FrameRange(5, 30)).ranges == (FrameRange(5, 30),)


def test_a_click_does_not_move_a_persons_box() -> None:
    with pytest.raises(BadRequest, match="a person has set the box on frame 5"):
        plan_track(region(humans=(1, 5)), click(5), "forward")


def test_prompts_that_are_known_are_not_new() -> None:
    known = region_prompts(region(humans=(5,), clicks=(9,)))
    assert [(one.frame, one.box, one.points) for one in known] == [(5, BOX, ()), (9, None, (ON,))]
    moved = (11.0, *BOX[1:])
    sent = [FramePrompts(5, moved), FramePrompts(9, None, (ON, (1.0, 2.0, False))), *click(12)]
    assert new_prompts(sent, known) == (
        FramePrompts(5, moved),
        FramePrompts(9, None, ((1.0, 2.0, False),)),
        *click(12),
    )
    assert new_prompts(known, known) == ()


frames = st.lists(st.integers(1, 40), max_size=6, unique=True)
numbers = st.floats(0, 90, width=32)
prompts = st.lists(
    st.builds(
        FramePrompts,
        st.integers(1, 40),
        st.none() | st.tuples(numbers, numbers, st.floats(1, 90, width=32), st.floats(1, 90, width=32), st.just(0.0)),
        st.lists(st.tuples(numbers, numbers, st.booleans()), min_size=1, max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda one: one.frame,
)


@given(frames, frames, frames, prompts, st.sampled_from(["forward", "backward", "both"]))
def test_a_persons_keyframes_never_move(humans, ours, clicks, given_prompts, direction) -> None:
    before = region(tuple(humans), tuple({*ours} - {*humans}), tuple(clicks))
    try:
        plan = plan_track(before, given_prompts, direction)
    except BadRequest:
        assert any(one.box is None and one.frame in humans for one in given_prompts)
        return
    boxes = {one.frame for one in given_prompts if one.box}
    after = {key.frame: key for key in plan.region.keyframes}
    for key in before.keyframes:
        if key.is_human and key.frame not in boxes:
            assert after[key.frame] == key
            assert key in plan.fixed
    tracked = [segment for segment in plan.segments if segment.is_tracked]
    near = {one.frame for one in given_prompts}
    for segment in tracked:
        ends = {anchor.frame for anchor in (segment.before, segment.after) if anchor}
        assert near & ({*segment.frames(40)} | ends), "nothing is computed where there is no new prompt"


@given(prompts, prompts, st.sampled_from(["forward", "backward", "both"]), frames)
def test_a_stored_track_is_read_as_it_was(all_prompts, added, direction, humans) -> None:
    before = tuple(format_region(region(tuple(humans), (50,)), 25))
    track = PageTrack(
        3,
        "Car",
        tuple(all_prompts),
        tuple(added),
        direction,
        FrameRange(2, 9),
        before,
        is_correction=True,
        found="car 1",
        origin=before,
        states=frozenset({"a", "b"}),
    )
    assert PageTrack.from_json(track.to_json()) == track
    for text in ("", "[]", "{}", "null"):
        with pytest.raises(ValueError, match=r"page|JSON|value"):
            PageTrack.from_json(text)
