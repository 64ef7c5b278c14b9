"""From a track's boxes on every frame to a region's keyframes, and back to what the page shows of them."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from backend import presence
from backend.geometry import Boxes, iou
from backend.keyframes import Run, Way, choose, kept_bound, thin
from backend.labelstudio import sequence
from backend.labelstudio.clock import Clock
from backend.labelstudio.segments import Segment
from backend.labelstudio.sequence import Item
from backend.settings import KeyframeSettings, Settings
from backend.smoothing import smoothed
from backend.tracks import Track


@dataclass(frozen=True, slots=True)
class Made:
    """Keyframes of ours.

    Attributes:
        iou: the least IoU of what the page shows with what was tracked, of boxes that are not within the setting's
            `px`; None: all are as they were.
    """

    items: list[Item]
    iou: float | None = None


def keyframes(
    segments: Sequence[Segment],
    boxes: Callable[[Segment], Boxes],
    settings: Settings,
    size: tuple[int, int] | None = None,
    prompted: Collection[int] = (),
    way: Way = thin,
) -> Made:
    """All keyframes of ours in a region: those that are kept, and as few as the settings allow for what was tracked.

    Args:
        boxes: for a segment, shape (n, 4), percent `x y width height` rounded as sent, one row for each LS frame; NaN
            where the object is not there or was not looked for.
        size: width and height of the picture in pixels; None: nothing passes for being some pixels off.
        prompted: LS frames on which a person has shown the object.
        way: how keyframes are found for a bound.
    """
    items: list[Item] = []
    runs: list[_Run] = []
    for segment in segments:
        if segment.kept is not None:
            items += segment.kept
            continue
        rows = _rows(segment, boxes(segment), settings, prompted)
        items += [*_hidden(segment, rows), *segment.aside]
        runs += [_Run.of(segment, rows, span, settings.keyframes) for span in presence.spans(rows)]
    anchors = [item for segment in segments for item in (segment.before, segment.after) if item]
    given = len({item.frame for item in (*items, *anchors)}) - sum(run.anchors for run in runs)
    px = (settings.keyframes.px * 100 / size[0], settings.keyframes.px * 100 / size[1]) if size else (0.0, 0.0)
    tracks = [run.track for run in runs]
    chosen = choose(tracks, settings.keyframes, px, given, way)
    items += [item for run, rows in zip(runs, chosen, strict=True) for item in run.items(rows)]
    kept_to = [kept_bound(track, rows, px) for track, rows in zip(tracks, chosen, strict=True)]
    return Made(items, min(kept_to, default=None))


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive LS frames of a segment on which the object is there; human keyframes beside it are its ends.

    Attributes:
        first: the LS frame of the first row.
        ours: the rows that are no anchors.
        rows: shape (n, 4), what keyframes set, percent `x y width height`.
    """

    first: int
    ours: range
    rows: Boxes
    track: Run

    @classmethod
    def of(cls, segment: Segment, rows: Boxes, span: range, rule: KeyframeSettings) -> "_Run":
        boxes = rows[span.start : span.stop]
        corners = sequence.corners(boxes)
        keys = _steadied(boxes, rule.smooth, rule.iou) if rule.smooth else boxes
        ours = range(int(span.start == 0), len(span) - (span.stop == len(rows)))
        return cls(_before_first(segment) + span.start, ours, keys, Run(corners, sequence.corners(keys)))

    @property
    def anchors(self) -> int:
        """How many of its rows are keyframes already."""
        return len(self.rows) - len(self.ours)

    def items(self, chosen: Sequence[int]) -> list[Item]:
        """Keyframes of ours on these rows; the box is hidden after the last one, unless an anchor follows."""
        last = len(self.rows) - 1
        return [
            sequence.ours(Item(self.first + row, row != last, *self.rows[row].tolist()))
            for row in chosen
            if row in self.ours
        ]


def _steadied(boxes: Boxes, frames: int, bound: float) -> Boxes:
    """Boxes smoothed over some frames to either side, percent `x y width height` rounded as sent."""
    true = sequence.corners(boxes)
    moved = sequence.percent(smoothed(true, frames, bound), 100, 100)
    stays = iou(sequence.corners(moved), true) < bound  # by rounding
    stays[[0, -1]] = True  # a person's keyframe may be there, to all its digits
    moved[stays] = boxes[stays]
    return moved


def _before_first(segment: Segment) -> int:
    """The LS frame before a segment's first one."""
    return segment.before.frame if segment.before else 0


def _rows(segment: Segment, boxes: Boxes, settings: Settings, prompted: Collection[int]) -> Boxes:
    """A segment's boxes between its anchors, as they are to be shown: drop-outs bridged, ghosts gone."""
    before, after, count = segment.before, segment.after, len(boxes)
    rows = np.vstack([_anchor(before) if before and before.enabled else _NOTHING, boxes, _anchor(after)])
    human = {row for row, item in ((0, before), (count + 1, after)) if item and item.is_human}
    rows = presence.bridged(rows, settings.bridge_frames, human)
    first = _before_first(segment)
    outer = max(1, segment.within.first - first), min(count, segment.within.last - first)
    human |= {frame - first for frame in prompted}
    return presence.without_ghosts(rows, settings.min_track_frames, human, *outer)


def _hidden(segment: Segment, rows: Boxes) -> list[Item]:
    """A twin of an anchor on the next frame, where the object is not there: the anchor stays as the person set it."""
    before = segment.before
    is_followed = any(item.frame < segment.within.first for item in segment.aside)
    if not before or not before.enabled or len(rows) < 3 or not np.isnan(rows[1, 0]) or is_followed:
        return []
    return [sequence.ours(replace(before, frame=before.frame + 1, enabled=False))]


def sampled(segment: Segment, track: Track, clock: Clock, size: tuple[int, int], length: int) -> Boxes:
    """Rows for `keyframes`: every LS frame gets the box of the picture that it shows, whatever the two frame rates are.

    Args:
        track: in pixels of a picture of `size` = (width, height).
        length: how many LS frames there are.
    """
    frames = np.asarray(segment.frames(length))
    boxes, _ = track.at(clock.sources(frames))
    boxes[(frames < segment.within.first) | (frames > segment.within.last)] = np.nan
    return sequence.percent(boxes, *size)


def shown(segment: Segment, items: Sequence[Item], length: int) -> Boxes:
    """Rows for `keyframes`: what the page shows of these keyframes, as far as they are ours.

    Nothing after the last keyframe of ours, though the page may show a person's to the end of the video.
    """
    frames = np.asarray(segment.frames(length))
    ours = [item.frame for item in items if not item.is_human and item.frame in segment.frames(length)]
    if not ours:
        return np.full((len(frames), 4), np.nan)
    rows = sequence.at(items, frames)
    rows[frames > max(ours)] = np.nan
    return rows


_NOTHING = np.full((1, 4), np.nan)


def _anchor(item: Item | None) -> Boxes:
    """A human keyframe to interpolate with; none where it is rotated: Label Studio would turn our boxes with it."""
    if item is None or item.rotation:
        return _NOTHING
    return np.array([[item.x, item.y, item.width, item.height]], float)
