import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice

import numpy as np
import pytest

from backend.jobs.propagation import PropagationRun
from backend.jobs.schedule import Interval, intervals_between
from backend.jobs.track_buffer import TrackBuffer
from backend.tracks.geometry import Box
from backend.tracks.prompts import Phrase, Prompt, Target
from backend.tracks.track import ABSENT, FrameResult, Observation, Track
from tests.fakes import FakeVideo, StubEngine, StubSession


def run(intervals, frames, length=50, engine=None, **limits) -> PropagationRun:
    prompts = [Prompt("a", frame, box=Box(10, 10, 20, 20)) for frame in frames]
    propagation = PropagationRun(length, {"a": intervals}, prompts, **limits)
    for _ in propagation.run(engine or StubEngine(step=0), FakeVideo(length)):
        pass
    return propagation


def frames_of(track: Track) -> list[int]:
    """The source frames on which an object is there."""
    return (track.start + np.flatnonzero(~np.isnan(track.scores))).tolist()


def present_frames(propagation: PropagationRun) -> list[int]:
    return frames_of(propagation.tracks()["a"])


@pytest.mark.parametrize(
    ("direction", "intervals"),
    [
        ("forward", [Interval(5, 9), Interval(9, None)]),
        ("backward", [Interval(None, 5), Interval(5, 9)]),
        ("both", [Interval(None, 5), Interval(5, 9), Interval(9, None)]),
    ],
)
def test_the_intervals_between_prompts(direction: str, intervals: list[Interval]) -> None:
    assert intervals_between([5, 9], direction) == intervals


@pytest.mark.parametrize(
    ("interval", "limits", "frames"),
    [
        (Interval(10, None), {}, range(10, 50)),
        (Interval(None, 10), {}, range(0, 11)),
        (Interval(10, 20), {}, range(10, 21)),
        (Interval(10, None), {"max_frames": 5}, range(10, 16)),
        (Interval(None, 10), {"max_frames": 5}, range(5, 11)),
        (Interval(10, 20), {"max_frames": 5}, range(10, 21)),
        (Interval(10, None), {"span": range(5, 30)}, range(10, 30)),
        (Interval(None, 10), {"span": range(5, 30)}, range(5, 11)),
        (Interval(49, None), {}, range(49, 50)),
    ],
)
def test_an_interval_ends_at_the_limits(interval: Interval, limits: dict, frames: range) -> None:
    propagation = run([interval], [at for at in (interval.first, interval.last) if at is not None], **limits)
    assert present_frames(propagation) == list(frames)
    passes = 2 if None not in (interval.first, interval.last) else 1
    assert propagation.done == propagation.total == passes * len(frames)


def test_both_directions_are_fused_between_two_prompts() -> None:
    # Forward the box drifts to the right of where it is, backward to the left of it: together they stay.
    track = run([Interval(0, 4)], [0, 4], engine=StubEngine(step=0.5)).tracks()["a"]
    assert np.allclose(track.boxes[:5, 0], 10)


def test_unseen_frames_are_absent() -> None:
    engine = StubEngine(seen=lambda frame: frame % 10 < 3)
    assert present_frames(run([Interval(0, None)], [0], engine=engine, length=12)) == [0, 1, 2, 10, 11]


def test_frames_done_before_the_run_is_closed_are_kept() -> None:
    propagation = PropagationRun(50, {"a": [Interval(0, None)]}, [Prompt("a", 0, box=Box(10, 10, 20, 20))])
    with closing(propagation.run(StubEngine(step=0), FakeVideo())) as frames:
        assert list(islice(frames, 7)) == list(range(7))
    assert present_frames(propagation) == list(range(7))
    assert (propagation.done, propagation.total, propagation.newest_frame) == (7, 50, 6)
    assert propagation.target("a").processed_frames().tolist() == [True] * 7 + [False] * 43


def target(name: str, *frames: int, left: float = 10) -> Target:
    return Target(None, {at: Prompt(name, at, box=Box(left, 10, left + 10, 20)) for at in frames})


def build_run(length: int, targets: dict[str, Target], phrases, direction: str, **limits) -> PropagationRun:
    intervals = {name: intervals_between(sorted(one.prompts), direction) for name, one in targets.items()}
    prompts = [prompt for one in targets.values() for prompt in one.prompts.values()]
    return PropagationRun(length, intervals, prompts, phrases, direction, **limits)


def run_session(engine: StubEngine, targets=(), phrases=(), direction="forward", length=50, **limits) -> PropagationRun:
    masks = limits.pop("masks", False)
    propagation = build_run(length, dict(targets), phrases, direction, **limits)
    assert len(list(propagation.run(engine, FakeVideo(length), masks))) == propagation.total == len(engine.frames)
    return propagation


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
@pytest.mark.parametrize("limits", [{}, {"max_frames": 4}, {"span": range(3, 40)}])
def test_tracks_of_one_session_equal_those_of_separate_sessions(direction: str, limits: dict) -> None:
    targets = {"a": target("a", 5, 9, 20), "b": target("b", 12, left=40), "c": target("c", 33, 39, left=70)}
    tracks = run_session(StubEngine(step=0.5), targets, direction=direction, **limits).tracks()
    assert list(tracks) == ["a", "b", "c"]
    for name, track in tracks.items():
        alone = run_session(StubEngine(step=0.5), {name: targets[name]}, direction=direction, **limits).tracks()[name]
        whole = np.arange(50)
        for ours, expected in zip(track.at(whole), alone.at(whole), strict=True):
            assert np.array_equal(ours, expected, equal_nan=True)


def test_a_session_processes_each_frame_once_per_direction() -> None:
    engine = StubEngine(answering={"car": {"x": range(50)}})
    targets = {"a": target("a", 5, 9), "b": target("b", 9, 12), "c": target("c", 30, 32)}
    run_session(engine, targets, [Phrase("car", 40)])
    assert engine.sessions == 1
    assert engine.frames == [*range(5, 50), *range(12, 4, -1), *range(32, 29, -1)]


def test_progress_counts_frames_of_the_video_though_some_are_processed_twice() -> None:
    prompts = [Prompt("a", frame, box=Box(10, 10, 20, 20)) for frame in (10, 30)]
    propagation = PropagationRun(50, {"a": intervals_between([10, 30], "forward")}, prompts)
    assert propagation.total == 40 + 21
    counts = [propagation.frame_counts() for _ in propagation.run(StubEngine(step=0), FakeVideo(50))]
    assert (counts[0], counts[-1]) == ((0, 40), (40, 40))
    assert counts == sorted(counts)


def test_prompts_are_given_frame_by_frame_and_phrases_last(monkeypatch: pytest.MonkeyPatch) -> None:
    prompted, prompt = [], StubSession.prompt

    def spy(self, prompts):
        prompted.append([getattr(one, "track", None) or one.text for one in prompts])
        return prompt(self, prompts)

    monkeypatch.setattr(StubSession, "prompt", spy)
    targets = {"a": target("a", 9, 20), "b": target("b", 2, 9)}
    phrases = [Phrase("car", 5), Phrase("dog", 1), Phrase("cat", 5)]
    run_session(StubEngine(answering={}), targets, phrases)
    assert prompted == [["b"], ["a", "b"], ["a"], ["dog"], ["car", "cat"]]


def test_intervals_that_touch_are_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    spans, propagate = [], StubSession.propagate

    def spy(self, span, reverse):
        spans.append(span)
        return propagate(self, span, reverse)

    monkeypatch.setattr(StubSession, "propagate", spy)
    run_session(StubEngine(), {"a": target("a", 0), "b": target("b", 4), "c": target("c", 9)}, max_frames=3)
    assert spans == [range(8), range(9, 13)]


def test_phrase_tracks_have_only_frames_of_the_phrases() -> None:
    answering = {"car": {"x": range(0, 20), "late": range(30, 50), "earlier": range(0, 5)}, "dog": {}}
    found = run_session(
        StubEngine(answering=answering), {"a": target("a", 2, 45)}, [Phrase("car", 10), Phrase("dog", 10)]
    )
    tracks = {name: frames_of(track) for name, track in found.tracks().items()}
    assert tracks == {"a": [*range(2, 50)], "x": [*range(10, 20)], "late": [*range(30, 50)]}
    assert {name: found.track_phrases[name] for name in ("x", "late")} == {"x": "car", "late": "car"}


def test_a_track_has_the_phrase_that_fits_better() -> None:
    answering = {"car": {"x": range(5)}, "truck": {"x": range(5, 50)}}
    found = run_session(StubEngine(answering=answering), phrases=[Phrase("car"), Phrase("truck")])
    assert found.track_phrases == {"x": "truck"}
    assert frames_of(found.tracks()["x"]) == [*range(50)]


def phrase_frames(found: PropagationRun) -> dict[str, list[int]]:
    return {name: frames_of(track) for name, track in found.tracks().items()}


def test_a_track_has_the_frames_of_all_phrases() -> None:
    engine = StubEngine(answering={"red car": {"x": range(50)}, "car": {}})
    found = run_session(engine, phrases=[Phrase("red car", 5), Phrase("car", 20)], max_frames=6)
    assert phrase_frames(found) == {"x": [*range(5, 12), *range(20, 27)]}
    engine.frames.clear()
    found = run_session(engine, phrases=[Phrase("red car", 5), Phrase("car", 8)], max_frames=6)
    assert phrase_frames(found) == {"x": [*range(5, 15)]}


def test_each_direction_has_the_frames_of_all_phrases() -> None:
    engine = StubEngine(answering={"red car": {"x": range(50)}, "car": {}})
    phrases = [Phrase("red car", 20), Phrase("car", 30)]
    found = run_session(engine, phrases=phrases, direction="both", max_frames=8)
    assert phrase_frames(found) == {"x": [*range(12, 29), *range(30, 39)]}
    engine = StubEngine(answering={"red car": {}, "car": {"y": range(50)}})
    targets = {"a": target("a", 0, 49)}  # leads the session through everything, both ways
    tracks = phrase_frames(run_session(engine, targets, phrases, direction="backward", max_frames=8))
    assert tracks == {"a": [*range(50)], "y": [*range(12, 21), *range(22, 31)]}


@pytest.mark.parametrize(("direction", "start", "changes"), [("forward", 5, 6), ("backward", 40, 35)])
def test_a_track_has_the_phrase_of_its_last_kept_frame(direction: str, start: int, changes: int) -> None:
    engine = StubEngine(answering={"car": {"x": range(changes)}, "truck": {"x": range(changes, 50)}})
    targets = {"a": target("a", 0, 49)}  # leads the session through everything, both ways
    found = run_session(engine, targets, [Phrase("car", start), Phrase("truck", start)], direction, max_frames=4)
    assert found.track_phrases == {"x": "truck"}


def test_a_name_reused_after_a_gap_is_another_object() -> None:
    answering = {"car": {"x": range(3, 50), "car 1": range(4, 6), "shown": range(50)}, "dog": {"car 2": range(20, 50)}}
    phrases = [Phrase("car"), Phrase("dog", 20), Phrase("cat", 40)]
    found = run_session(StubEngine(answering=answering), phrases=phrases, max_frames=8)
    gap, last = [*range(20, 29)], [*range(40, 49)]
    assert phrase_frames(found) == {
        "x": [*range(3, 9)],
        "car 1": [4, 5],
        "car 3": gap,
        "car 4": last,
        "shown": [*range(9), *gap, *last],
        "car 2": [*gap, *last],
    }
    assert found.track_phrases["car 3"] == "car"


@pytest.mark.parametrize(("again", "other"), [(20, 22), (22, 20)])
def test_a_new_name_is_not_the_sessions_name_of_another_object(again: int, other: int) -> None:
    answering = {"car": {"x": [3, *range(again, 50)], "car 1": range(other, 50)}}
    found = run_session(StubEngine(answering=answering), phrases=[Phrase("car"), Phrase("dog", 20)], max_frames=8)
    assert phrase_frames(found) == {"x": [3], "car 1": [*range(20, 29)], "car 2": [*range(22, 29)]}


@pytest.mark.parametrize("frames", [range(16, 25), [16, 24]])
def test_a_name_means_the_same_object_in_both_directions(frames: Sequence[int]) -> None:
    engine = StubEngine(answering={"car": {"x": frames}})
    found = run_session(engine, phrases=[Phrase("car", 20)], direction="both", max_frames=6)
    assert phrase_frames(found) == {"x": list(frames)}


def test_an_object_that_is_never_seen_has_no_track() -> None:
    propagation = PropagationRun(50, {}, [], [Phrase("car")])
    assert len(list(propagation.run(PassingObjects(10, ABSENT), FakeVideo(1)))) == 50
    assert propagation.tracks() == {}


def test_a_phrase_is_tracked_both_ways_up_to_max_frames() -> None:
    engine = StubEngine(answering={"car": {"x": range(50)}})
    (track,) = run_session(engine, phrases=[Phrase("car", 20)], direction="both", max_frames=6).tracks().values()
    assert frames_of(track) == [*range(14, 27)]


def test_processed_frames_of_prompts_and_phrases() -> None:
    prompts = [Prompt("a", 30, box=Box(10, 10, 20, 20))]
    limits = {"direction": "both", "max_frames": 10}
    both = PropagationRun(50, {"a": [Interval(None, 30)]}, prompts, [Phrase("car", 15)], **limits)
    found = []
    engine = StubEngine(answering={"car": {"car 1": range(13, 22)}})
    for frame in both.run(engine, FakeVideo(50)):
        if frame == 20:
            found.append(np.flatnonzero(both.processed_frames("car 1")).tolist())
    assert found[0] == [*range(15, 21)], "so far"
    assert np.flatnonzero(both.processed_frames("car 1")).tolist() == [*range(5, 26)]
    assert np.flatnonzero(both.processed_frames("a")).tolist() == [*range(20, 31)]


def test_masks_come_from_the_pass_that_started_nearer() -> None:
    engine = StubEngine(step=2, masks=True)
    targets = {"a": target("a", 0, 9)}
    assert run_session(StubEngine(masks=True), targets).tracks()["a"].masks == {}
    masks = run_session(engine, targets, span=range(0, 10), masks=True).tracks()["a"].masks
    lefts = [int(np.flatnonzero(masks[frame].to_mask().any(axis=0))[0]) for frame in range(10)]
    assert lefts == [10, 12, 14, 16, 18, 2, 4, 6, 8, 10]


def track_bytes(frames: range, length: int = 100_000, reverse: bool = False) -> int:
    """Bytes that one track takes that is seen on these frames of a long video."""
    tracemalloc.start()
    propagation = TrackBuffer(length, [Interval(None, length - 1) if reverse else Interval(0, None)])
    row = np.array([[1, 2, 3, 4, 0.5]], np.float32)
    for frame in reversed(frames) if reverse else frames:
        propagation.add(range(frame, frame + 1), row, reverse)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert frames_of(propagation.track()) == list(frames)
    return size


@pytest.mark.slow
@pytest.mark.parametrize("reverse", [False, True])
def test_a_short_track_of_a_long_video_takes_little_memory(reverse: bool) -> None:
    assert track_bytes(range(50_000, 50_100), reverse=reverse) < 100 * 64 + 4096
    assert track_bytes(range(20_000), reverse=reverse) < 20_000 * 24 + 4096


class PassingObjects:
    """A session of words, `life` frames of each object, one after the other; and its engine."""

    def __init__(self, life: int, seen: Observation) -> None:
        self.life, self.seen = life, seen

    def open(self, video: FakeVideo) -> "PassingObjects":
        return self

    def __enter__(self) -> "PassingObjects":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def prompt(self, prompts: list[Phrase]) -> FrameResult:
        return FrameResult(0, {})

    def propagate(self, span: range, reverse: bool) -> Iterator[FrameResult]:
        for frame in span:
            name = f"car {frame // self.life}"
            yield FrameResult(frame, {name: self.seen}, {name: "car"})


@pytest.mark.slow
def test_many_short_tracks_of_a_long_video_take_little_memory() -> None:
    length, life = 8_000, 200
    tracemalloc.start()
    propagation = PropagationRun(length, {}, [], [Phrase("car")])
    for _ in propagation.run(PassingObjects(life, Observation(Box(1, 2, 3, 4), 0.5)), FakeVideo(1)):
        pass
    tracemalloc.reset_peak()
    tracks = propagation.tracks()
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(tracks) == length // life
    assert all(len(frames_of(track)) == life for track in tracks.values())
    assert kept < 64 * length + 1024 * len(tracks)
    assert peak < kept + 64 * life + 4096  # no more than one track at a time is in the making
