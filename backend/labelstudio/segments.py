"""Cuts a region at a person's keyframes into segments, which are tracked or keep their keyframes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from backend.labelstudio.commands import TRACK, Command
from backend.labelstudio.keyframe import Keyframe, boxes_at, mark_as_ours
from backend.labelstudio.region import Region
from backend.tracks.frame_range import ALL_FRAMES, LAST_FRAME, FrameRange
from backend.tracks.prompts import Direction


@dataclass(frozen=True, slots=True)
class Segment:
    """The LS frames strictly between two neighbouring anchors, before the first, or after the last.

    Anchors are human keyframes. If a command limits the frames to track, the boxes that the page shows next to these
    frames are anchors, too.

    Attributes:
        before, after: the anchors; None: the segment is the first or the last.
        kept: the backend's keyframes, which do not change; None: they are computed again.
        has_object: whether to track the object, if keyframes are computed; otherwise its box is hidden.
        within: the frames on which keyframes are computed.
        set_aside: the backend's keyframes on the segment's other frames, which do not change.
    """

    before: Keyframe | None
    after: Keyframe | None
    kept: tuple[Keyframe, ...] | None = None
    has_object: bool = True
    within: FrameRange = ALL_FRAMES
    set_aside: tuple[Keyframe, ...] = ()

    @property
    def is_tracked(self) -> bool:
        """Whether an engine has to track the object in it."""
        return self.kept is None and self.has_object

    @property
    def first(self) -> int:
        """The first LS frame."""
        return self.before.frame + 1 if self.before else 1

    def frames(self, length: int) -> range:
        """The LS frames of the segment, in a video of `length` LS frames."""
        return range(self.first, self.after.frame if self.after else length + 1)


def cut_segments(region: Region, direction: Direction, command: Command = TRACK) -> tuple[Segment, ...]:
    """Cut a track at its human keyframes. Segments that no correction and no command affects keep their keyframes.

    Args:
        direction: where to track beyond the first and the last human keyframe. A side that was tracked before is
            tracked again if the keyframe next to it was corrected.
        command: the region's command; the frames that it selects are tracked again, corrected or not.
    """
    anchors = region.anchors(is_commanded=command != TRACK)
    if not anchors:
        return (Segment(None, None, region.keyframes),)
    within, inside = command.within, _ours_between(region.keyframes, anchors)
    direction = command.direction or direction
    if command.frames is not None:
        first, last = anchors[0].frame, anchors[-1].frame
        within = FrameRange(
            max(1, first - command.frames) if direction != "forward" else first,
            last + command.frames if direction != "backward" else last,
        )
    segments: list[Segment] = []
    unchanged = [keyframe for keyframe in region.keyframes if not keyframe.is_corrected]
    for (before, after), ours in zip(pairwise((None, *anchors, None)), inside, strict=True):
        segment = _segment(region, before, after, ours, direction, command)
        segments += (
            _limited(segment, ours, within, unchanged) if segment.is_tracked and within != ALL_FRAMES else [segment]
        )
    return tuple(segments)


def click_direction(region: Region, clicked: Collection[int], direction: Direction) -> Direction:
    """Where to track beyond the clicks: in `direction`, and where the track has keyframes already."""
    ahead = direction != "backward" or any(keyframe.frame > max(clicked) for keyframe in region.keyframes)
    back = direction != "forward" or any(keyframe.frame < min(clicked) for keyframe in region.keyframes)
    return "both" if ahead and back else "forward" if ahead else "backward"


def segments_around_clicks(region: Region, clicked: Collection[int], direction: Direction) -> tuple[Segment, ...]:
    """Cut a track at its human keyframes, to track it again from clicks on these LS frames."""
    humans = tuple(keyframe for keyframe in region.keyframes if keyframe.is_human)
    segments = []
    for before, after in pairwise((None, *humans, None)):
        outer = "forward" if after is None else "backward" if before is None else direction
        is_clicked = any(frame in Segment(before, after).frames(LAST_FRAME) for frame in clicked)
        hidden = before is not None and region.hides(before)
        segments.append(Segment(before, after, has_object=is_clicked or (not hidden and direction in (outer, "both"))))
    return tuple(segments)


def segments_to_correct(
    region: Region,
    prompted: Collection[int],
    clicked: Collection[int],
    direction: Direction,
    within: FrameRange = ALL_FRAMES,
) -> tuple[Segment, ...]:
    """Cut a track at its human keyframes, to compute again only what lies between new prompts and those next to them.

    A region that was never tracked keeps the boxes that the page shows beyond these.

    Args:
        region: with the new prompts: boxes are keyframes that were corrected.
        prompted: LS frames of the new prompts.
        clicked: LS frames of earlier clicks.
        direction: where to track beyond the outer prompts.
        within: the frames to track.
    """
    anchors = region.humans
    unchanged = [keyframe for keyframe in region.keyframes if not keyframe.is_corrected]
    parts = zip(pairwise((None, *anchors, None)), _ours_between(region.keyframes, anchors), strict=True)
    segments: list[Segment] = []
    for (before, after), ours in parts:
        frames, anchors_here = Segment(before, after).frames(LAST_FRAME), [key for key in (before, after) if key]
        inside = [frame for frame in prompted if frame in frames]
        near = inside + [key.frame for key in anchors_here if key.frame in prompted]
        segment = Segment(before, after, ours)
        if near or region.is_tracked:
            segment = _segment(region, before, after, ours, direction, TRACK)
        if inside and not segment.is_tracked:
            segment = Segment(before, after)
        is_stale = region.is_partial or any(frame in frames for frame in region.deleted)
        is_stale |= any(key.is_corrected and key.frame not in prompted for key in anchors_here)
        limit = within if is_stale else _between(near, [frame for frame in clicked if frame in frames], within)
        is_limited = segment.is_tracked and limit != ALL_FRAMES and limit.first <= limit.last
        segments += _limited(segment, ours, limit, unchanged) if is_limited else [segment]
    return tuple(segments)


def segments_between(humans: Sequence[Keyframe]) -> list[Segment]:
    """Segments to track a whole track again around these keyframes."""
    return [Segment(before, after) for before, after in pairwise((None, *humans, None))]


def kept_keyframes(segments: Sequence[Segment]) -> list[Keyframe]:
    """The backend's keyframes that do not change."""
    return [keyframe for segment in segments for keyframe in segment.kept or ()]


def _ours_between(keyframes: Sequence[Keyframe], anchors: Sequence[Keyframe]) -> list[tuple[Keyframe, ...]]:
    """The backend's keyframes before the first anchor, between neighbouring anchors, and after the last."""
    anchor_frames = {anchor.frame for anchor in anchors}
    parts: list[list[Keyframe]] = [[]]
    for keyframe in keyframes:
        if keyframe.frame in anchor_frames:
            parts.append([])
        else:
            parts[-1].append(keyframe)
    return [tuple(part) for part in parts]


def _segment(
    region: Region,
    before: Keyframe | None,
    after: Keyframe | None,
    inside: tuple[Keyframe, ...],
    direction: Direction,
    command: Command,
) -> Segment:
    if before is not None and region.hides(before):
        return Segment(before, after, ())
    first, last = before.frame if before else 0, after.frame if after else LAST_FRAME
    outer = "forward" if after is None else "backward" if before is None else direction
    is_in_direction = direction in (outer, "both")
    is_affected = (
        not region.is_tracked
        or region.is_partial
        or (before is not None and before.is_corrected)
        or (after is not None and after.is_corrected and not after.is_toggled)
        or any(first < frame < last for frame in region.deleted)
        or command.redo
        or (command.direction in (outer, "both") and (before is None or after is None))
        or (command.is_limited and (is_in_direction or bool(inside)))
    )
    if not is_affected:
        return Segment(before, after, inside)
    if inside or is_in_direction:
        return Segment(before, after)
    # Label Studio shows no box before the first keyframe, but shows the last one to the end of the video.
    return Segment(before, after, has_object=False) if after is None else Segment(before, after, ())


def _limited(
    segment: Segment, inside: tuple[Keyframe, ...], within: FrameRange, unchanged: Sequence[Keyframe]
) -> list[Segment]:
    """Cut a segment so that only the frames `within` are tracked, from the boxes of the last response next to them.

    Args:
        inside: the backend's keyframes in the segment.
        unchanged: the region's keyframes that nobody has changed since the last response.
    """
    before, after = segment.before, segment.after
    frames = segment.frames(LAST_FRAME)
    first, last = max(frames.start, within.first), min(frames.stop - 1, within.last)
    if first > last:
        return [replace(segment, kept=inside)]
    earlier = tuple(keyframe for keyframe in inside if keyframe.frame < first)
    later = tuple(keyframe for keyframe in inside if keyframe.frame > last)
    left = _keyframe_at(unchanged, first - 1) if first > frames.start else None
    right = _keyframe_at(unchanged, last + 1) if last < frames.stop - 1 else None
    parts = [Segment(before, left, (*_others(earlier, left), left))] if left else []
    set_aside = (*(() if left else earlier), *(() if right else later))
    parts.append(Segment(left or before, right or after, within=FrameRange(first, last), set_aside=set_aside))
    return parts + ([Segment(right, after, (right, *_others(later, right)))] if right else [])


def _keyframe_at(keyframes: Sequence[Keyframe], frame: int) -> Keyframe | None:
    """The keyframe on a frame, or one of the backend with the box that the page shows there; None: it shows none."""
    if not keyframes or frame > keyframes[-1].frame:
        return None
    (box,) = boxes_at(keyframes, np.array([frame]))
    existing = next((keyframe for keyframe in keyframes if keyframe.frame == frame), None)
    return existing or (None if np.isnan(box[0]) else mark_as_ours(Keyframe(frame, True, *box.tolist())))


def _others(keyframes: Sequence[Keyframe], excluded: Keyframe) -> tuple[Keyframe, ...]:
    return tuple(keyframe for keyframe in keyframes if keyframe.frame != excluded.frame)


def _between(prompted: Collection[int], clicked: Collection[int], within: FrameRange) -> FrameRange:
    """The frames from the click before prompted frames to the click after them, without those of the clicks."""
    if not prompted:
        return within
    first = max((frame + 1 for frame in clicked if frame < min(prompted) - 1), default=1)
    last = min((frame - 1 for frame in clicked if frame > max(prompted) + 1), default=LAST_FRAME)
    return FrameRange(max(first, within.first), min(last, within.last))
