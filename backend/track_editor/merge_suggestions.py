"""Tracks that may be one object: one begins soon after another ends, about where that would be, and looks alike."""

from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from backend.engines.opencv.appearance import Appearance, FrameImage, compute_similarity
from backend.errors import BackendError
from backend.labelstudio.keyframe import Keyframe, boxes_at, percent_corners
from backend.labelstudio.videos import FrameReader
from backend.track_editor.track_table import TrackRow, TrackTable
from backend.tracks.geometry import Boxes, box_iou

_SECONDS = 5.0
"""The longest gap."""
_MOTION = 8
"""Frames that say where a track is going."""
_OVERLAP, _ALONE = 0.15, 0.35
"""The least IoU of one track's end, moved on, with the other's beginning: where looks agree, and with no look."""
_LIKENESS = 0.45
"""The least similarity of looks, 0..1; things that differ are near 0."""
_LOOKED = 12
"""Pairs that are looked at in the video, the best by place: each costs two jumps in it, and a page waits."""


@dataclass(frozen=True, slots=True)
class MergeSuggestion:
    """Two tracks, the earlier one first.

    Attributes:
        gap: frames that show neither.
        overlap: IoU, 0..1.
        likeness: 0..1; None: nobody has looked.
    """

    tracks: tuple[int, int]
    gap: int
    overlap: float
    likeness: float | None = None

    def __str__(self) -> str:
        """The reasons, in words."""
        first, second = self.tracks
        when = f"{self.gap} frame{'s' * (self.gap != 1)} after" if self.gap else "right after"
        looks = "" if self.likeness is None else f", and looks alike ({self.likeness:.2f})"
        return f"{second} begins {when} {first} ends, where that would be (overlap {self.overlap:.2f}){looks}"


def suggest_merges(table: TrackTable, read: FrameReader | None = None) -> list[MergeSuggestion]:
    """What may be merged, the likeliest first; a track ends, and begins, in one of them at most.

    Args:
        read: gives pictures; None: only places tell. Where it fails, they do, too.
    """
    found = [one for a, b in permutations(table.rows, 2) if (one := _placed(a, b, table.rate))]
    found.sort(key=lambda one: -one.overlap)
    if read:
        with suppress(BackendError):  # the video cannot be had: places tell alone
            found = [_seen(one, table, read) for one in found[:_LOOKED]] + found[_LOOKED:]
    likely = [one for one in found if _is_likely(one)]
    likely.sort(key=lambda one: -(one.overlap + (one.likeness or 0.0)))
    chosen, ended, begun = list[MergeSuggestion](), set[int](), set[int]()
    for one in likely:
        first, second = one.tracks
        if first not in ended and second not in begun:
            chosen.append(one)
            ended.add(first)
            begun.add(second)
    return chosen


def _is_likely(one: MergeSuggestion) -> bool:
    if one.likeness is None:
        return one.overlap >= _ALONE
    return one.overlap >= _OVERLAP and one.likeness >= _LIKENESS


def _placed(a: TrackRow, b: TrackRow, rate: float) -> MergeSuggestion | None:
    """The two, if the second begins after the first ends, of the same class, and about there."""
    end, start = a.spans[-1][1], b.spans[0][0]
    gap = start - end - 1
    if a.label != b.label or not 0 <= gap <= _SECONDS * rate:
        return None
    before, after = _near(a, range(end - _MOTION, end + 1)), _near(b, range(start, start + _MOTION + 1))
    last, first = before[-1:], after[:1]
    # Where it would be by its own motion, where the other says that it came from, or just where it was.
    ends = np.concatenate([last, last + _step(before) * (gap + 1), last])
    starts = np.concatenate([first, first, first - _step(after) * (gap + 1)])
    overlap = float(box_iou(percent_corners(ends), percent_corners(starts)).max())
    return MergeSuggestion((a.number, b.number), gap, round(overlap, 4)) if overlap >= _OVERLAP else None


def _near(entry: TrackRow, frames: range) -> Boxes:
    boxes = boxes_at(entry.items, np.array(frames))
    return boxes[~np.isnan(boxes[:, 0])]


def _step(boxes: Boxes) -> Boxes:
    """How far it moves in a frame; shape (4,), its size does not change."""
    moved = (boxes[-1] - boxes[0]) / max(len(boxes) - 1, 1)
    return np.asarray([*moved[:2], 0.0, 0.0])


def _seen(one: MergeSuggestion, table: TrackTable, read: FrameReader) -> MergeSuggestion:
    """With how alike the end of the first and the beginning of the second look."""
    (a, b) = (table.row(number) for number in one.tracks)
    looks = [_look(entry, frame, read) for entry, frame in ((a, a.spans[-1][1]), (b, b.spans[0][0]))]
    return replace(one, likeness=round(compute_similarity(looks[0], looks[1:]), 4))


def _look(entry: TrackRow, frame: int, read: FrameReader) -> Appearance:
    """What the track's box shows on an LS frame."""
    picture = FrameImage(frame, read(frame))
    (row,) = boxes_at(entry.items, np.array([frame])).tolist()
    return picture.appearance(Keyframe(frame, True, *row).box(picture.width, picture.height))
