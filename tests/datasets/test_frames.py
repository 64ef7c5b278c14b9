from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.datasets.frames import choose_frames, filter_tracks
from backend.datasets.options import DatasetOptions
from backend.errors import SettingsError
from backend.labelstudio.keyframe import mark_as_ours, parse_keyframes
from backend.tracks.geometry import box_iou
from tests.formats.made import CAR, FRAMES, OTHER, SIZE, clip, several, traced
from tests.labelstudio.bodies import drawn, keyframe

TIMES = np.arange(FRAMES) / 25


@given(several, st.integers(1, 40), st.sampled_from([(), ("Car",), ("Car", "Person")]))
def test_boxes_are_clipped_and_small_ones_and_other_labels_left_out(
    regions: list[dict], size: int, labels: tuple[str, ...]
) -> None:
    video = clip(*regions)
    filtered = filter_tracks(video, DatasetOptions(labels=labels, min_size=size))
    kept = dict(zip((track.id for track in filtered.tracks), traced(filtered), strict=True))
    for track, boxes in zip(video.tracks, traced(video), strict=True):
        expected = {}
        for frame, box in boxes.items():
            x0, y0, x1, y1 = np.clip(box, 0, [*SIZE, *SIZE])
            if min(x1 - x0, y1 - y0) >= size and (not labels or track.label in labels):
                expected[frame] = [x0, y0, x1, y1]
        assert kept.get(track.id, {}) == expected
    for track in filtered.tracks:
        assert len(track.keys) == len(track.enabled) == len(track.human)
        assert (track.frames[track.keys] == np.sort(track.frames[track.keys])).all()


def test_scores_leave_tracks_out() -> None:
    video = clip(CAR, {**OTHER, "score": 0.4})
    assert [track.id for track in filter_tracks(video, DatasetOptions(min_score=0.5)).tracks] == [3]


@given(st.sampled_from(["annotated", "all", "none"]), st.integers(1, 9), st.none() | st.integers(1, 30), st.booleans())
def test_frames_are_chosen(pictures: str, every: int, most: int | None, is_rate: bool) -> None:
    video = clip(CAR, OTHER)
    given = {"rate": 25 / every} if is_rate else {"every": every}
    frames = choose_frames(video, TIMES, DatasetOptions(pictures=pictures, max_pictures=most, **given)).tolist()
    annotated = {frame for boxes in traced(video) for frame in boxes}
    allowed = [frame for frame in range(0, FRAMES, every) if pictures != "annotated" or frame in annotated]
    assert frames == sorted(set(frames))
    assert set(frames) <= set(allowed)
    assert len(frames) == min(len(allowed), most or len(allowed))


def test_a_rate_counts_seconds_where_frames_do_not_come_evenly() -> None:
    video, times = clip(CAR), np.cumsum(np.r_[0, np.tile([0.1, 0.4], 50)])[:FRAMES]
    frames = choose_frames(video, times, DatasetOptions(pictures="all", rate=2))
    assert frames.tolist() == list(range(0, FRAMES, 2))


def test_every_and_rate_exclude_each_other() -> None:
    with pytest.raises(SettingsError, match="--every and --rate exclude each other"):
        DatasetOptions(every=2, rate=3)
    assert replace(DatasetOptions(), every=1, rate=3).rate == 3


def test_distinct_frames_are_those_on_which_something_moved_or_changed() -> None:
    # It moves slowly, is gone from frame 50 on, and stands from frame 69 on.
    video = clip(drawn(keyframe(1, 10), keyframe(50, 25, enabled=False), keyframe(70, 20)))
    frames = choose_frames(video, TIMES, DatasetOptions(distinct=True)).tolist()
    (boxes,) = traced(video)
    for before, after in pairwise(frames):
        assert box_iou(np.array(boxes[before]), np.array(boxes[after])) < 0.9 or after == 69
        assert all(
            box_iou(np.array(boxes[before]), np.array(boxes[mid])) >= 0.9
            for mid in range(before + 1, after)
            if mid in boxes
        )
    assert frames[0] == 0
    assert frames[-1] == 69
    assert 15 < len(frames) < 40
    empty = choose_frames(video, TIMES, DatasetOptions(distinct=True, pictures="all")).tolist()
    assert empty == sorted([*frames, 50])


@given(several, st.sampled_from([10.0, 50.0, 90.0]), st.integers(1, 5))
def test_background_is_a_share_of_frames_on_which_nothing_is(regions: list[dict], share: float, every: int) -> None:
    video = clip(*regions)
    options = DatasetOptions(background=share, every=every, min_size=60, labels=("Car", "Person"))
    frames = {*choose_frames(video, TIMES, options).tolist()}
    shown = {*choose_frames(video, TIMES, replace(options, background=0)).tolist()}
    wanted = [track for track in video.tracks if track.label in options.labels]
    seen = {
        frame
        for track in filter_tracks(replace(video, tracks=tuple(wanted)), DatasetOptions()).tracks
        for frame in track.frames.tolist()
    }
    empty = {*range(0, FRAMES, every)} - seen
    assert frames - shown <= empty
    assert len(frames) == len(shown) + min(len(empty), round(len(shown) * share / (100 - share)))


@given(several, st.integers(0, 30))
def test_checked_frames_are_near_a_persons_keyframe(regions: list[dict], distance: int) -> None:
    keys = [parse_keyframes(region["value"]["sequence"]) for region in regions]
    ours = [one.seal().to_unchanged_json(25) for one in map(mark_as_ours, keys[0])]
    regions = [{**regions[0], "value": {**regions[0]["value"], "sequence": ours}}, *regions[1:]]
    frames = choose_frames(clip(*regions), TIMES, DatasetOptions(checked=distance, pictures="all")).tolist()
    human = [key.frame - 1 for group in keys[1:] for key in group]
    assert frames == [frame for frame in range(FRAMES) if any(abs(frame - other) <= distance for other in human)]


def test_background_needs_annotated_pictures() -> None:
    with pytest.raises(SettingsError, match="--background adds frames to --pictures annotated"):
        DatasetOptions(background=10, pictures="all")
