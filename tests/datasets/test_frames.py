from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.datasets.frames import choose_frames, filter_tracks
from backend.datasets.options import DatasetOptions
from backend.errors import SettingsError
from tests.formats.made import CAR, FRAMES, OTHER, SIZE, clip, several, traced

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
