"""Frames of a task that are worth a look, worst first: low scores, jumps in size, gaps, two tracks on one object."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from backend.labelstudio.keyframe import percent_corners
from backend.tracks.geometry import Boxes, box_iou

MAX_ENTRIES = 500
_LOW_SCORE, _LOW_SHARE = 0.5, 0.7
"""A score is low below this, and below this share of the track's median."""
_JUMP = 1.5
"""So many times as large, or as small, a box is on the next frame of a jump."""
_LEAST_AREA = 1e-8
"""Of a box, in percent of width times percent of height."""
_SAME = 0.7
"""From this IoU on two boxes are on one object."""
_LONG_GAP = 50
"""Frames from which on a gap counts fully."""
_MAX_PAIRED_BOXES = 20_000_000
"""Of all pairs of tracks; with more, only some frames are compared."""


@dataclass(frozen=True, slots=True)
class ReviewedTrack:
    """A track on every LS frame of a video.

    Attributes:
        boxes: shape (n, 4), percent `x y width height`; NaN where it has none.
        scores: shape (n,); NaN where it has none.
    """

    id: str
    name: str
    boxes: Boxes
    scores: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ReviewEntry:
    """A frame that is worth a look.

    Attributes:
        frame: the LS frame.
        kind: score, size, gap or same.
        ids: of the track, or of both.
        what: what is to be looked at, in words.
        severity: 0..1.
    """

    frame: int
    kind: str
    ids: tuple[str, ...]
    what: str
    severity: float


def find_entries(tracks: Sequence[ReviewedTrack]) -> list[ReviewEntry]:
    """What is worth a look, worst first; at most `MAX_ENTRIES`."""
    entries = [entry for track in tracks for find in (_low_scores, _jumps, _gaps) for entry in find(track)]
    entries += _doubles(tracks)
    return sorted(entries, key=lambda entry: (-entry.severity, entry.frame))[:MAX_ENTRIES]


def _low_scores(track: ReviewedTrack) -> Iterator[ReviewEntry]:
    """The lowest frame of each part with low scores."""
    if np.isnan(track.scores).all():
        return
    usual = float(np.nanmedian(track.scores))
    for first, stop in _runs(track.scores < max(_LOW_SCORE, usual * _LOW_SHARE)):
        place = first + int(np.argmin(track.scores[first:stop]))
        score = float(track.scores[place])
        yield ReviewEntry(place + 1, "score", (track.id,), f"{track.name}: score {score:.2f}", 1 - score)


def _jumps(track: ReviewedTrack) -> Iterator[ReviewEntry]:
    areas = np.maximum(track.boxes[:, 2] * track.boxes[:, 3], _LEAST_AREA)
    ratios = np.maximum(areas[1:] / areas[:-1], areas[:-1] / areas[1:])
    for place in np.flatnonzero(ratios >= _JUMP).tolist():
        ratio = float(ratios[place])
        text = f"{track.name}: size changes {ratio:.1f} times"
        yield ReviewEntry(place + 2, "size", (track.id,), text, min(1.0, 1 - 1 / ratio))


def _gaps(track: ReviewedTrack) -> Iterator[ReviewEntry]:
    """The first frame of each part without a box between two with one."""
    seen = np.flatnonzero(~np.isnan(track.boxes[:, 0]))
    for place in np.flatnonzero(np.diff(seen) > 1).tolist():
        frames = int(seen[place + 1] - seen[place]) - 1
        text = f"{track.name}: not seen for {frames} frame{'s' if frames > 1 else ''}"
        yield ReviewEntry(int(seen[place]) + 2, "gap", (track.id,), text, 0.2 + 0.5 * min(1.0, frames / _LONG_GAP))


def _doubles(tracks: Sequence[ReviewedTrack]) -> Iterator[ReviewEntry]:
    """The first frame of each part on which two tracks have nearly the same box."""
    pairs = list(combinations(tracks, 2))
    if not pairs:
        return
    length = len(tracks[0].boxes)
    places = np.arange(0, length, max(1, -(-len(pairs) * length // _MAX_PAIRED_BOXES)))
    corners = {id(track): percent_corners(track.boxes[places]) for track in tracks}
    for one, other in pairs:
        with np.errstate(invalid="ignore"):
            ious = box_iou(corners[id(one)], corners[id(other)])
        for first, stop in _runs(ious >= _SAME):
            best = float(np.max(ious[first:stop]))
            text = f"{one.name} and {other.name}: on the same object"
            yield ReviewEntry(int(places[first]) + 1, "same", (one.id, other.id), text, best)


def _runs(mask: NDArray[np.bool_]) -> list[list[int]]:
    """The first and the one after the last place of each part that is true."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return edges.reshape(-1, 2).tolist()
