"""Converts a track's boxes on every frame to a region's keyframes, and keyframes back to boxes."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backend.labelstudio.keyframe import (
    Keyframe,
    boxes_at,
    boxes_to_percent,
    mark_as_ours,
    marked_keyframe,
    percent_corners,
)
from backend.labelstudio.keyframe_memo import Choice, KeyframeMemo
from backend.labelstudio.segments import Segment
from backend.settings import KeyframeSettings, Settings
from backend.tracks import gaps
from backend.tracks.gaps import IsTracked
from backend.tracks.geometry import Boxes, box_iou
from backend.tracks.keyframe_selection import (
    MAX_CHECKS,
    MAX_CHECKS_UNFINISHED,
    BoxRun,
    Tolerance,
    min_kept_iou,
    select_keyframes,
)
from backend.tracks.smoothing import smooth_boxes
from backend.tracks.track import Track
from backend.video.frame_clock import FrameClock

_PIECE = 4096
"""LS frames from one cut of a long track to the next. Each costs at most one keyframe more than the fewest."""
_LEAST_KEPT = 256
"""Choices for fewer rows are quicker to make than to look up."""


class SampledTrack(NamedTuple):
    """A track in a segment, with a row for each of its n LS frames.

    Attributes:
        boxes: shape (n, 4), percent `x y width height` rounded as sent; NaN if the object is absent or not tracked.
        looked: shape (n,), whether the object was tracked on the frame.
        keyed: LS frames that stay keyframes: the boxes between them were interpolated from them.
    """

    boxes: Boxes
    looked: IsTracked
    keyed: Collection[int] = ()


@dataclass(frozen=True, slots=True)
class KeyframeSet:
    """Keyframes of a region.

    Attributes:
        iou: minimum IoU of the boxes that the page shows with the tracked ones, without boxes that differ by less than
            the setting `px`; None: nothing was tracked.
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
    memo: KeyframeMemo | None = None,
) -> KeyframeSet:
    """The backend's keyframes of a region: the kept ones, and the minimum number that the settings allow for the rest.

    Args:
        seen: returns the track in a segment.
        size: width and height of the picture in pixels; None: the setting `px` is not used.
        prompted: LS frames on which a person prompted the object.
        is_whole: the track is complete; otherwise the search for the minimum is shorter.
        memo: earlier choices for this track; new ones are added.
    """
    keyframes: list[Keyframe] = []
    stretches: list[_Stretch] = []
    for segment in segments:
        if segment.kept is not None:
            keyframes += segment.kept
            continue
        sampled = seen(segment)
        rows = _rows(segment, sampled, settings, prompted)
        keyframes += [*_hidden_rows(segment, rows), *segment.set_aside]
        for span in gaps.find_spans(rows):
            stretches += _stretches(segment, rows, span, sampled.keyed, settings.keyframes)
    anchors = [anchor for segment in segments for anchor in (segment.before, segment.after) if anchor]
    spent = len({keyframe.frame for keyframe in (*keyframes, *anchors)}) - sum(part.fixed for part in stretches)
    px = (settings.keyframes.px * 100 / size[0], settings.keyframes.px * 100 / size[1]) if size else (0.0, 0.0)
    ious: list[float] = []
    for chosen, iou in _choose(stretches, settings.keyframes, px, spent, is_whole, memo):
        keyframes += chosen
        ious.append(iou)
    return KeyframeSet(keyframes, min(ious, default=None))


def _choose(
    stretches: Sequence["_Stretch"],
    rule: KeyframeSettings,
    px: Tolerance,
    spent: int,
    is_whole: bool,
    memo: KeyframeMemo | None,
) -> Iterator[tuple[list[Keyframe], float]]:
    """The keyframes of each stretch, and the minimum IoU of the boxes between them."""
    if rule.mode == "budget":
        runs = [stretch.run for stretch in stretches]
        selected = select_keyframes(runs, rule, px, spent, MAX_CHECKS if is_whole else MAX_CHECKS_UNFINISHED)
        for stretch, rows in zip(stretches, selected, strict=True):
            yield stretch.keyframes(rows), min_kept_iou(stretch.run, rows, px)
        return
    for stretch in stretches:
        is_final = is_whole or not stretch.ends
        checks = MAX_CHECKS if is_final else MAX_CHECKS_UNFINISHED
        is_kept = memo is not None and is_final and len(stretch.rows) >= _LEAST_KEPT
        key = stretch.key(rule, px) if is_kept else b""
        if choice := memo.get(key) if memo and is_kept else None:
            yield stretch.keyframes(choice.rows, choice.fingerprints), choice.iou
            continue
        (rows,) = select_keyframes([stretch.run], rule, px, spent, checks)
        keyframes, iou = stretch.keyframes(rows), min_kept_iou(stretch.run, rows, px)
        if memo is not None and is_kept:
            memo.put(key, Choice(rows, [keyframe.fingerprint for keyframe in keyframes], iou))
        yield keyframes, iou


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Consecutive LS frames with the object, between fixed keyframes if there are any.

    Attributes:
        first: the LS frame of the first row.
        ours: rows whose keyframes can be chosen; the others are anchors or belong to the stretch before.
        rows: shape (n, 4), the boxes for keyframes, percent `x y width height`.
        ends: whether the box is hidden after the last row.
    """

    first: int
    ours: range
    rows: Boxes
    run: BoxRun
    ends: bool

    @property
    def fixed(self) -> int:
        """The number of rows that are keyframes already."""
        return len(self.rows) - len(self.ours)

    def key(self, rule: KeyframeSettings, px: Tolerance) -> bytes:
        """What the choice of its keyframes depends on."""
        return KeyframeMemo.key([self.rows, self.run.boxes], rule, px, self.first, self.ours, self.ends)

    def keyframes(self, chosen: Sequence[int], fingerprints: Sequence[str] | None = None) -> list[Keyframe]:
        """The backend's keyframes on these rows.

        Args:
            fingerprints: of these keyframes, if they are known.
        """
        last = len(self.rows) - 1 if self.ends else None
        ours = [row for row in chosen if row in self.ours]
        boxes = self.rows[ours].tolist()
        if fingerprints is None:
            new = (Keyframe(self.first + row, row != last, *box) for row, box in zip(ours, boxes, strict=True))
            return [mark_as_ours(keyframe) for keyframe in new]
        return [
            marked_keyframe(self.first + row, row != last, box, fingerprint)
            for row, box, fingerprint in zip(ours, boxes, fingerprints, strict=True)
        ]


def _stretches(
    segment: Segment, rows: Boxes, span: range, keyed: Collection[int], rule: KeyframeSettings
) -> list[_Stretch]:
    """The rows of a span between two anchors, cut at keyframes that stay.

    A long span is also cut at certain LS frames, so that the keyframes before the last cut stay while it grows.
    """
    first, last = span.start, span.stop - 1
    inside = [row for frame in keyed if (row := frame - segment.first + 1) in span]
    if rule.mode != "budget" and len(span) >= 2 * _PIECE:
        inside += range(first + (1 - segment.first - first) % _PIECE, last, _PIECE)
    stretches = []
    for start, stop in pairwise(sorted({first, last, *inside})) if last > first else [(first, last)]:
        boxes = rows[start : stop + 1]
        keys = _smooth_boxes(boxes, rule.smooth, rule.iou) if rule.smooth else boxes
        ours = range(int(start == 0 or start > first), len(boxes) - int(stop == len(rows) - 1))
        run = BoxRun(percent_corners(boxes), percent_corners(keys))
        stretches.append(_Stretch(segment.first - 1 + start, ours, keys, run, ends=stop == last))
    return stretches


def _smooth_boxes(boxes: Boxes, frames: int, bound: float) -> Boxes:
    """Boxes smoothed over `frames` to either side, percent `x y width height` rounded as sent."""
    tracked = percent_corners(boxes)
    moved = boxes_to_percent(smooth_boxes(tracked, frames, bound), 100, 100)
    stays = box_iou(percent_corners(moved), tracked) < bound  # rounding may reduce the IoU
    stays[[0, -1]] = True  # these may be a person's keyframes, which must not change
    moved[stays] = boxes[stays]
    return moved


def _rows(segment: Segment, seen: SampledTrack, settings: Settings, prompted: Collection[int]) -> Boxes:
    """A segment's boxes with its anchors: short gaps are bridged, ghosts and brief text detections removed."""
    before, after, boxes = segment.before, segment.after, seen.boxes
    rows = np.vstack([_anchor(before) if before and before.enabled else _NOTHING, boxes, _anchor(after)])
    looked = np.concatenate([[False], seen.looked, [False]])
    human = {frame - segment.first + 1 for frame in prompted}
    human |= {row for row, anchor in ((0, before), (len(boxes) + 1, after)) if anchor and anchor.is_human}
    rows = gaps.bridge_gaps(rows, looked, settings.bridge_frames, human)
    if settings.min_track_frames > 1:
        rows = gaps.remove_ghosts(rows, looked, human)
    is_found = not (before or after or prompted)  # by a text prompt
    if is_found and gaps.is_brief(rows, looked, settings.min_track_frames):
        rows[:] = np.nan
    return rows


def _hidden_rows(segment: Segment, rows: Boxes) -> list[Keyframe]:
    """A hidden copy of an anchor on the next frame if the object is absent there; the anchor itself does not change."""
    before = segment.before
    is_followed = any(keyframe.frame < segment.within.first for keyframe in segment.set_aside)
    if not before or not before.enabled or len(rows) < 3 or not np.isnan(rows[1, 0]) or is_followed:
        return []
    return [mark_as_ours(replace(before, frame=before.frame + 1, enabled=False))]


def sample_track(
    segment: Segment, track: Track, looked: IsTracked, clock: FrameClock, size: tuple[int, int], length: int
) -> SampledTrack:
    """A track in a segment: every LS frame gets the box of the picture that it shows.

    Args:
        looked: shape (pictures,), whether the object was tracked on each source frame.
        track: boxes in pixels of a picture of `size` = (width, height).
        length: the number of LS frames.
    """
    frames = np.asarray(segment.frames(length))
    sources, inside = clock.source_frames(frames), _inside(segment, frames)
    boxes, _ = track.at(sources)
    boxes[~inside] = np.nan
    return SampledTrack(boxes_to_percent(boxes, *size), looked[sources] & inside)


def sample_shown(segment: Segment, keyframes: Sequence[Keyframe], length: int) -> SampledTrack:
    """The boxes that the page shows in a segment, up to the last keyframe of the backend.

    The page may show a person's keyframe after it to the end of the video; this is no tracked box.
    """
    frames = np.asarray(segment.frames(length))
    nothing = np.zeros(len(frames), bool)
    keyed = [key.frame for key in keyframes if not key.is_human and key.frame in segment.frames(length)]
    if not keyed:
        return SampledTrack(np.full((len(frames), 4), np.nan), nothing)
    rows = boxes_at(keyframes, frames)
    rows[(frames > max(keyed)) | ~_inside(segment, frames)] = np.nan
    return SampledTrack(rows, nothing, keyed)


def fill_unlooked(segment: Segment, new: SampledTrack, old: SampledTrack) -> SampledTrack:
    """The tracked boxes; frames not tracked yet get the boxes that the page shows, with their keyframes."""
    boxes = np.where(new.looked[:, None], new.boxes, old.boxes)
    edges = np.flatnonzero(np.diff(np.concatenate([[True], new.looked, [True]])))
    missing = {row for edge in edges.reshape(-1, 2).tolist() for row in (edge[0], edge[1] - 1)}
    keyed = {frame for frame in old.keyed if not new.looked[frame - segment.first]}
    return SampledTrack(boxes, new.looked, keyed | {segment.first + row for row in missing})


def _inside(segment: Segment, frames: NDArray[np.int64]) -> IsTracked:
    return (segment.within.first <= frames) & (frames <= segment.within.last)


_NOTHING = np.full((1, 4), np.nan)


def _anchor(keyframe: Keyframe | None) -> Boxes:
    """An anchor's box, shape (1, 4). NaN if it is rotated: Label Studio would rotate boxes interpolated with it."""
    if keyframe is None or keyframe.rotation:
        return _NOTHING
    return np.array([[keyframe.x, keyframe.y, keyframe.width, keyframe.height]], float)
