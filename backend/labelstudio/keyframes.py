"""From a track's boxes on every frame to a region's keyframes, and back to what the page shows of them."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backend.labelstudio.keyframe import Keyframe, boxes_at, boxes_to_percent, mark_as_ours, percent_corners
from backend.labelstudio.segments import Segment
from backend.settings import KeyframeSettings, Settings
from backend.tracks import gaps
from backend.tracks.gaps import IsTracked
from backend.tracks.geometry import Boxes, box_iou
from backend.tracks.keyframe_selection import MAX_CHECKS, MAX_CHECKS_UNFINISHED, BoxRun, min_kept_iou, select_keyframes
from backend.tracks.smoothing import smooth_boxes
from backend.tracks.track import Track
from backend.video.frame_clock import FrameClock


class SampledTrack(NamedTuple):
    """What is known of a segment, a row for each of its LS frames.

    Attributes:
        boxes: shape (n, 4), percent `x y width height` rounded as sent; NaN where the object is not there, or was not
            looked for.
        looked: shape (n,), where it was looked for.
        keyed: LS frames that stay keyframes, since the boxes around them are what the page shows between these.
    """

    boxes: Boxes
    looked: IsTracked
    keyed: Collection[int] = ()


@dataclass(frozen=True, slots=True)
class KeyframeSet:
    """Keyframes of a region.

    Attributes:
        iou: the least IoU of what the page shows with what was tracked, of boxes that are not within the setting's
            `px`; None: nothing was tracked.
    """

    keyframes: Sequence[Keyframe]
    iou: float | None = None


def choose_keyframes(
    segments: Sequence[Segment],
    seen: Callable[[Segment], SampledTrack],
    settings: Settings,
    size: tuple[int, int] | None = None,
    prompted: Collection[int] = (),
    *,
    is_whole: bool = True,
) -> KeyframeSet:
    """All keyframes of ours in a region: those that are kept, and as few as the settings allow for what was tracked.

    Args:
        seen: what is known of a segment.
        size: width and height of the picture in pixels; None: nothing passes for being some pixels off.
        prompted: LS frames on which a person has shown the object.
        is_whole: nothing is missing any more, so that the fewest are worth the time.
    """
    items: list[Keyframe] = []
    stretches: list[_Stretch] = []
    for segment in segments:
        if segment.kept is not None:
            items += segment.kept
            continue
        known = seen(segment)
        rows = _rows(segment, known, settings, prompted)
        items += [*_hidden_rows(segment, rows), *segment.set_aside]
        for span in gaps.find_spans(rows):
            stretches += _stretches(segment, rows, span, known.keyed, settings.keyframes)
    anchors = [item for segment in segments for item in (segment.before, segment.after) if item]
    spent = len({item.frame for item in (*items, *anchors)}) - sum(one.given for one in stretches)
    px = (settings.keyframes.px * 100 / size[0], settings.keyframes.px * 100 / size[1]) if size else (0.0, 0.0)
    runs = [one.run for one in stretches]
    chosen = select_keyframes(runs, settings.keyframes, px, spent, MAX_CHECKS if is_whole else MAX_CHECKS_UNFINISHED)
    items += [item for one, rows in zip(stretches, chosen, strict=True) for item in one.items(rows)]
    kept_to = [min_kept_iou(run, rows, px) for run, rows in zip(runs, chosen, strict=True)]
    return KeyframeSet(items, min(kept_to, default=None))


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Consecutive LS frames on which the object is there, from one given keyframe to the next where there are any.

    Attributes:
        first: the LS frame of the first row.
        ours: the rows that are not given: anchors, or the last row of the stretch before.
        rows: shape (n, 4), what keyframes set, percent `x y width height`.
        ends: the box is hidden after the last row.
    """

    first: int
    ours: range
    rows: Boxes
    run: BoxRun
    ends: bool

    @property
    def given(self) -> int:
        """How many of its rows are keyframes already."""
        return len(self.rows) - len(self.ours)

    def items(self, chosen: Sequence[int]) -> list[Keyframe]:
        """Keyframes of ours on these rows."""
        last = len(self.rows) - 1 if self.ends else None
        return [
            mark_as_ours(Keyframe(self.first + row, row != last, *self.rows[row].tolist()))
            for row in chosen
            if row in self.ours
        ]


def _stretches(
    segment: Segment, rows: Boxes, span: range, keyed: Collection[int], rule: KeyframeSettings
) -> list[_Stretch]:
    """The rows of a span, between an anchor before it and one behind it, cut at keyframes that stay."""
    first, last = span.start, span.stop - 1
    inside = [row for frame in keyed if (row := frame - segment.first + 1) in span]
    found = []
    for start, stop in pairwise(sorted({first, last, *inside})) if last > first else [(first, last)]:
        boxes = rows[start : stop + 1]
        keys = _smooth_boxes(boxes, rule.smooth, rule.iou) if rule.smooth else boxes
        ours = range(int(start == 0 or start > first), len(boxes) - int(stop == len(rows) - 1))
        run = BoxRun(percent_corners(boxes), percent_corners(keys))
        found.append(_Stretch(segment.first - 1 + start, ours, keys, run, ends=stop == last))
    return found


def _smooth_boxes(boxes: Boxes, frames: int, bound: float) -> Boxes:
    """Boxes smoothed over some frames to either side, percent `x y width height` rounded as sent."""
    true = percent_corners(boxes)
    moved = boxes_to_percent(smooth_boxes(true, frames, bound), 100, 100)
    stays = box_iou(percent_corners(moved), true) < bound  # by rounding
    stays[[0, -1]] = True  # a person's keyframe may be there, to all its digits
    moved[stays] = boxes[stays]
    return moved


def _rows(segment: Segment, seen: SampledTrack, settings: Settings, prompted: Collection[int]) -> Boxes:
    """A segment's boxes between its anchors, as they are to be shown: drop-outs bridged, ghosts gone."""
    before, after, boxes = segment.before, segment.after, seen.boxes
    rows = np.vstack([_anchor(before) if before and before.enabled else _NOTHING, boxes, _anchor(after)])
    looked = np.concatenate([[False], seen.looked, [False]])
    human = {frame - segment.first + 1 for frame in prompted}
    human |= {row for row, item in ((0, before), (len(boxes) + 1, after)) if item and item.is_human}
    rows = gaps.bridge_gaps(rows, looked, settings.bridge_frames, human)
    if settings.min_track_frames > 1:
        rows = gaps.remove_ghosts(rows, looked, human)
    is_found = not (before or after or prompted)  # by words: nobody has shown it
    if is_found and gaps.is_brief(rows, looked, settings.min_track_frames):
        rows[:] = np.nan
    return rows


def _hidden_rows(segment: Segment, rows: Boxes) -> list[Keyframe]:
    """A twin of an anchor on the next frame, where the object is not there: the anchor stays as the person set it."""
    before = segment.before
    is_followed = any(item.frame < segment.within.first for item in segment.set_aside)
    if not before or not before.enabled or len(rows) < 3 or not np.isnan(rows[1, 0]) or is_followed:
        return []
    return [mark_as_ours(replace(before, frame=before.frame + 1, enabled=False))]


def sample_track(
    segment: Segment, track: Track, looked: IsTracked, clock: FrameClock, size: tuple[int, int], length: int
) -> SampledTrack:
    """Every LS frame gets the box of the picture that it shows, whatever the two frame rates are.

    Args:
        looked: shape (pictures,), the source frames on which the object was looked for.
        track: in pixels of a picture of `size` = (width, height).
        length: how many LS frames there are.
    """
    frames = np.asarray(segment.frames(length))
    sources, inside = clock.source_frames(frames), _inside(segment, frames)
    boxes, _ = track.at(sources)
    boxes[~inside] = np.nan
    return SampledTrack(boxes_to_percent(boxes, *size), looked[sources] & inside)


def sample_shown(segment: Segment, items: Sequence[Keyframe], length: int) -> SampledTrack:
    """What the page shows of these keyframes, as far as they are ours, where a segment is made anew.

    Nothing after the last keyframe of ours, though the page may show a person's to the end of the video.
    """
    frames = np.asarray(segment.frames(length))
    nothing = np.zeros(len(frames), bool)
    keyed = [item.frame for item in items if not item.is_human and item.frame in segment.frames(length)]
    if not keyed:
        return SampledTrack(np.full((len(frames), 4), np.nan), nothing)
    rows = boxes_at(items, frames)
    rows[(frames > max(keyed)) | ~_inside(segment, frames)] = np.nan
    return SampledTrack(rows, nothing, keyed)


def fill_unlooked(segment: Segment, new: SampledTrack, old: SampledTrack) -> SampledTrack:
    """What was tracked, and where that is still to come, what the page shows, by the very keyframes that it has."""
    boxes = np.where(new.looked[:, None], new.boxes, old.boxes)
    edges = np.flatnonzero(np.diff(np.concatenate([[True], new.looked, [True]])))
    lacking = {row for edge in edges.reshape(-1, 2).tolist() for row in (edge[0], edge[1] - 1)}
    keyed = {frame for frame in old.keyed if not new.looked[frame - segment.first]}
    return SampledTrack(boxes, new.looked, keyed | {segment.first + row for row in lacking})


def _inside(segment: Segment, frames: NDArray[np.int64]) -> IsTracked:
    return (segment.within.first <= frames) & (frames <= segment.within.last)


_NOTHING = np.full((1, 4), np.nan)


def _anchor(item: Keyframe | None) -> Boxes:
    """A human keyframe to interpolate with; none where it is rotated: Label Studio would turn our boxes with it."""
    if item is None or item.rotation:
        return _NOTHING
    return np.array([[item.x, item.y, item.width, item.height]], float)
