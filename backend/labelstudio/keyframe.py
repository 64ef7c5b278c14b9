"""A keyframe of a `videorectangle`'s sequence: percent of the picture, 1-based frames, and who set it.

Every keyframe that we write carries `fp`, a fingerprint of its own values. Label Studio returns keyframes unchanged,
copies extra keys into new neighbours and keeps them when a person moves a box (seen in 1.23.2). So a keyframe whose
fingerprint matches is as we wrote it; one whose fingerprint is missing or differs was set by a person.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from backend.errors import BadRequest
from backend.labelstudio.json_values import read_frame, read_number
from backend.tracks.geometry import Box, Boxes

NUMBERS = ("x", "y", "width", "height", "rotation")
_LARGEST = 1e6


@dataclass(frozen=True)
class Keyframe:
    """A keyframe in percent; `rotation` is in degrees, clockwise about the upper left corner.

    Attributes:
        enabled: false hides the box after this frame (it is still shown on the frame itself).
        fp: the fingerprint that came with it, matching or not.
        human: an earlier response marked it as a person's keyframe.
    """

    frame: int
    enabled: bool
    x: float
    y: float
    width: float
    height: float
    rotation: float = 0
    fp: str | None = None
    human: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """Eight hex digits: a hash of all values, numbers rounded to 4 decimals."""
        # Adding 0.0 turns -0.0 into 0.0: JavaScript returns -0 as 0.
        numbers = "|".join(f"{round(getattr(self, name), 4) + 0.0:.4f}" for name in NUMBERS)
        return hashlib.sha256(f"{self.frame}|{int(self.enabled)}|{numbers}".encode()).hexdigest()[:8]

    @property
    def is_corrected(self) -> bool:
        """A person set or changed it since our last response."""
        return self.fp != self.fingerprint

    @property
    def is_human(self) -> bool:
        """A person set it, now or before."""
        return self.human or self.is_corrected

    @cached_property
    def is_toggled(self) -> bool:
        """A person changed only `enabled` since our last response."""
        return self.is_corrected and self.fp == replace(self, enabled=not self.enabled).fingerprint

    def seal(self) -> Self:
        """The same values with a matching fingerprint, and the mark if a person set it."""
        if not self.is_corrected:
            return self
        return replace(self, fp=self.fingerprint, human=self.is_human)

    def to_json(self, framerate: float) -> dict[str, Any]:
        """For a response."""
        return self.seal().to_unchanged_json(framerate)

    def to_unchanged_json(self, framerate: float) -> dict[str, Any]:
        """As received: a correction stays recognisable as one."""
        keyframe: dict[str, Any] = {"frame": self.frame, "enabled": self.enabled}
        keyframe |= {name: getattr(self, name) for name in NUMBERS} | {"time": self.frame / framerate}
        keyframe |= {} if self.fp is None else {"fp": self.fp}
        return keyframe | ({"human": True} if self.human else {})

    def box(self, width: int, height: int) -> Box:
        """The upright hull in pixels of a picture of `width` x `height`."""
        x, y = self.x * width / 100, self.y * height / 100
        return Box.from_rotated(x, y, self.width * width / 100, self.height * height / 100, self.rotation)


def parse_keyframes(sequence: object, skipped: Callable[[str], None] = lambda reason: None) -> tuple[Keyframe, ...]:
    """Read a sequence, sorted by frame; of two keyframes on one frame the later one is used.

    Args:
        skipped: called with the reason for each item that is left out; the page shows no box for it.

    Raises:
        BadRequest: it is not a list, or nothing in it is a keyframe with a box.
    """
    if not isinstance(sequence, list) or not sequence:
        raise BadRequest("the region has no keyframe: draw its box again")
    keyframes, errors = dict[int, Keyframe](), list[BadRequest]()
    for item in _from_frame_1(sequence):
        try:
            keyframe = _parse_keyframe(item)
            keyframes[keyframe.frame] = keyframe
        except BadRequest as error:
            errors.append(error)
    if errors and not keyframes:
        raise errors[0]
    for reason in map(str, errors):
        skipped(reason)
    return tuple(keyframes[frame] for frame in sorted(keyframes))


def _from_frame_1(sequence: list[Any]) -> list[Any]:
    """The sequence of a tool that counts from 0, with the box that the page shows on frame 1 instead of that on 0."""
    frames = [read_number(item.get("frame")) if isinstance(item, Mapping) else None for item in sequence]
    zero = next((item for item, frame in zip(sequence, frames, strict=True) if frame == 0), None)
    later = [(frame, place) for place, frame in enumerate(frames) if frame and frame > 0]
    if zero is None or not later or min(later)[0] == 1:
        return [item for item, frame in zip(sequence, frames, strict=True) if frame != 0 or not later]
    frame, place = min(later)
    numbers = {name: (read_number(zero.get(name)), read_number(sequence[place].get(name))) for name in NUMBERS}
    moved = {name: a + (b - a) / frame for name, (a, b) in numbers.items() if a is not None and b is not None}
    others = [item for item, at in zip(sequence, frames, strict=True) if at != 0]
    return [{**zero, **moved, "frame": 1}, *others] if zero.get("enabled") else others


def _parse_keyframe(keyframe: object) -> Keyframe:
    if not isinstance(keyframe, Mapping):
        raise BadRequest("a keyframe of the region is not an object: draw its box again")
    frame, fp = keyframe.get("frame"), keyframe.get("fp")
    if isinstance(frame, float) and frame.is_integer():
        frame = int(frame)
    number = read_frame(frame)
    if number is None:
        raise BadRequest(f"there is no frame {repr(frame)[:20]}: Label Studio's frames start at 1")
    numbers = {"rotation": 0} | {name: keyframe[name] for name in NUMBERS if name in keyframe}
    for name in NUMBERS:
        if read_number(numbers.get(name), _LARGEST) is None:
            raise BadRequest(f"the keyframe on frame {frame} has no number for {name}: draw its box again")
    if numbers["width"] <= 0 or numbers["height"] <= 0:
        raise BadRequest(f"the box on frame {frame} is empty: draw it larger")
    return Keyframe(
        frame=number,
        # As the page has it: where nothing is said, the box is shown on this frame only.
        enabled=bool(keyframe.get("enabled")),
        fp=fp if isinstance(fp, str) else None,
        human=keyframe.get("human") is True,
        **numbers,
    )


def mark_as_ours(keyframe: Keyframe) -> Keyframe:
    """A copy marked as set by the backend."""
    return replace(keyframe, fp=keyframe.fingerprint, human=False)


def marked_keyframe(frame: int, enabled: bool, box: Sequence[float], fingerprint: str) -> Keyframe:
    """A keyframe marked as set by the backend, whose fingerprint is known: a hash takes ten times as long as the rest.

    Args:
        box: percent `x y width height`.
    """
    x, y, width, height = box
    keyframe = Keyframe(frame, enabled, x, y, width, height, fp=fingerprint)
    keyframe.__dict__["fingerprint"] = fingerprint
    return keyframe


def boxes_to_percent(boxes: Boxes, width: int, height: int) -> Boxes:
    """Convert pixels `x0 y0 x1 y1` to percent `x y width height`, rounded as sent, never empty; shape (n, 4) both."""
    scaled = np.asarray(boxes, float) * (100 / np.array([width, height, width, height]))
    scaled[:, 2:] -= scaled[:, :2]
    scaled[:, 2:] = np.maximum(scaled[:, 2:], 1e-4)
    return np.round(scaled, 4) + 0.0


def percent_corners(boxes: Boxes) -> Boxes:
    """Convert boxes `x y width height` to `x0 y0 x1 y1`, both in percent; shape (n, 4) both."""
    return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])


def boxes_at(keyframes: Sequence[Keyframe], frames: NDArray[np.int64]) -> Boxes:
    """The boxes that the page shows for these keyframes on k LS frames: shape (k, 4), percent; NaN where it shows none.

    As Label Studio 1.23.2 does (getShape, isInLifespan): linear between keyframes, nothing before the first one and
    after one with `enabled: false`; the last one holds to the end.
    """
    rows, places = np.full((len(frames), 4), np.nan), np.array([key.frame for key in keyframes])
    corners = np.array([[key.x, key.y, key.width, key.height] for key in keyframes], float)
    enabled = np.array([key.enabled for key in keyframes])
    last = np.searchsorted(places, frames, side="right") - 1
    there = (last >= 0) & (enabled[last] | (places[last] == frames))
    for axis in range(4):
        rows[there, axis] = np.interp(frames[there], places, corners[:, axis])
    return np.round(rows, 4)


def format_keyframes(keyframes: Iterable[Keyframe]) -> list[list[Any]]:
    """Keyframes as our pages read them: frame, enabled, x, y, width, height, rotation, whether a person set it."""
    return [
        [key.frame, key.enabled, key.x, key.y, key.width, key.height, key.rotation, key.is_human] for key in keyframes
    ]


def count_visible_frames(keyframes: Sequence[Keyframe], stop: int) -> int:
    """The number of LS frames before `stop` on which these keyframes show a box."""
    ends = [*(key.frame for key in keyframes[1:]), stop]
    return sum(max(end - key.frame, 0) if key.enabled else 1 for key, end in zip(keyframes, ends, strict=True))
