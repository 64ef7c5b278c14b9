"""What is kept of an object, and what of it the model looks at."""

from collections.abc import Container, Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backend.engines.sam.memory_bank import (
    DirectionMemory,
    FrameMemory,
    MemoryBank,
    MemorySelection,
    MemoryWindow,
    select_cond_frames,
)

REACH = MemoryWindow(maskmem_frames=6, pointer_frames=16, cond_frames=4)
CHOOSY = REACH._replace(min_eff_iou=0.5)
EITHER = st.builds(MemoryWindow._replace, st.sampled_from([REACH, CHOOSY]), restarts_at_prompts=st.booleans())
BOTH_WAYS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
CPU = torch.device("cpu")
Plain = tuple[list[float], list[int], list[float], list[int]]
"""Features, ages, pointers and distances of a history, with numbers in the place of tensors."""


def memory(number: float, quality: float = 1.0) -> FrameMemory:
    """A memory whose every part says which one it is."""
    part = torch.full((1,), float(number))
    return FrameMemory(part, part + 1000, part + 2000, float(number), quality)


def plain(history: MemorySelection) -> Plain:
    return (
        [float(one) for one in history.features],
        history.offsets,
        [float(one) - 1000 for one in history.object_pointers],
        history.pointer_offsets,
    )


def numbers(memories: Mapping[int, FrameMemory]) -> dict[int, tuple[float | None, ...]]:
    return {
        frame: tuple(None if part is None else float(part) for part in memory) for frame, memory in memories.items()
    }


def walked(
    at: int, since: int, given: set[int], confirmed: set[int], reverse: bool, hidden: Container[int] = ()
) -> MemoryBank:
    """An object after a way from `since` to `at` with nothing dropped. Numbers tell what kind a memory is of."""
    one = MemoryBank({frame: memory(frame) for frame in sorted(given)})
    trail = one.directions[reverse]
    trail.joined_at = since
    for frame in range(since, at - 1, -1) if reverse else range(since, at + 1):
        if frame in confirmed:
            trail.recond_frames[frame] = memory(frame + 100)
        elif frame not in given:
            trail.non_cond_frames[frame] = memory(frame + 200, 0.1 if frame in hidden else 0.9)
    return one


@st.composite
def walks(draw: st.DrawFn) -> tuple[MemoryBank, int, bool]:
    """An object, the frame that its way has come to, and which way it is."""
    reverse = draw(st.booleans())
    since, at = (60, draw(st.integers(0, 60))) if reverse else (0, draw(st.integers(0, 60)))
    given_on = draw(st.sets(st.integers(0, 60), min_size=1, max_size=8))
    # As far apart as the published model confirms at least.
    every = draw(st.integers(REACH.maskmem_frames + 1, 20))
    confirmed = {frame for frame in range(61) if frame % every == 0 and frame not in given_on}
    hidden = draw(st.sampled_from([range(0), range(20, 45), range(61), {*range(0, 61, 2)}]))
    return walked(at, since, given_on, draw(st.sampled_from([confirmed, set()])), reverse, hidden), at, reverse


def valid(past: list[int], tracked: dict[int, FrameMemory], reach: MemoryWindow) -> list[int]:
    """The frames that `frame_filter` returns, nearest first."""
    found = [at for at in past if at in tracked and tracked[at].eff_iou_score > reach.min_eff_iou]
    found = found[: reach.pointer_frames - 1]
    return found if past[0] in found else [past[0], *found]


def naive(
    one: MemoryBank, frame: int, reverse: bool, reach: MemoryWindow
) -> tuple[list[float], list[int], list[float], list[int]]:
    """The rule, as the paper and the library have it: of conditioning frames (given or confirmed) at most `given`, the
    closest before, the closest after, then the closest; then the last tracked frames, in which conditioning frames that
    were not chosen take their place; pointers of the chosen ones that lie behind, and of the last tracked ones.
    Where the reach says so, tracked frames before the last count only if the object was seen well, one by one, and the
    farthest of them has no pointer: so `frame_filter` of facebookresearch/sam3, and what it does with the frames.
    Where it says so, none counts from which a given frame lies on the way."""
    conditioning = {**one.cond_frames, **one.directions[reverse].recond_frames}
    tracked = dict(one.directions[reverse].non_cond_frames)
    for at in list(tracked):
        way = range(at - 1, frame, -1) if reverse else range(at + 1, frame)
        if reach.restarts_at_prompts and any(given in way for given in one.cond_frames):
            del tracked[at]
    chosen = list(conditioning)
    if len(chosen) > reach.cond_frames:
        before = [at for at in conditioning if at < frame]
        after = [at for at in conditioning if at >= frame]
        chosen = ([max(before)] if before else []) + ([min(after)] if after else [])
        rest = sorted((at for at in conditioning if at not in chosen), key=lambda at: abs(at - frame))
        chosen += rest[: reach.cond_frames - len(chosen)]
    seen = [(0, conditioning[at]) for at in chosen]
    past = [frame + ago if reverse else frame - ago for ago in range(1, 61)]
    pointed = past = past[: reach.pointer_frames - 1] if reach.min_eff_iou is None else valid(past, tracked, reach)
    if reach.min_eff_iou is not None:
        pointed = past[:-1]
    for ago, at in reversed(list(enumerate(past[: reach.maskmem_frames], 1))):
        if at in tracked:
            seen.append((ago, tracked[at]))
        elif at in conditioning and at not in chosen:
            seen.append((ago, conditioning[at]))
    pointers = []
    for at in chosen:
        ago = at - frame if reverse else frame - at
        if ago >= 0:
            pointers.append((ago, conditioning[at]))
    for ago, at in enumerate(pointed, 1):
        if at in tracked:
            pointers.append((ago, tracked[at]))
    return (
        [float(memory.features) for _, memory in seen if memory.features is not None],
        [ago for ago, memory in seen if memory.features is not None],
        [float(memory.object_pointer) - 1000 for _, memory in pointers],
        [ago for ago, _ in pointers],
    )


@given(walks(), st.integers(0, 60), EITHER)
def test_the_history_follows_the_rule(walk, frame, reach):
    one, _, reverse = walk
    assert plain(one.select(frame, reverse, reach)) == naive(one, frame, reverse, reach)


@given(walks(), st.integers(1, 10), EITHER)
def test_what_is_dropped_would_not_have_been_looked_at(walk, further, reach):
    one, at, reverse = walk
    back = -1 if reverse else 1
    later = [plain(one.select(at + back * ahead, reverse, reach)) for ahead in range(1, further + 1)]
    one.prune(at, reverse, reach)
    assert [plain(one.select(at + back * ahead, reverse, reach)) for ahead in range(1, further + 1)] == later


@given(walks(), EITHER)
def test_what_a_state_leaves_out_the_following_frames_do_not_look_at(walk, reach):
    one, at, reverse = walk
    following = at + (-1 if reverse else 1)
    later = plain(one.select(following, reverse, reach))
    one.strip({reverse: at, not reverse: -1 if reverse else 61}, reach)
    assert plain(one.select(following, reverse, reach)) == later
    tracked = one.directions[reverse].non_cond_frames.values()
    assert all(memory.logits is None for memory in tracked)
    assert sum(memory.features is not None for memory in tracked) <= reach.maskmem_frames


@BOTH_WAYS
def test_an_object_that_is_hidden_for_long_is_looked_for_as_it_was_seen_last(reverse):
    since, at, hidden = (60, 1, range(1, 50)) if reverse else (0, 59, range(11, 60))
    one = walked(at, since, {since}, set(), reverse, hidden)
    for frame in range(since, at - 1, -1) if reverse else range(since, at + 1):
        one.prune(frame, reverse, CHOOSY)
    found = one.select(0 if reverse else 60, reverse, CHOOSY)
    last_seen = [54, 53, 52, 51, 50] if reverse else [6, 7, 8, 9, 10]
    assert [float(features) for features in found.features] == [since, *(200.0 + seen for seen in [*last_seen, at])]
    assert found.offsets == [0, 6, 5, 4, 3, 2, 1]


@BOTH_WAYS
def test_what_is_dropped_would_not_have_been_looked_at_even_if_every_frame_is_confirmed(reverse):
    since, at = (60, 40) if reverse else (0, 20)
    one = walked(at, since, {since}, set(range(61)) - {since}, reverse)
    following = at - 1 if reverse else at + 1
    later = plain(one.select(following, reverse, REACH))
    one.prune(at, reverse, REACH)
    assert plain(one.select(following, reverse, REACH)) == later
    assert len(one.directions[reverse].recond_frames) <= REACH.maskmem_frames + 1


@BOTH_WAYS
def test_what_is_dropped_would_not_have_been_looked_at_by_a_correction_of_the_last_frame(reverse):
    since, at = (60, 30) if reverse else (0, 30)
    one = walked(at, since, {since}, set(), reverse)
    before = plain(one.select(at, reverse, REACH))
    one.prune(at, reverse, REACH)
    assert plain(one.select(at, reverse, REACH)) == before


@BOTH_WAYS
@pytest.mark.parametrize("reach", [REACH, CHOOSY], ids=["every frame", "the good ones"])
def test_what_is_dropped_would_not_have_been_looked_at_when_the_frames_ahead_are_undone(reverse, reach):
    since, at, ahead = (60, 20, 0) if reverse else (0, 40, 60)
    one = walked(ahead, since, {since}, {10, 20, 30, 40, 50}, reverse, range(22, 38))
    ats = {reverse: at, not reverse: since}
    following = at - 1 if reverse else at + 1
    later = plain(one.snapshot(ats).select(following, reverse, reach))
    one.prune(at, reverse, reach)
    assert plain(one.snapshot(ats).select(following, reverse, reach)) == later


@given(walks(), EITHER)
def test_what_is_kept_has_bounds(walk, reach):
    one, at, reverse = walk
    one.prune(at, reverse, reach)
    trail = one.directions[reverse]
    # What is hidden is kept for a while, too: a person may correct it.
    more = 0 if reach.min_eff_iou is None else REACH.maskmem_frames
    assert len(trail.non_cond_frames) <= REACH.pointer_frames + more
    assert (
        sum(memory.features is not None for memory in trail.non_cond_frames.values()) <= REACH.maskmem_frames + 1 + more
    )
    assert all((memory.features is None) == (memory.logits is None) for memory in trail.non_cond_frames.values())
    assert len(trail.recond_frames) <= REACH.cond_frames


def test_pruning_one_way_leaves_the_other_alone():
    one = walked(50, 0, {0}, {16, 32}, False)
    one.directions[True] = walked(10, 60, {0}, {16, 32}, True).directions[True]
    before = numbers(one.directions[True].non_cond_frames)
    one.prune(50, False, REACH)
    assert numbers(one.directions[True].non_cond_frames) == before
    assert list(one.cond_frames) == [0]


@pytest.mark.parametrize(
    ("frames", "frame", "count", "chosen"),
    [
        ([3, 9], 5, 4, [3, 9]),
        ([0, 10, 20, 30], 15, 2, [10, 20]),
        ([0, 10, 20, 30], 20, 2, [10, 20]),
        ([0, 10, 20, 30], 14, 3, [10, 20, 0]),
        ([0, 10, 20, 30], 99, 2, [30, 20]),
        ([10, 20, 30], 5, 2, [10, 20]),
        ([0, 1, 2, 3, 90], 50, 4, [3, 90, 2, 1]),
    ],
)
def test_the_nearest_are_the_last_before_the_first_after_and_then_the_closest(frames, frame, count, chosen):
    found = select_cond_frames({at: memory(at) for at in frames}, frame, count)
    assert list(found) == chosen
    assert all(float(found[at].features) == at for at in chosen)


@BOTH_WAYS
def test_a_frame_was_tracked_between_where_the_object_joined_and_where_the_way_has_come_to(reverse):
    one = MemoryBank()
    assert not one.was_tracked(5, 9, reverse)
    one.directions[reverse].joined_at = 8 if reverse else 2
    at = 2 if reverse else 8
    assert [frame for frame in range(12) if one.was_tracked(frame, at, reverse)] == list(range(2, 9))
    assert not one.was_tracked(5, at, not reverse)


@BOTH_WAYS
def test_memories_as_of_a_frame_know_nothing_of_what_came_after(reverse):
    since, at = (60, 20) if reverse else (0, 40)
    one = walked(at, since, {since, 30}, {32, 36}, reverse)
    one.directions[reverse].removed_at = one.directions[reverse].ended_at = at
    then = one.snapshot({reverse: 34, not reverse: 0 if reverse else 60})
    trail = then.directions[reverse]
    expected = range(34, 61) if reverse else range(35)
    assert {*trail.non_cond_frames, *trail.recond_frames} == {*expected} - {since, 30}
    assert (trail.joined_at, trail.removed_at, trail.ended_at) == (since, None, None)
    assert list(then.cond_frames) == sorted({since, 30})
    before = one.snapshot({reverse: since + (1 if reverse else -1), not reverse: 0}).directions[reverse]
    assert before == DirectionMemory()
    trail.non_cond_frames.clear()
    then.cond_frames.clear()
    assert one.cond_frames
    assert one.directions[reverse].non_cond_frames


def test_a_frame_is_remembered_by_what_was_given_first():
    one = walked(10, 0, {0}, {5}, False)
    one.cond_frames[7] = memory(7)
    assert [one.get(frame).object_score for frame in (0, 5, 6, 7)] == [0, 105, 206, 7]
    assert one.get(11) is None


@BOTH_WAYS
def test_what_was_tracked_around_a_correction_is_forgotten_both_ways(reverse):
    one = walked(40, 0, {0}, {16, 32}, False)
    one.directions[True] = walked(0, 40, {0}, set(), True).directions[True]
    one.clear_around(20, REACH)
    near = set(range(13, 28))
    for trail in one.directions.values():
        assert not near & {*trail.non_cond_frames, *trail.recond_frames}
        assert {12, 28} <= {*trail.non_cond_frames}
    assert list(one.cond_frames) == [0]


@given(walks(), st.integers(0, 60), st.sampled_from([None, 0, 30]))
def test_a_correction_drops_what_detections_gave_near_it(walk, frame, detected_at):
    one, _, reverse = walk
    given_before, confirmed_before = dict(one.cond_frames), dict(one.directions[reverse].recond_frames)
    one.clear_detected(frame, detected_at)
    near = {*range(frame - 16, frame + 17)} - {frame}
    assert one.cond_frames.keys() == given_before.keys() - ({detected_at} & near)
    assert one.directions[reverse].recond_frames.keys() == confirmed_before.keys() - near


@given(walks(), st.sampled_from([None, 5]), st.sampled_from([None, 7]))
def test_saved_memories_come_back(walk, removed, ended):
    one, at, reverse = walk
    one.directions[reverse].removed_at, one.directions[reverse].ended_at = removed, ended
    one.prune(at, reverse, REACH)
    back = MemoryBank.from_state(one.state(), CPU)
    assert numbers(back.cond_frames) == numbers(one.cond_frames)
    for way, trail in one.directions.items():
        there = back.directions[way]
        assert (there.joined_at, there.removed_at, there.ended_at) == (
            trail.joined_at,
            trail.removed_at,
            trail.ended_at,
        )
        assert list(numbers(there.non_cond_frames).items()) == list(numbers(trail.non_cond_frames).items())
        assert list(numbers(there.recond_frames).items()) == list(numbers(trail.recond_frames).items())


def test_a_saved_memory_takes_no_more_room_than_it_needs():
    whole = torch.zeros(100, 8)
    one = MemoryBank({0: FrameMemory(whole[0], whole[1], None, 0.0)})
    features, pointer, *_ = one.state()["given"][0]
    assert features.untyped_storage().nbytes() == pointer.untyped_storage().nbytes() == 8 * 4
