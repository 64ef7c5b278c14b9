"""Matches the tracks of two runs, so that an object keeps its region id and the number that people see."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from backend.errors import BadRequest
from backend.labelstudio.json_values import read_mappings
from backend.labelstudio.keyframe import Keyframe, boxes_at, percent_corners
from backend.labelstudio.region import TYPE, Region, parse_region
from backend.tracks.geometry import box_iou

SAME = 0.5
"""Minimum mean IoU, over the frames that show both tracks, for two tracks of the same object."""
_SHARE = 0.1
"""Minimum share of the shorter track's frames that show both tracks."""
_NAME_BONUS = 0.05
"""IoU bonus for each common name, which decides between tracks with about the same IoU."""
_MIN_FRAMES = 512
"""Minimum number of frames on which boxes are compared; all frames of shorter videos."""


@dataclass(frozen=True, slots=True)
class TrackShape:
    """A track's boxes on LS frames, in percent, and its names.

    Attributes:
        called: its phrase and its labels.
        is_tracked: false: it was drawn by hand, so only the boxes on its keyframes count, not those between them.
    """

    keyframes: Sequence[Keyframe]
    called: frozenset[str] = frozenset()
    is_tracked: bool = True

    @classmethod
    def from_region(cls, region: Region) -> Self:
        """The shape of a region."""
        phrase = region.meta.get("phrase")
        called = {*region.labels, *([phrase] if isinstance(phrase, str) else [])}
        return cls(region.keyframes, frozenset(called), region.is_tracked)


@dataclass(frozen=True, slots=True)
class TrackIdentity:
    """A track's region id and number; the id is None for a new track."""

    id: str | None
    number: int


def shape_overlaps(new: Sequence[TrackShape], old: Sequence[TrackShape]) -> NDArray[np.float64]:
    """Mean IoU of each pair of tracks of the same object, 0 for other pairs; shape (new, old)."""
    overlaps = np.zeros((len(new), len(old)))
    if not overlaps.size:
        return overlaps
    frames = _frames([*new, *old])
    boxes, weights = _shown(old, frames)
    counts = weights.sum(axis=1)
    for row, (box, weight) in enumerate(zip(*_shown(new, frames), strict=True)):
        there = weight > 0
        both = np.minimum(weights[:, there], weight[there])
        common = both.sum(axis=1)
        near = np.flatnonzero((common > 0) & (common >= _SHARE * np.minimum(counts, weight.sum())))
        ratios = np.nan_to_num(box_iou(box[there], boxes[near][:, there]))
        overlaps[row, near] = (ratios * both[near]).sum(axis=1) / common[near]
    return np.where(overlaps >= SAME, overlaps, 0.0)


def match_shapes(new: Mapping[str, TrackShape], old: Mapping[str, TrackShape]) -> dict[str, str]:
    """The old name of each new track that has one. Pairs with the largest overlap first; the order does not matter."""
    overlaps = shape_overlaps([*new.values()], [*old.values()])
    pairs = []
    for row, (name, shape) in enumerate(new.items()):
        for column, (earlier, other) in enumerate(old.items()):
            if overlap := overlaps[row, column]:
                nearness = overlap + _NAME_BONUS * len(shape.called & other.called)
                pairs.append((-nearness, _sort_key(shape), _sort_key(other), name, earlier))
    same: dict[str, str] = {}
    taken = set[str]()
    for _, _, _, name, earlier in sorted(pairs):
        if name not in same and earlier not in taken:
            same[name] = earlier
            taken.add(earlier)
    return same


def assign_identities(
    new: Mapping[str, TrackShape], known: Iterable[Sequence[Region]], numbers: Iterable[int] = ()
) -> dict[str, TrackIdentity]:
    """The ids and numbers of a run's tracks: those of the regions that they match, or new numbers.

    Args:
        known: the regions of earlier responses; earlier entries take precedence.
        numbers: further numbers that were ever used.
    """
    matches: dict[str, Region] = {}
    used = {0, *numbers}
    for earlier in known:
        used |= {region.track_id for region in earlier if region.track_id}
        ids = {region.id for region in matches.values()}
        taken = {region.track_id for region in matches.values()} - {None}
        free = {region.id: region for region in earlier if region.id not in ids and region.track_id not in taken}
        rest = {name: shape for name, shape in new.items() if name not in matches}
        same = match_shapes(rest, {name: TrackShape.from_region(region) for name, region in free.items()})
        matches |= {name: free[region_id] for name, region_id in same.items()}
    identities, assigned, last = dict[str, TrackIdentity](), set[int](), max(used)
    for name in sorted(new, key=lambda name: name not in matches):
        region = matches.get(name)
        number = region.track_id if region else None
        if number is None or number in assigned:
            last += 1
            number = last
        assigned.add(number)
        identities[name] = TrackIdentity(region.id if region else None, number)
    return identities


def read_shapes(results: object, video: str | None = None) -> list[Region]:
    """The valid regions among Label Studio's results, of one Video if it is named."""
    regions = []
    for result in read_mappings(results):
        if result.get("type") == TYPE:
            try:
                region = parse_region(result)
            except BadRequest:
                continue
            if video in (None, region.to_name):
                regions.append(region)
    return regions


def _frames(shapes: Sequence[TrackShape]) -> NDArray[np.int64]:
    """The frames to compare: evenly spaced, and those where a track starts, ends or was drawn, for short tracks."""
    first, last = (at(shape.keyframes[end].frame for shape in shapes) for at, end in ((min, 0), (max, -1)))
    frames = {*np.linspace(first, last, min(_MIN_FRAMES, last - first + 1)).round().astype(int).tolist()}
    for shape in shapes:
        ends = shape.keyframes[0], shape.keyframes[-1]
        frames |= {keyframe.frame for keyframe in (ends if shape.is_tracked else shape.keyframes)} | {ends[1].frame + 1}
    return np.array(sorted(frames))


def _shown(shapes: Sequence[TrackShape], frames: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners in percent, shape (tracks, frames, 4), and how many frames each box represents, 0 without a box."""
    spans = np.diff(frames, append=frames[-1] + 1).astype(float)
    boxes, weights = np.empty((len(shapes), len(frames), 4)), np.empty((len(shapes), len(frames)))
    for row, shape in enumerate(shapes):
        shown = boxes_at(shape.keyframes, frames)
        boxes[row] = percent_corners(shown)
        counts = spans if shape.is_tracked else 1.0 * np.isin(frames, [key.frame for key in shape.keyframes])
        weights[row] = np.where(np.isnan(shown[:, 0]), 0.0, counts)
    return boxes, weights


def _sort_key(shape: TrackShape) -> tuple[tuple[Any, ...], ...]:
    """Decides between tracks that are equally near to a third one."""
    return tuple((key.frame, key.x, key.y, key.width, key.height) for key in shape.keyframes)
