"""The stretches of a region between a person's keyframes: which stay as they are, which are tracked, and with what."""

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
    """The LS frames strictly between two neighbouring anchors, or before the first, or after the last.

    Anchors are human keyframes; where only a part of the frames was asked for, also what the page shows beside it.

    Attributes:
        kept: the keyframes of ours that stay as they are; None: they are made anew.
        goes: where they are made anew, whether the object is tracked there; if not, its box is hidden.
        within: where they are made anew; on other frames of the segment nothing is said.
        aside: keyframes of ours on those other frames, which stay as they are.
    """

    before: Keyframe | None
    after: Keyframe | None
    kept: tuple[Keyframe, ...] | None = None
    has_object: bool = True
    within: FrameRange = ALL_FRAMES
    set_aside: tuple[Keyframe, ...] = ()

    @property
    def is_tracked(self) -> bool:
        """There is something for an engine to do."""
        return self.kept is None and self.has_object

    @property
    def first(self) -> int:
        """Its first LS frame."""
        return self.before.frame + 1 if self.before else 1

    def frames(self, length: int) -> range:
        """LS frames of the segment in a video of `length` LS frames."""
        return range(self.first, self.after.frame if self.after else length + 1)


def cut_segments(region: Region, direction: Direction, command: Command = TRACK) -> tuple[Segment, ...]:
    """Cut a track at its human keyframes; what no correction and no command touches is kept to the digit.

    Args:
        direction: where to go beyond the first and the last human keyframe. A side that was tracked before is
            tracked again when the keyframe beside it is corrected.
        command: what the region's line says; its direction and frames are made anew, corrected or not.
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
    answered = [item for item in region.keyframes if not item.is_corrected]
    for (before, after), ours in zip(pairwise((None, *anchors, None)), inside, strict=True):
        segment = _segment(region, before, after, ours, direction, command)
        segments += (
            _limited(segment, ours, within, answered) if segment.is_tracked and within != ALL_FRAMES else [segment]
        )
    return tuple(segments)


def click_direction(region: Region, clicked: Collection[int], direction: Direction) -> Direction:
    """Where a track goes beyond its clicks: where it is led, and where it has gone before."""
    ahead = direction != "backward" or any(item.frame > max(clicked) for item in region.keyframes)
    back = direction != "forward" or any(item.frame < min(clicked) for item in region.keyframes)
    return "both" if ahead and back else "forward" if ahead else "backward"


def segments_around_clicks(region: Region, clicked: Collection[int], direction: Direction) -> tuple[Segment, ...]:
    """Cut a track that clicks on these LS frames make anew, at its human keyframes."""
    humans = tuple(item for item in region.keyframes if item.is_human)
    segments = []
    for before, after in pairwise((None, *humans, None)):
        outer = "forward" if after is None else "backward" if before is None else direction
        is_clicked = any(frame in Segment(before, after).frames(LAST_FRAME) for frame in clicked)
        hidden = before is not None and region.hides(before)
        segments.append(Segment(before, after, has_object=is_clicked or (not hidden and direction in (outer, "both"))))
    return tuple(segments)


def segments_between(humans: Sequence[Keyframe]) -> list[Segment]:
    """All stretches of a track that is made anew around these keyframes."""
    return [Segment(before, after) for before, after in pairwise((None, *humans, None))]


def kept_keyframes(segments: Sequence[Segment]) -> list[Keyframe]:
    """The keyframes of ours that stay as they are."""
    return [item for segment in segments for item in segment.kept or ()]


def _ours_between(items: Sequence[Keyframe], anchors: Sequence[Keyframe]) -> list[tuple[Keyframe, ...]]:
    """Our keyframes before the first anchor, between every two of them, and after the last."""
    places = {item.frame for item in anchors}
    inside: list[list[Keyframe]] = [[]]
    for item in items:
        if item.frame in places:
            inside.append([])
        else:
            inside[-1].append(item)
    return [tuple(items) for items in inside]


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
    is_led = direction in (outer, "both")
    touched = (
        not region.is_tracked
        or region.is_partial
        or (before is not None and before.is_corrected)
        or (after is not None and after.is_corrected and not after.is_toggled)
        or any(first < frame < last for frame in region.deleted)
        or command.redo
        or (command.direction in (outer, "both") and (before is None or after is None))
        or (command.is_limited and (is_led or bool(inside)))
    )
    if not touched:
        return Segment(before, after, inside)
    if inside or is_led:
        return Segment(before, after)
    # Label Studio shows nothing before a first keyframe, but a last one to the end of the video.
    return Segment(before, after, has_object=False) if after is None else Segment(before, after, ())


def _limited(
    segment: Segment, inside: tuple[Keyframe, ...], within: FrameRange, answered: Sequence[Keyframe]
) -> list[Segment]:
    """A segment of which only these frames are made anew: from what was answered beside them, where something was.

    Args:
        answered: the region's keyframes that nobody changed since the last answer.
    """
    before, after = segment.before, segment.after
    frames = segment.frames(LAST_FRAME)
    first, last = max(frames.start, within.first), min(frames.stop - 1, within.last)
    if first > last:
        return [replace(segment, kept=inside)]
    earlier = tuple(item for item in inside if item.frame < first)
    later = tuple(item for item in inside if item.frame > last)
    left = _answered_at(answered, first - 1) if first > frames.start else None
    right = _answered_at(answered, last + 1) if last < frames.stop - 1 else None
    parts = [Segment(before, left, (*_others(earlier, left), left))] if left else []
    aside = (*(() if left else earlier), *(() if right else later))
    parts.append(Segment(left or before, right or after, within=FrameRange(first, last), set_aside=aside))
    return parts + ([Segment(right, after, (right, *_others(later, right)))] if right else [])


def _answered_at(answered: Sequence[Keyframe], frame: int) -> Keyframe | None:
    """What was answered for a frame, as a keyframe of ours; None: nothing."""
    if not answered or frame > answered[-1].frame:
        return None
    (row,) = boxes_at(answered, np.array([frame]))
    there = next((item for item in answered if item.frame == frame), None)
    return there or (None if np.isnan(row[0]) else mark_as_ours(Keyframe(frame, True, *row.tolist())))


def _others(items: Sequence[Keyframe], but: Keyframe) -> tuple[Keyframe, ...]:
    return tuple(item for item in items if item.frame != but.frame)
