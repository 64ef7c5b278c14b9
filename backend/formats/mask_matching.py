"""Which kept mask belongs to which box: by where they are, for regions are renamed, split, merged and corrected."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backend.formats.video_tracks import ExportTrack, Frames, VideoTracks
from backend.tracks.geometry import Boxes, box_iou
from backend.tracks.masks import Rle

Key = tuple[int, int, str]
"""A kept track: of several jobs the newest has the highest first number; way and name tell it from the job's others."""

_LEAST = 0.5
"""IoU of a box and a kept track's, from which on its mask is the box's."""
_NEAR = 25
"""Frames to either side on which two have to go together, too."""
_PASSING = 0.25
"""Mean IoU over those below which two only pass by each other."""
_ALIKE = 0.05
"""What fits a region so much less than the best, by that mean, fits as well; the newest job counts then."""


class MaskSource(Protocol):
    """What was kept of one task's video; boxes are read first, so that no mask is held that nothing shows."""

    def boxes(self) -> Iterable[tuple[Key, Frames, Boxes]]:
        """Where there are masks: pixels, shape (n, 4), NaN where nothing is; a track may come in many parts."""
        ...

    def masks(self, wanted: Collection[Key]) -> Iterable[tuple[Key, Mapping[int, Rle]]]:
        """By frame; these tracks, or more of them, in parts."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class StoredTrack:
    """One kept track: on n frames, ascending, its boxes of shape (n, 4)."""

    job: int
    frames: Frames
    boxes: Boxes


def attach_masks(clip: VideoTracks, source: MaskSource) -> VideoTracks:
    """The clip with the masks that fit its boxes; its size is known."""
    keys, tracks = _joined(source.boxes())
    owners: dict[Key, dict[int, int]] = {
        key: dict(zip(frames.tolist(), rows.tolist(), strict=True))
        for key, (frames, rows) in zip(keys, match_masks(clip.tracks, tracks), strict=True)
    }
    found: defaultdict[int, dict[int, Rle]] = defaultdict(dict)
    for key, masks in source.masks([key for key, owner in owners.items() if owner]):
        owner = owners.get(key, {})
        for frame in owner.keys() & masks.keys():
            if masks[frame].area:
                found[owner[frame]][frame] = masks[frame]
    traces = [replace(trace, masks=found[row]) for row, trace in enumerate(clip.tracks)]
    return replace(clip, tracks=tuple(traces))


def mask_bounds(mask: Rle) -> tuple[float, float, float, float]:
    """The tight box of a mask, `x0 y0 x1 y1`; NaN where it is empty."""
    ends = np.cumsum(mask.counts, dtype=np.int64)
    starts, stops = ends[:-1:2], ends[1::2]
    starts, stops = starts[starts < stops], stops[starts < stops]
    if not len(starts):
        return (np.nan,) * 4
    first, last = starts // mask.height, (stops - 1) // mask.height
    if (first < last).any():  # a run that goes on in the next column touches the lower and the upper edge
        top, bottom = 0, mask.height
    else:
        top, bottom = int((starts % mask.height).min()), int(((stops - 1) % mask.height).max()) + 1
    return float(first.min()), float(top), float(last.max()) + 1, float(bottom)


def _joined(parts: Iterable[tuple[Key, Frames, Boxes]]) -> tuple[list[Key], list[StoredTrack]]:
    """Whole tracks; on a frame that came twice what came last counts."""
    listed: defaultdict[Key, list[tuple[Frames, Boxes]]] = defaultdict(list)
    for key, frames, boxes in parts:
        there = ~np.isnan(boxes[:, 0])
        if there.any():
            listed[key].append((frames[there], boxes[there]))
    tracks = []
    for (job, _, _), some in listed.items():
        frames = np.concatenate([frames for frames, _ in some])[::-1]
        boxes = np.concatenate([boxes for _, boxes in some])[::-1]
        frames, places = np.unique(frames, return_index=True)
        tracks.append(StoredTrack(job, frames, boxes[places]))
    return [*listed], tracks


def match_masks(traces: Sequence[ExportTrack], tracks: Sequence[StoredTrack]) -> list[tuple[Frames, NDArray[np.int64]]]:
    """For each kept track the frames on which it is some trace's, and the place of that trace.

    On one frame it is one trace's at most, and a trace has one of them at most. It has the one that goes with it best
    on the frames around, so that two which cross do not change over where they meet.
    """
    ours, theirs = (np.array([_reach(one) for one in some]).reshape(-1, 6) for some in (traces, tracks))
    pairs = [
        _pair(traces[row], tracks[column], row, column)
        for column, reach in enumerate(theirs)
        for row in np.flatnonzero((ours < -reach[_TURNED]).all(1)).tolist()
    ]
    table = np.concatenate([np.empty((0, 4)), *pairs])
    frames, rows, columns = table[:, :3].astype(np.int64).T
    near, jobs = table[:, 3], np.array([track.job for track in tracks], np.int64)
    order = np.lexsort((-near, -jobs[columns], _behind(near, frames, rows) > _ALIKE))
    chosen = order[_one_to_one(frames[order], rows[order], columns[order])]
    chosen = chosen[np.lexsort((frames[chosen], columns[chosen]))]
    ends = np.searchsorted(columns[chosen], np.arange(1, len(tracks)))
    return [(frames[own], rows[own]) for own in np.split(chosen, ends)][: len(tracks)]


def _reach(one: ExportTrack | StoredTrack) -> NDArray[np.float64]:
    """The stretch of time and the part of the picture that it is in, shape (6,): lower ends, and upper ones negated.

    So two meet where each is less than the negated turned other.
    """
    lower, upper = one.boxes[:, :2].min(0), one.boxes[:, 2:].max(0)
    return np.array([one.frames[0], *lower, -1 - one.frames[-1], *-upper], float)


_TURNED = [3, 4, 5, 0, 1, 2]


def _pair(trace: ExportTrack, track: StoredTrack, row: int, column: int) -> NDArray[np.float64]:
    """Where a trace and a kept track fit: shape (n, 4), frame, both places, and the mean IoU around."""
    frames, ours, theirs = np.intersect1d(trace.frames, track.frames, assume_unique=True, return_indices=True)
    overlap = box_iou(trace.boxes[ours], track.boxes[theirs])
    near = _around(overlap)
    fits = (overlap >= _LEAST) & (near >= _PASSING)
    places = np.broadcast_to([row, column], (int(fits.sum()), 2))
    return np.column_stack([frames[fits], places, near[fits]])


def _around(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each and those near it; shape (n,) both."""
    sums, places = np.append(0.0, np.cumsum(values)), np.arange(len(values))
    first, stop = np.maximum(places - _NEAR, 0), np.minimum(places + _NEAR + 1, len(values))
    means: NDArray[np.float64] = (sums[stop] - sums[first]) / (stop - first)
    return means


def _behind(near: NDArray[np.float64], frames: Frames, rows: Frames) -> NDArray[np.float64]:
    """How much less each candidate fits than the best one of its trace on its frame; shape (n,)."""
    _, places = np.unique(frames * (rows.max(initial=0) + 1) + rows, return_inverse=True)
    best = np.zeros(len(near))
    np.maximum.at(best, places, near)
    less: NDArray[np.float64] = best[places] - near
    return less


def _one_to_one(frames: Frames, rows: Frames, columns: Frames) -> NDArray[np.int64]:
    """Of candidates, best first, those that nothing better on the same frame has taken a side of; their places."""
    left, chosen = np.arange(len(frames)), [np.empty(0, np.int64)]
    wide = max(rows.max(initial=0), columns.max(initial=0)) + 1
    ours, theirs = frames * wide + rows, frames * wide + columns
    while len(left):
        # What is the best of both its sides stays; then what has lost a side to it goes.
        (_, first), (_, second) = (np.unique(side[left], return_index=True) for side in (ours, theirs))
        best = left[np.intersect1d(first, second, assume_unique=True)]
        chosen.append(best)
        left = left[~(np.isin(ours[left], ours[best]) | np.isin(theirs[left], theirs[best]))]
    return np.concatenate(chosen)
