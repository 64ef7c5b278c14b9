from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backend.formats.mask_matching import StoredTrack, attach_masks, mask_bounds, match_masks
from backend.formats.video_tracks import ExportTrack, VideoTracks
from backend.tracks.geometry import box_iou
from backend.tracks.masks import Rle

FRAMES = 100


def moving(frames: range, x: float, step: float, y: float = 20.0) -> np.ndarray:
    """A box of 20 x 20 on each frame of a track that begins at `x`."""
    left = x + step * np.array(frames)
    return np.column_stack([left, np.full(len(left), y), left + 20, np.full(len(left), y + 20)])


def trace(number: int, frames: range, boxes: np.ndarray) -> ExportTrack:
    keys, each = np.arange(len(frames)), np.ones(len(frames), bool)
    return ExportTrack(number, "Car", None, np.array(frames), boxes, keys, each, each)


def kept(frames: range, boxes: np.ndarray, job: int = 1) -> StoredTrack:
    return StoredTrack(job, np.array(frames), boxes)


def owned(traces: list[ExportTrack], *tracks: StoredTrack) -> list[dict[int, int]]:
    """For each kept track the id of the trace that has it, by frame."""
    given = match_masks(traces, tracks)
    assert len(given) == len(tracks)
    ids = [one.id for one in traces]
    return [{frame: ids[row] for frame, row in zip(*map(np.ndarray.tolist, one), strict=True)} for one in given]


def everywhere(number: int, frames: range) -> dict[int, int]:
    return dict.fromkeys(frames, number)


ALL = range(FRAMES)


def test_two_that_cross_keep_their_masks_where_they_meet() -> None:
    right, left = moving(ALL, 0, 2), moving(ALL, 200, -2)
    traces = [trace(1, ALL, right), trace(2, ALL, left)]
    # Where they meet each kept box lies nearer to the other's.
    near = slice(49, 52)
    right, left = right.copy(), left.copy()
    right[near], left[near] = left[near].copy(), right[near].copy()
    assert box_iou(right[49], traces[0].boxes[49]) > 0.5
    assert owned(traces, kept(ALL, right), kept(ALL, left)) == [everywhere(1, ALL), everywhere(2, ALL)]


def test_a_region_that_is_gone_leaves_its_masks_to_nobody_who_passes_by() -> None:
    own, other = moving(ALL, 0, 2), moving(ALL, 200, -2)
    # Its own track is lost where the two meet, and a person has drawn on.
    seen = np.r_[0:45, 55:100]
    found = owned([trace(1, ALL, own)], StoredTrack(1, seen, own[seen]), kept(ALL, other, job=2))
    assert found == [dict.fromkeys(seen.tolist(), 1), {}]


def test_the_newest_job_counts_and_older_ones_fill_what_it_lacks() -> None:
    boxes, later = moving(ALL, 0, 1), range(40, 100)
    one = trace(1, ALL, boxes)
    slightly = boxes + 0.2  # fits as well, within a step
    assert owned([one], kept(ALL, boxes, job=3), kept(later, slightly[later.start :], job=4)) == [
        everywhere(1, range(40)),
        everywhere(1, later),
    ]


def test_a_track_that_was_corrected_is_not_the_older_job_s_where_that_drifted() -> None:
    new, later = moving(ALL, 0, 1), range(50, 100)
    old = new.copy()
    old[50:, [0, 2]] += 6  # it drifted, and fits still
    # People draw larger than what is seen; the newer job's boxes are smaller than the region's.
    drawn = new.copy()
    drawn[50:] += (-2, -2, 2, 2)
    found = owned([trace(1, ALL, drawn)], kept(ALL, old, job=1), kept(later, new[50:], job=2))
    assert found == [everywhere(1, range(50)), everywhere(1, later)]


def test_an_older_job_counts_where_the_newer_one_s_answer_was_taken_back() -> None:
    boxes = moving(ALL, 0, 1)
    away = moving(ALL, 4, 1)  # IoU 0.67
    assert owned([trace(1, ALL, boxes)], kept(ALL, boxes, job=1), kept(ALL, away, job=2)) == [everywhere(1, ALL), {}]


def test_a_corrected_box_that_no_mask_fits_has_none() -> None:
    boxes = moving(ALL, 0, 1)
    corrected = boxes.copy()
    corrected[30:33] += 6  # IoU 0.32
    (found,) = owned([trace(1, ALL, corrected)], kept(ALL, boxes))
    assert sorted(set(ALL) - found.keys()) == [30, 31, 32]


def test_regions_that_were_split_and_merged_have_the_masks_of_their_parts() -> None:
    high, low = moving(ALL, 0, 1, y=0), moving(ALL, 0, 1, y=60)
    first, second = range(50), range(50, 100)
    traces = [
        trace(1, ALL, np.concatenate([high[:50], low[50:]])),
        trace(2, second, high[50:]),
        trace(3, first, low[:50]),
    ]
    assert owned(traces, kept(ALL, high), kept(ALL, low)) == [
        everywhere(1, first) | everywhere(2, second),
        everywhere(3, first) | everywhere(1, second),
    ]


def test_a_mask_is_one_regions() -> None:
    boxes = moving(ALL, 0, 1)
    (found,) = owned([trace(1, ALL, boxes + 3), trace(2, ALL, boxes)], kept(ALL, boxes))
    assert found == everywhere(2, ALL)


def test_one_frame_alone_is_enough() -> None:
    at = range(60, 61)
    assert owned([trace(1, ALL, moving(ALL, 0, 1))], kept(at, moving(at, 0, 1))) == [everywhere(1, at)]


class Listed:
    """A source of parts: key, and masks by frame; boxes are tight."""

    def __init__(self, *parts: tuple[tuple[int, int, str], dict[int, Rle]]) -> None:
        self.parts = parts

    def boxes(self):
        for key, some in self.parts:
            yield key, np.array([*some]), np.array([mask_bounds(mask) for mask in some.values()])

    def masks(self, wanted):
        self.wanted = wanted
        yield from self.parts


def disc(x: float, y: float = 30, size: tuple[int, int] = (160, 60)) -> Rle:
    rows, columns = np.mgrid[: size[1], : size[0]]
    return Rle.from_mask((rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 < 100)


def film(*traces: ExportTrack) -> VideoTracks:
    return VideoTracks(7, "7-clip", FRAMES, 25, (160, 60), traces)


def test_a_clip_gets_the_masks_of_its_boxes() -> None:
    frames = range(10)
    masks = {frame: disc(20 + frame) for frame in frames}
    source = Listed(
        ((1, 0, "a"), {0: disc(100), 1: masks[1]}),
        ((1, 0, "a"), {0: masks[0]}),  # done again: what came last counts
        ((1, 0, "a"), {frame: masks[frame] for frame in range(2, 9)}),
        ((2, 0, "far"), {frame: disc(140) for frame in frames}),
    )
    (found,) = attach_masks(film(trace(4, frames, moving(frames, 10, 1))), source).tracks
    assert found.masks == {frame: masks[frame] for frame in range(9)}
    assert source.wanted == [(1, 0, "a")]
    (nothing,) = attach_masks(film(trace(4, frames, moving(frames, 10, 1))), Listed()).tracks
    assert nothing.masks == {}


def test_an_empty_mask_is_none() -> None:
    class Boxed(Listed):
        def boxes(self):
            yield (1, 0, "a"), np.arange(2), moving(range(2), 10, 1)

    source = Boxed(((1, 0, "a"), {0: disc(20), 1: Rle.from_mask(np.zeros((60, 160), bool))}))
    (found,) = attach_masks(film(trace(4, range(2), moving(range(2), 10, 1))), source).tracks
    assert [*found.masks] == [0]


@given(arrays(bool, (7, 9)))
def test_bounds_are_those_of_the_pixels(pixels: np.ndarray) -> None:
    found = mask_bounds(Rle.from_mask(pixels))
    if not pixels.any():
        assert np.isnan(found).all()
        return
    rows, columns = np.nonzero(pixels)
    assert found == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@st.composite
def walks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Frames and boxes of one thing that moves through the same narrow picture as all others."""
    first, length = draw(st.integers(0, 30)), draw(st.integers(1, 40))
    left = draw(st.floats(0, 60)) + draw(st.floats(-2, 2)) * np.arange(length)
    boxes = np.column_stack([left, np.zeros(length), left + draw(st.floats(5, 30)), np.full(length, 20.0)])
    return np.arange(first, first + length), boxes


@given(st.lists(walks(), min_size=1, max_size=5), st.lists(st.tuples(walks(), st.integers(1, 3)), max_size=5))
def test_no_mask_is_two_regions_and_none_is_far_from_its_box(things: list, others: list) -> None:
    """Whatever was drawn and kept; and what was kept of a region as it is drawn is never worse than nothing."""
    traces = [trace(number, frames, boxes) for number, (frames, boxes) in enumerate(things)]
    tracks = [StoredTrack(job, *walk) for walk, job in others] + [
        StoredTrack(9, one.frames, one.boxes) for one in traces
    ]
    given_ = match_masks(traces, tracks)
    taken: Counter = Counter()
    for track, (frames, rows) in zip(tracks, given_, strict=True):
        assert len({*frames.tolist()}) == len(frames)
        for frame, row in zip(frames.tolist(), rows.tolist(), strict=True):
            taken[frame, row] += 1
            (ours,) = traces[row].boxes[traces[row].frames == frame]
            (theirs,) = track.boxes[track.frames == frame]
            assert box_iou(ours, theirs) >= 0.5
    assert max(taken.values()) == 1
    assert taken.keys() == {(frame, row) for row, one in enumerate(traces) for frame in one.frames.tolist()}


@pytest.mark.parametrize(
    "nothing", [([], []), ([trace(1, ALL, moving(ALL, 0, 1))], []), ([], [kept(ALL, moving(ALL, 0, 1))])]
)
def test_nothing_is_nobodys(nothing: tuple[list[ExportTrack], list[StoredTrack]]) -> None:
    assert all(len(frames) == 0 for frames, _ in match_masks(*nothing))
