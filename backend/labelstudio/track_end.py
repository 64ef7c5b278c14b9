"""Ends a track on a frame, and lets an ended one go on, as a person commands."""

from dataclasses import replace

import numpy as np

from backend.errors import BadRequest
from backend.labelstudio.commands import Command
from backend.labelstudio.keyframe import Keyframe, boxes_at, mark_as_ours
from backend.labelstudio.region import Region
from backend.tracks.frame_range import FrameRange


def apply_end(region: Region, command: Command) -> tuple[Region, Command]:
    """The region as the commands `end` and `resume` change it, and what is left to do.

    Raises:
        BadRequest: the frame is missing, or before the track.
    """
    if command.resume:
        return _resume(region), command
    if command.end is None:
        return region, command
    frame = command.end or max((item.frame for item in region.keyframes if item.is_corrected), default=0)
    if not frame:
        raise BadRequest("the frame is missing: write the last frame that shows the object, as in: end 62")
    if frame < region.keyframes[0].frame:
        raise BadRequest(f"the track begins on frame {region.keyframes[0].frame}: end it there or later")
    is_known = not region.is_partial or frame <= region.keyframes[-1].frame
    if not (region.is_tracked and is_known):
        return region, Command(within=FrameRange(1, frame))
    return _end(region, frame), command


def _end(region: Region, frame: int) -> Region:
    """The region without all that is after a frame, on which a keyframe of a person hides the box."""
    (box,) = boxes_at(region.keyframes, np.array([frame])).tolist()
    if np.isnan(box[0]):
        raise BadRequest(f"the track has no box on frame {frame}: end it on a frame that shows one")
    here = next((item for item in region.keyframes if item.frame == frame), None) or mark_as_ours(
        Keyframe(frame, True, *box)
    )
    last = replace(here, enabled=False, human=True)
    # A corrected box stays one, so that the frames before it are tracked again.
    last = last if here.is_corrected and not here.is_toggled else replace(last, fp=last.fingerprint)
    meta = {key: value for key, value in region.meta.items() if key != "partial"}
    if isinstance(ends := meta.get("ends"), list):
        meta["ends"] = [end for end in ends if end != frame]
    earlier = (item for item in region.keyframes if item.frame < frame)
    return replace(region, keyframes=(*earlier, last), meta=meta)


def _resume(region: Region) -> Region:
    """The region with a last keyframe that shows the box and that a person set, to track on from."""
    last = region.keyframes[-1]
    shown = replace(last, enabled=True, human=True, fp=replace(last, enabled=False).fingerprint)
    return replace(region, keyframes=(*region.keyframes[:-1], shown))
