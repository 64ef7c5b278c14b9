"""What is kept of an object, and what of it the model looks at."""

from collections.abc import Container, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.engines.sam3.memory_bank import History, Memories, Memory, Reach, Trail, nearest

REACH = Reach(features=6, pointers=16, given=4)
CHOOSY = REACH._replace(least=0.5)
EITHER = st.sampled_from([REACH, CHOOSY])
BOTH_WAYS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
CPU = torch.device("cpu")
Plain = tuple[list[float], list[int], list[float], list[int]]
"""Features, ages, pointers and distances of a history, with numbers in the place of tensors."""


def memory(number: float, quality: float = 1.0) -> Memory:
    """A memory whose every part says which one it is."""
    part = torch.full((1,), float(number))
    return Memory(part, part + 1000, part + 2000, float(number), quality)


def plain(history: History) -> Plain:
    return (
        [float(one) for one in history.features],
        history.ages,
        [float(one) - 1000 for one in history.pointers],
        history.distances,
    )


def numbers(memories: Mapping[int, Memory]) -> dict[int, tuple[float | None, ...]]:
    return {
        frame: tuple(None if part is None else float(part) for part in memory) for frame, memory in memories.items()
    }


def walked(
    at: int, since: int, given: set[int], confirmed: set[int], reverse: bool, hidden: Container[int] = ()
) -> Memories:
    """An object after a way from `since` to `at` with nothing dropped. Numbers tell what kind a memory is of."""
    one = Memories({frame: memory(frame) for frame in sorted(given)})
    trail = one.trails[reverse]
    trail.since = since
    for frame in range(since, at - 1, -1) if reverse else range(since, at + 1):
        if frame in confirmed:
            trail.confirmed[frame] = memory(frame + 100)
        elif frame not in given:
            trail.tracked[frame] = memory(frame + 200, 0.1 if frame in hidden else 0.9)
    return one


@st.composite
def walks(draw: st.DrawFn) -> tuple[Memories, int, bool]:
    """An object, the frame that its way has come to, and which way it is."""
    reverse = draw(st.booleans())
    since, at = (60, draw(st.integers(0, 60))) if reverse else (0, draw(st.integers(0, 60)))
    given_on = draw(st.sets(st.integers(0, 60), min_size=1, max_size=8))
    # As far apart as the published model confirms at least.
    every = draw(st.integers(REACH.features + 1, 20))
    confirmed = {frame for frame in range(61) if frame % every == 0 and frame not in given_on}
    hidden = draw(st.sampled_from([range(0), range(20, 45), range(61), {*range(0, 61, 2)}]))
    return walked(at, since, given_on, draw(st.sampled_from([confirmed, set()])), reverse, hidden), at, reverse


def naive(
    one: Memories, frame: int, reverse: bool, reach: Reach
) -> tuple[list[float], list[int], list[float], list[int]]:
    """The rule, as the paper and the library have it: of conditioning frames (given or confirmed) at most `given`, the
    closest before, the closest after, then the closest; then the last tracked frames, in which conditioning frames that
    were not chosen take their place; pointers of the chosen ones that lie behind, and of the last tracked ones.
    Where the reach says so, tracked frames before the last count only if the object was seen well, one by one."""
    conditioning = {**one.given, **one.trails[reverse].confirmed}
    tracked = one.trails[reverse].tracked
    chosen = list(conditioning)
    if len(chosen) > reach.given:
        before = [at for at in conditioning if at < frame]
        after = [at for at in conditioning if at >= frame]
        chosen = ([max(before)] if before else []) + ([min(after)] if after else [])
        rest = sorted((at for at in conditioning if at not in chosen), key=lambda at: abs(at - frame))
        chosen += rest[: reach.given - len(chosen)]
    seen = [(0, conditioning[at]) for at in chosen]
    past = [frame + ago if reverse else frame - ago for ago in range(1, 61)]
    if reach.least is not None:
        past = [at for at in past if at == past[0] or (at in tracked and tracked[at].quality > reach.least)]
    past = past[: reach.pointers - 1]
    for ago, at in reversed(list(enumerate(past[: reach.features], 1))):
        if at in tracked:
            seen.append((ago, tracked[at]))
        elif at in conditioning and at not in chosen:
            seen.append((ago, conditioning[at]))
    pointers = []
    for at in chosen:
        ago = at - frame if reverse else frame - at
        if ago >= 0:
            pointers.append((ago, conditioning[at]))
    for ago, at in enumerate(past, 1):
        if at in tracked:
            pointers.append((ago, tracked[at]))
    return (
        [float(memory.features) for _, memory in seen if memory.features is not None],
        [ago for ago, memory in seen if memory.features is not None],
        [float(memory.pointer) - 1000 for _, memory in pointers],
        [ago for ago, _ in pointers],
    )


@given(walks(), st.integers(0, 60), EITHER)
@settings(max_examples=300)
def test_the_history_follows_the_rule(walk, frame, reach):
    one, _, reverse = walk
    assert plain(one.history(frame, reverse, reach)) == naive(one, frame, reverse, reach)


@given(walks(), st.integers(1, 10), EITHER)
@settings(max_examples=300)
def test_what_is_dropped_would_not_have_been_looked_at(walk, further, reach):
    one, at, reverse = walk
    back = -1 if reverse else 1
    later = [plain(one.history(at + back * ahead, reverse, reach)) for ahead in range(1, further + 1)]
    one.prune(at, reverse, reach)
    assert [plain(one.history(at + back * ahead, reverse, reach)) for ahead in range(1, further + 1)] == later


@BOTH_WAYS
def test_an_object_that_is_hidden_for_long_is_looked_for_as_it_was_seen_last(reverse):
    since, at, hidden = (60, 1, range(1, 50)) if reverse else (0, 59, range(11, 60))
    one = walked(at, since, {since}, set(), reverse, hidden)
    for frame in range(since, at - 1, -1) if reverse else range(since, at + 1):
        one.prune(frame, reverse, CHOOSY)
    found = one.history(0 if reverse else 60, reverse, CHOOSY)
    last_seen = [54, 53, 52, 51, 50] if reverse else [6, 7, 8, 9, 10]
    assert [float(features) for features in found.features] == [since, *(200.0 + seen for seen in [*last_seen, at])]
    assert found.ages == [0, 6, 5, 4, 3, 2, 1]


@BOTH_WAYS
def test_what_is_dropped_would_not_have_been_looked_at_even_if_every_frame_is_confirmed(reverse):
    since, at = (60, 40) if reverse else (0, 20)
    one = walked(at, since, {since}, set(range(61)) - {since}, reverse)
    following = at - 1 if reverse else at + 1
    later = plain(one.history(following, reverse, REACH))
    one.prune(at, reverse, REACH)
    assert plain(one.history(following, reverse, REACH)) == later
    assert len(one.trails[reverse].confirmed) <= REACH.features + 1


@BOTH_WAYS
def test_what_is_dropped_would_not_have_been_looked_at_by_a_correction_of_the_last_frame(reverse):
    since, at = (60, 30) if reverse else (0, 30)
    one = walked(at, since, {since}, set(), reverse)
    before = plain(one.history(at, reverse, REACH))
    one.prune(at, reverse, REACH)
    assert plain(one.history(at, reverse, REACH)) == before


@BOTH_WAYS
@pytest.mark.parametrize("reach", [REACH, CHOOSY], ids=["every frame", "the good ones"])
def test_what_is_dropped_would_not_have_been_looked_at_when_the_frames_ahead_are_undone(reverse, reach):
    since, at, ahead = (60, 20, 0) if reverse else (0, 40, 60)
    one = walked(ahead, since, {since}, {10, 20, 30, 40, 50}, reverse, range(22, 38))
    ats = {reverse: at, not reverse: since}
    following = at - 1 if reverse else at + 1
    later = plain(one.as_of(ats).history(following, reverse, reach))
    one.prune(at, reverse, reach)
    assert plain(one.as_of(ats).history(following, reverse, reach)) == later


@given(walks(), EITHER)
def test_what_is_kept_has_bounds(walk, reach):
    one, at, reverse = walk
    one.prune(at, reverse, reach)
    trail = one.trails[reverse]
    # What is hidden is kept for a while, too: a person may correct it.
    more = 0 if reach.least is None else REACH.features
    assert len(trail.tracked) <= REACH.pointers + more
    assert sum(memory.features is not None for memory in trail.tracked.values()) <= REACH.features + 1 + more
    assert all((memory.features is None) == (memory.logits is None) for memory in trail.tracked.values())
    assert len(trail.confirmed) <= REACH.given


def test_pruning_one_way_leaves_the_other_alone():
    one = walked(50, 0, {0}, {16, 32}, False)
    one.trails[True] = walked(10, 60, {0}, {16, 32}, True).trails[True]
    before = numbers(one.trails[True].tracked)
    one.prune(50, False, REACH)
    assert numbers(one.trails[True].tracked) == before
    assert list(one.given) == [0]


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
    found = nearest({at: memory(at) for at in frames}, frame, count)
    assert list(found) == chosen
    assert all(float(found[at].features) == at for at in chosen)


@BOTH_WAYS
def test_a_frame_was_tracked_between_where_the_object_joined_and_where_the_way_has_come_to(reverse):
    one = Memories()
    assert not one.was_tracked(5, 9, reverse)
    one.trails[reverse].since = 8 if reverse else 2
    at = 2 if reverse else 8
    assert [frame for frame in range(12) if one.was_tracked(frame, at, reverse)] == list(range(2, 9))
    assert not one.was_tracked(5, at, not reverse)


@BOTH_WAYS
def test_memories_as_of_a_frame_know_nothing_of_what_came_after(reverse):
    since, at = (60, 20) if reverse else (0, 40)
    one = walked(at, since, {since, 30}, {32, 36}, reverse)
    one.trails[reverse].removed = one.trails[reverse].ended = at
    then = one.as_of({reverse: 34, not reverse: 0 if reverse else 60})
    trail = then.trails[reverse]
    expected = range(34, 61) if reverse else range(35)
    assert {*trail.tracked, *trail.confirmed} == {*expected} - {since, 30}
    assert (trail.since, trail.removed, trail.ended) == (since, None, None)
    assert list(then.given) == sorted({since, 30})
    before = one.as_of({reverse: since + (1 if reverse else -1), not reverse: 0}).trails[reverse]
    assert before == Trail()
    trail.tracked.clear()
    then.given.clear()
    assert one.given
    assert one.trails[reverse].tracked


def test_a_frame_is_remembered_by_what_was_given_first():
    one = walked(10, 0, {0}, {5}, False)
    one.given[7] = memory(7)
    assert [one.at(frame).score for frame in (0, 5, 6, 7)] == [0, 105, 206, 7]
    assert one.at(11) is None


@BOTH_WAYS
def test_what_was_tracked_around_a_correction_is_forgotten_both_ways(reverse):
    one = walked(40, 0, {0}, {16, 32}, False)
    one.trails[True] = walked(0, 40, {0}, set(), True).trails[True]
    one.forget_around(20, REACH)
    near = set(range(13, 28))
    for trail in one.trails.values():
        assert not near & {*trail.tracked, *trail.confirmed}
        assert {12, 28} <= {*trail.tracked}
    assert list(one.given) == [0]


@given(walks(), st.sampled_from([None, 5]), st.sampled_from([None, 7]))
def test_saved_memories_come_back(walk, removed, ended):
    one, at, reverse = walk
    one.trails[reverse].removed, one.trails[reverse].ended = removed, ended
    one.prune(at, reverse, REACH)
    back = Memories.restored(one.saved(), CPU)
    assert numbers(back.given) == numbers(one.given)
    for way, trail in one.trails.items():
        there = back.trails[way]
        assert (there.since, there.removed, there.ended) == (trail.since, trail.removed, trail.ended)
        assert list(numbers(there.tracked).items()) == list(numbers(trail.tracked).items())
        assert list(numbers(there.confirmed).items()) == list(numbers(trail.confirmed).items())


def test_a_saved_memory_takes_no_more_room_than_it_needs():
    whole = torch.zeros(100, 8)
    one = Memories({0: Memory(whole[0], whole[1], None, 0.0)})
    features, pointer, *_ = one.saved()["given"][0]
    assert features.untyped_storage().nbytes() == pointer.untyped_storage().nbytes() == 8 * 4
