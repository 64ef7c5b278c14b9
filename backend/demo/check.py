"""Checks whether a returned track follows its object: compares what Label Studio would show with the clip's boxes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backend.tracks.geometry import Box, Boxes, box_iou

Region = dict[str, Any]
MIN_IOU = 0.8
CHECKED_FRAMES = 10


def drawn_region(identity: str, label: str, box: Box, size: tuple[int, int], frames: int, rate: float) -> Region:
    """A box drawn by hand on the first frame, as the open page sends it; `box` in pixels of a picture of `size`."""
    width, height = size
    percent = {
        "x": 100 * box.x0 / width,
        "y": 100 * box.y0 / height,
        "width": 100 * box.width / width,
        "height": 100 * box.height / height,
    }
    keyframe = {"frame": 1, "enabled": True, "rotation": 0, **percent, "time": 1 / rate}
    value = {"framesCount": frames, "duration": frames / rate, "sequence": [keyframe], "labels": [label]}
    controls = {"from_name": "box", "to_name": "video", "type": "videorectangle", "origin": "manual"}
    return {"value": value, "id": identity, **controls}


def shown(sequence: Sequence[Mapping[str, Any]], frame: int) -> Box | None:
    """The box in percent that Label Studio shows on its 1-based `frame`; None if it shows none.

    Follows getShape and isInLifespan of its region `videorectangle` (1.23.2).
    """
    items = sorted(sequence, key=lambda item: item["frame"])
    before = [item for item in items if item["frame"] <= frame]
    after = [item for item in items if item["frame"] > frame]
    if not before or (before[-1]["frame"] < frame and not before[-1]["enabled"]):
        return None
    last, following = before[-1], (after or before)[0 if after else -1]
    share = (frame - last["frame"]) / (following["frame"] - last["frame"]) if after else 0.0
    x, y, width, height = (last[key] + share * (following[key] - last[key]) for key in ("x", "y", "width", "height"))
    return Box(x, y, x + width, y + height)


def faults(region: Region, truth: Boxes, size: tuple[int, int]) -> list[str]:
    """The errors of a track, one line per frame; `truth` in pixels of a picture of `size`, row n for frame n + 1."""
    found = []
    for index in np.linspace(0, len(truth) - 1, CHECKED_FRAMES).round().astype(int):
        box = shown(region["value"]["sequence"], int(index) + 1)
        overlap = 0.0 if box is None else float(box_iou(np.array(box) / 100 * np.tile(size, 2), truth[index]))
        if not overlap >= MIN_IOU:
            found.append(f"frame {index + 1}: {'no box' if box is None else f'overlap {overlap:.2f}'}")
    return found
