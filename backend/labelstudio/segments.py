"""The stretches of a region between a person's keyframes: which stay as they are, which are tracked, and with what."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from backend.geometry import Boxes
from backend.keyframes import thin
from backend.labelstudio import sequence
from backend.labelstudio.clock import Clock
from backend.labelstudio.regions import Region
from backend.labelstudio.sequence import Item
from backend.prompts import Direction
from backend.tracks import Track


@dataclass(frozen=True, slots=True)
class Segment:
    """The LS frames strictly between two neighbouring human keyframes, or before the first, or after the last.

    Attributes:
        kept: the keyframes of ours that stay as they are; None: they are made anew.
        goes: where they are made anew, whether the object is tracked there; if not, its box is hidden.
    """

    before: Item | None
    after: Item | None
    kept: tuple[Item, ...] | None = None
    goes: bool = True

    @property
    def is_tracked(self) -> bool:
        """There is something for an engine to do."""
        return self.kept is None and self.goes

    def frames(self, length: int) -> range:
        """LS frames of the segment in a video of `length` LS frames."""
        first = self.before.frame + 1 if self.before else 1
        return range(first, self.after.frame if self.after else length + 1)


def cut(region: Region, direction: Direction) -> tuple[Segment, ...]:
    """Cut a track at its human keyframes; what no correction touches is kept to the digit.

    Args:
        direction: where to go beyond the first and the last human keyframe. A side that was tracked before is
            tracked again when the keyframe beside it is corrected.
    """
    if not region.humans:
        return (Segment(None, None, region.items),)
    anchors, inside = (None, *region.humans, None), _ours_between(region)
    return tuple(
        _segment(region, before, after, ours, direction)
        for (before, after), ours in zip(pairwise(anchors), inside, strict=True)
    )


def between(humans: Sequence[Item]) -> list[Segment]:
    """All stretches of a track that is made anew around these keyframes."""
    return [Segment(before, after) for before, after in pairwise((None, *humans, None))]


def kept(segments: Sequence[Segment]) -> list[Item]:
    """The keyframes of ours that stay as they are."""
    return [item for segment in segments for item in segment.kept or ()]


def _ours_between(region: Region) -> list[tuple[Item, ...]]:
    """Our keyframes before the first human one, between every two of them, and after the last."""
    human = {item.frame for item in region.humans}
    inside: list[list[Item]] = [[]]
    for item in region.items:
        if item.frame in human:
            inside.append([])
        else:
            inside[-1].append(item)
    return [tuple(items) for items in inside]


def _segment(
    region: Region, before: Item | None, after: Item | None, inside: tuple[Item, ...], direction: Direction
) -> Segment:
    if before is not None and region.hides(before):
        return Segment(before, after, ())
    first, last = before.frame if before else 0, after.frame if after else sequence.LAST_FRAME
    touched = (
        not region.is_tracked
        or region.is_partial
        or (before is not None and before.is_corrected)
        or (after is not None and after.is_corrected and not after.is_toggled)
        or any(first < frame < last for frame in region.deleted)
    )
    if not touched:
        return Segment(before, after, inside)
    outer = "forward" if after is None else "backward" if before is None else direction
    if inside or direction in (outer, "both"):
        return Segment(before, after)
    # Label Studio shows nothing before a first keyframe, but a last one to the end of the video.
    return Segment(before, after, goes=False) if after is None else Segment(before, after, ())


def tracked(segment: Segment, boxes: Boxes, bound: float) -> list[Item]:
    """Our keyframes inside a segment, thinned, for boxes that were tracked there.

    Args:
        segment: where. Its own human keyframes are not among what is returned, but interpolation reaches to them.
        boxes: shape (n, 4), percent `x y width height` rounded as sent, one row for each LS frame of the segment; NaN
            where the object is not there or was not looked for.
        bound: the least IoU of every interpolated box with its own.
    """
    before, after, count = segment.before, segment.after, len(boxes)
    rows = np.vstack([_anchor(before) if before and before.enabled else _NOTHING, boxes, _anchor(after)])
    first = before.frame if before else 0
    items: list[Item] = []
    if before and before.enabled and count and np.isnan(rows[1, 0]):
        # It stays as the person set it, enabled; so the box is hidden by a twin on the next frame.
        items.append(replace(before, frame=first + 1, enabled=False))
    seen = np.flatnonzero(~np.isnan(rows[:, 0]))
    for run in np.split(seen, np.flatnonzero(np.diff(seen) > 1) + 1) if seen.size else ():
        corners = rows[run].copy()
        corners[:, 2:] += corners[:, :2]
        ours = [int(run[row]) for row in thin(corners, bound) if 1 <= run[row] <= count]
        items += [Item(first + row, bool(row != run[-1]), *rows[row].tolist()) for row in ours]
    return [sequence.ours(item) for item in items]


def keyframes(segments: Sequence[Segment], boxes: Callable[[Segment], Boxes], bound: float) -> list[Item]:
    """All keyframes of ours in a region: those that are kept, and the tracked ones of every other segment.

    Args:
        boxes: the rows of a segment, as for `tracked`.
        bound: the least IoU of every interpolated box with its own.
    """
    items: list[Item] = []
    for segment in segments:
        items += tracked(segment, boxes(segment), bound) if segment.kept is None else segment.kept
    return items


def sampled(segment: Segment, track: Track, clock: Clock, size: tuple[int, int], length: int) -> Boxes:
    """Rows for `tracked`: every LS frame gets the box of the picture that it shows, whatever the two frame rates are.

    Args:
        track: in pixels of a picture of `size` = (width, height).
        length: how many LS frames there are.
    """
    boxes, _ = track.at(clock.sources(segment.frames(length)))
    return sequence.percent(boxes, *size)


def shown(segment: Segment, items: Sequence[Item], length: int) -> Boxes:
    """Rows for `tracked`: what the page shows of these keyframes, as far as they are ours.

    Linear between keyframes, nothing after one with `enabled: false` (Label Studio 1.23.2: getShape, isInLifespan); and
    nothing after the last keyframe of ours, though the page may show a person's to the end of the video.
    """
    frames, at = np.asarray(segment.frames(length)), np.array([item.frame for item in items])
    rows = np.full((len(frames), 4), np.nan)
    ours = [item.frame for item in items if not item.is_human and item.frame in segment.frames(length)]
    if not ours:
        return rows
    corners = np.array([[item.x, item.y, item.width, item.height] for item in items], float)
    last = np.searchsorted(at, frames, side="right") - 1
    enabled = np.array([item.enabled for item in items])
    there = (last >= 0) & (enabled[last] | (at[last] == frames)) & (frames <= max(ours))
    for axis in range(4):
        rows[there, axis] = np.interp(frames[there], at, corners[:, axis])
    return np.round(rows, 4)


_NOTHING = np.full((1, 4), np.nan)


def _anchor(item: Item | None) -> Boxes:
    """A human keyframe to interpolate with; none where it is rotated: Label Studio would turn our boxes with it."""
    if item is None or item.rotation:
        return _NOTHING
    return np.array([[item.x, item.y, item.width, item.height]], float)
