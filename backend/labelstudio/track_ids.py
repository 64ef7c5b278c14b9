"""Which tracks of two runs are of one object: it keeps its region id, and the number that people see."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from backend.errors import BadRequest
from backend.labelstudio.keyframe import Keyframe, boxes_at, percent_corners
from backend.labelstudio.region import TYPE, Region, parse_region
from backend.tracks.geometry import box_iou

SAME = 0.5
"""Mean IoU, over the frames where both show, from which on two tracks are of one object."""
_SHARE = 0.1
"""At least so much of the frames of the shorter one both have to show."""
_CALLED = 0.05
"""What a name in common counts for, in IoU: of two tracks that are about as near, the one of the same name is it."""
_LOOKS = 512
"""Frames at which boxes are compared, at least, where there are so many."""


@dataclass(frozen=True, slots=True)
class TrackShape:
    """What a track looks like, on LS frames and in percent.

    Attributes:
        called: its phrase and its labels.
        is_tracked: false: it was drawn by hand and shows where it was drawn; what the page shows between is no track.
    """

    items: Sequence[Keyframe]
    called: frozenset[str] = frozenset()
    is_tracked: bool = True

    @classmethod
    def from_region(cls, region: Region) -> Self:
        """A region's."""
        phrase = region.meta.get("phrase")
        called = {*region.labels, *([phrase] if isinstance(phrase, str) else [])}
        return cls(region.keyframes, frozenset(called), region.is_tracked)


@dataclass(frozen=True, slots=True)
class TrackIdentity:
    """What a track is known by; `id` is None where it is new."""

    id: str | None
    number: int


def shape_overlaps(new: Sequence[TrackShape], old: Sequence[TrackShape]) -> NDArray[np.float64]:
    """Mean IoU of each pair that is of one object, 0 of the others; shape (new, old)."""
    found = np.zeros((len(new), len(old)))
    if not found.size:
        return found
    frames = _frames([*new, *old])
    boxes, weights = _shown(old, frames)
    counts = weights.sum(axis=1)
    for row, (box, weight) in enumerate(zip(*_shown(new, frames), strict=True)):
        there = weight > 0
        both = np.minimum(weights[:, there], weight[there])
        common = both.sum(axis=1)
        near = np.flatnonzero((common > 0) & (common >= _SHARE * np.minimum(counts, weight.sum())))
        ratios = np.nan_to_num(box_iou(box[there], boxes[near][:, there]))
        found[row, near] = (ratios * both[near]).sum(axis=1) / common[near]
    return np.where(found >= SAME, found, 0.0)


def match_shapes(new: Mapping[str, TrackShape], old: Mapping[str, TrackShape]) -> dict[str, str]:
    """The old name of each new track that is known, one to one, the nearest first; whatever order they come in."""
    found = shape_overlaps([*new.values()], [*old.values()])
    pairs = []
    for row, (name, one) in enumerate(new.items()):
        for column, (earlier, other) in enumerate(old.items()):
            if overlap := found[row, column]:
                nearness = overlap + _CALLED * len(one.called & other.called)
                pairs.append((-nearness, _looks(one), _looks(other), name, earlier))
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
    """What the tracks of a run are known by: those that are there already as they were, the others by new numbers.

    Args:
        known: the regions of earlier answers; what the first of them has, the others do not give once more.
        numbers: that were ever used beside these.
    """
    kept: dict[str, Region] = {}
    used = {0, *numbers}
    for earlier in known:
        used |= {region.track_id for region in earlier if region.track_id}
        taken = {region.id for region in kept.values()}, {region.track_id for region in kept.values()} - {None}
        free = {one.id: one for one in earlier if one.id not in taken[0] and one.track_id not in taken[1]}
        rest = {name: one for name, one in new.items() if name not in kept}
        same = match_shapes(rest, {name: TrackShape.from_region(region) for name, region in free.items()})
        kept |= {name: free[region] for name, region in same.items()}
    found, given, last = dict[str, TrackIdentity](), set[int](), max(used)
    for name in sorted(new, key=lambda name: name not in kept):
        region = kept.get(name)
        number = region.track_id if region else None
        if number is None or number in given:
            last += 1
            number = last
        given.add(number)
        found[name] = TrackIdentity(region.id if region else None, number)
    return found


def read_shapes(results: object, video: str | None = None) -> list[Region]:
    """The regions among results of Label Studio's that can be read; on one Video, where it is named."""
    found = []
    for result in results if isinstance(results, list) else []:
        if isinstance(result, Mapping) and result.get("type") == TYPE:
            try:
                region = parse_region(result)
            except BadRequest:
                continue
            if video in (None, region.to_name):
                found.append(region)
    return found


def _frames(sights: Sequence[TrackShape]) -> NDArray[np.int64]:
    """Where to look: evenly, and where a track begins, ends or was drawn, so that none is too short to be seen."""
    first, last = (at(one.items[end].frame for one in sights) for at, end in ((min, 0), (max, -1)))
    places = {*np.linspace(first, last, min(_LOOKS, last - first + 1)).round().astype(int).tolist()}
    for one in sights:
        ends = one.items[0], one.items[-1]
        places |= {item.frame for item in (ends if one.is_tracked else one.items)} | {ends[1].frame + 1}
    return np.array(sorted(places))


def _shown(sights: Sequence[TrackShape], frames: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners in percent, shape (tracks, frames, 4), and for how many frames each stands, 0 where there is none."""
    spans = np.diff(frames, append=frames[-1] + 1).astype(float)
    boxes, weights = np.empty((len(sights), len(frames), 4)), np.empty((len(sights), len(frames)))
    for row, one in enumerate(sights):
        shown = boxes_at(one.items, frames)
        boxes[row] = percent_corners(shown)
        at = 1.0 * np.isin(frames, [item.frame for item in one.items]) if not one.is_tracked else spans
        weights[row] = np.where(np.isnan(shown[:, 0]), 0.0, at)
    return boxes, weights


def _looks(one: TrackShape) -> tuple[tuple[Any, ...], ...]:
    """Two tracks that are equally near to a third are told apart by what they look like."""
    return tuple((item.frame, item.x, item.y, item.width, item.height) for item in one.items)
