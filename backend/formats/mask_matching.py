"""Match stored masks to exported boxes by overlap, since regions may be renamed, split, merged and corrected."""

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
"""A stored track: the job (the newest has the highest number), then pass and name, unique within the job."""

_MIN_IOU = 0.5
"""Minimum IoU of a box and a stored track's box for its mask to be used."""
_WINDOW = 25
"""Frames on either side over which the mean IoU is taken."""
_MIN_MEAN_IOU = 0.25
"""Minimum mean IoU over that window; below it, two objects only pass each other."""
_TIE = 0.05
"""Candidates whose mean IoU is within this of the best count as equal; the newest job wins."""


class MaskSource(Protocol):
    """Stored tracks of one task's video. Boxes are read first, so that only masks in use are loaded."""

    def boxes(self) -> Iterable[tuple[Key, Frames, Boxes]]:
        """Boxes of the masks: pixels, shape (n, 4), NaN for empty ones. A track may come in several parts."""
        ...

    def masks(self, keys: Collection[Key]) -> Iterable[tuple[Key, Mapping[int, Rle]]]:
        """Masks by frame, in parts, of at least these tracks."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class StoredTrack:
    """A stored track: n ascending frames, and boxes of shape (n, 4)."""

    job: int
    frames: Frames
    boxes: Boxes


def attach_masks(video: VideoTracks, source: MaskSource) -> VideoTracks:
    """The video's tracks with the masks that match their boxes; the video's size must be known."""
    keys, stored_tracks = _join_parts(source.boxes())
    owners: dict[Key, dict[int, int]] = {
        key: dict(zip(frames.tolist(), rows.tolist(), strict=True))
        for key, (frames, rows) in zip(keys, match_masks(video.tracks, stored_tracks), strict=True)
    }
    matched: defaultdict[int, dict[int, Rle]] = defaultdict(dict)
    for key, masks in source.masks([key for key, owner in owners.items() if owner]):
        owner = owners.get(key, {})
        for frame in owner.keys() & masks.keys():
            if masks[frame].area:
                matched[owner[frame]][frame] = masks[frame]
    tracks = [replace(track, masks=matched[row]) for row, track in enumerate(video.tracks)]
    return replace(video, tracks=tuple(tracks))


def mask_bounds(mask: Rle) -> tuple[float, float, float, float]:
    """The tight box of a mask, `x0 y0 x1 y1`; NaN if the mask is empty."""
    ends = np.cumsum(mask.counts, dtype=np.int64)
    starts, stops = ends[:-1:2], ends[1::2]
    starts, stops = starts[starts < stops], stops[starts < stops]
    if not len(starts):
        return (np.nan,) * 4
    first, last = starts // mask.height, (stops - 1) // mask.height
    if (first < last).any():  # a run that continues in the next column touches both edges
        top, bottom = 0, mask.height
    else:
        top, bottom = int((starts % mask.height).min()), int(((stops - 1) % mask.height).max()) + 1
    return float(first.min()), float(top), float(last.max()) + 1, float(bottom)


def _join_parts(parts: Iterable[tuple[Key, Frames, Boxes]]) -> tuple[list[Key], list[StoredTrack]]:
    """Join the parts of each track. Of two boxes on one frame, the later one counts."""
    listed: defaultdict[Key, list[tuple[Frames, Boxes]]] = defaultdict(list)
    for key, frames, boxes in parts:
        has_box = ~np.isnan(boxes[:, 0])
        if has_box.any():
            listed[key].append((frames[has_box], boxes[has_box]))
    stored_tracks = []
    for (job, _, _), pieces in listed.items():
        frames = np.concatenate([frames for frames, _ in pieces])[::-1]
        boxes = np.concatenate([boxes for _, boxes in pieces])[::-1]
        frames, places = np.unique(frames, return_index=True)
        stored_tracks.append(StoredTrack(job, frames, boxes[places]))
    return [*listed], stored_tracks


def match_masks(
    tracks: Sequence[ExportTrack], stored_tracks: Sequence[StoredTrack]
) -> list[tuple[Frames, NDArray[np.int64]]]:
    """For each stored track, the frames on which it matches an exported track, and the index of that track.

    On each frame the matching is one to one. It prefers the best mean IoU over the frames around, so that tracks do
    not swap masks where they cross.
    """
    track_bounds = np.array([_bounds(track) for track in tracks]).reshape(-1, 6)
    stored_bounds = np.array([_bounds(stored_track) for stored_track in stored_tracks]).reshape(-1, 6)
    pairs = [
        _pair(tracks[row], stored_tracks[column], row, column)
        for column, bounds in enumerate(stored_bounds)
        for row in np.flatnonzero((track_bounds < -bounds[_OPPOSITE]).all(1)).tolist()
    ]
    table = np.concatenate([np.empty((0, 4)), *pairs])
    frames, rows, columns = table[:, :3].astype(np.int64).T
    means, jobs = table[:, 3], np.array([stored_track.job for stored_track in stored_tracks], np.int64)
    order = np.lexsort((-means, -jobs[columns], _behind_best(means, frames, rows) > _TIE))
    matches = order[_one_to_one(frames[order], rows[order], columns[order])]
    matches = matches[np.lexsort((frames[matches], columns[matches]))]
    ends = np.searchsorted(columns[matches], np.arange(1, len(stored_tracks)))
    return [(frames[own], rows[own]) for own in np.split(matches, ends)][: len(stored_tracks)]


def _bounds(track: ExportTrack | StoredTrack) -> NDArray[np.float64]:
    """Bounds in time and in the picture, shape (6,): lower bounds, then negated upper bounds.

    Tracks a and b overlap where `a < -b[_OPPOSITE]`.
    """
    lower, upper = track.boxes[:, :2].min(0), track.boxes[:, 2:].max(0)
    return np.array([track.frames[0], *lower, -1 - track.frames[-1], *-upper], float)


_OPPOSITE = [3, 4, 5, 0, 1, 2]


def _pair(track: ExportTrack, stored_track: StoredTrack, row: int, column: int) -> NDArray[np.float64]:
    """Where a track matches a stored track; shape (n, 4): frame, both indices, mean IoU over the window."""
    shared = np.intersect1d(track.frames, stored_track.frames, assume_unique=True, return_indices=True)
    frames, track_rows, stored_rows = shared
    overlap = box_iou(track.boxes[track_rows], stored_track.boxes[stored_rows])
    means = _window_means(overlap)
    fits = (overlap >= _MIN_IOU) & (means >= _MIN_MEAN_IOU)
    places = np.broadcast_to([row, column], (int(fits.sum()), 2))
    return np.column_stack([frames[fits], places, means[fits]])


def _window_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moving average over the window; both shape (n,)."""
    sums, places = np.append(0.0, np.cumsum(values)), np.arange(len(values))
    first, stop = np.maximum(places - _WINDOW, 0), np.minimum(places + _WINDOW + 1, len(values))
    averages: NDArray[np.float64] = (sums[stop] - sums[first]) / (stop - first)
    return averages


def _behind_best(means: NDArray[np.float64], frames: Frames, rows: Frames) -> NDArray[np.float64]:
    """Each candidate's mean IoU below the best of its track on that frame; shape (n,)."""
    _, places = np.unique(frames * (rows.max(initial=0) + 1) + rows, return_inverse=True)
    best = np.zeros(len(means))
    np.maximum.at(best, places, means)
    difference: NDArray[np.float64] = best[places] - means
    return difference


def _one_to_one(frames: Frames, rows: Frames, columns: Frames) -> NDArray[np.int64]:
    """Greedy one-to-one matching per frame of candidates sorted best first; returns their indices."""
    left, matches = np.arange(len(frames)), [np.empty(0, np.int64)]
    width = max(rows.max(initial=0), columns.max(initial=0)) + 1
    track_keys, stored_keys = frames * width + rows, frames * width + columns
    while len(left):
        # Take the candidates that are the best for both tracks, then drop those that share a track with them.
        (_, first), (_, second) = (np.unique(side[left], return_index=True) for side in (track_keys, stored_keys))
        best = left[np.intersect1d(first, second, assume_unique=True)]
        matches.append(best)
        left = left[~(np.isin(track_keys[left], track_keys[best]) | np.isin(stored_keys[left], stored_keys[best]))]
    return np.concatenate(matches)
