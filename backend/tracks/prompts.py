"""What a person gave: plain values in pixels and source frames.

Not here: who gave it, in which region, and what came of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from backend.tracks.geometry import Box


class _OnFrame(Protocol):
    @property
    def frame(self) -> int: ...


F = TypeVar("F", bound=_OnFrame)


def group_by_frame(shown: Iterable[F]) -> dict[int, list[F]]:
    """What lies on each frame."""
    frames: dict[int, list[F]] = {}
    for one in shown:
        frames.setdefault(one.frame, []).append(one)
    return frames


Direction = Literal["forward", "backward", "both"]
"""Where to carry a prompt beyond the first and the last prompted frame."""


@dataclass(frozen=True, slots=True)
class Point:
    """A click in pixels; a negative one says "this is not part of the object"."""

    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a person showed of one object on one frame.

    Attributes:
        track: the object's id; prompts with the same id are one object.
        frame: 0-based source frame.
        box: around the object, in pixels.
        points: clicks on the object and beside it; with `box` they refine it. Negative ones alone say of a frame
            that is tracked already "this part is not it"; engines that cannot take them say so.
        mask: shape (height, width) of the picture, true on the object; stands alone.
    """

    track: str
    frame: int
    box: Box | None = None
    points: tuple[Point, ...] = ()
    mask: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.frame < 0:
            raise ValueError(f"frame is {self.frame}, but frames start at 0")
        if self.box is None and not self.points and self.mask is None:
            raise ValueError("a prompt needs a box, points or a mask")
        if self.mask is not None and (self.box is not None or self.points):
            raise ValueError("a mask stands alone: give no box and no points with it")
        if self.box is not None and not 0 < self.box.area < float("inf"):
            raise ValueError(f"the box {tuple(self.box)} is empty or has no end")

    @property
    def is_negative(self) -> bool:
        """Whether it only says what the object is not: negative points alone."""
        return self.box is None and self.mask is None and not any(point.positive for point in self.points)


@dataclass(frozen=True, slots=True)
class Target:
    """One object to track: its class, and its prompts by source frame."""

    label: str | None
    prompts: Mapping[int, Prompt]


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that every instance of some kind of object answers to, looked for from one frame on.

    Attributes:
        text: the words, as they were given.
        frame: 0-based source frame where the search starts, in whichever direction it goes.
    """

    text: str
    frame: int = 0

    def __post_init__(self) -> None:
        if self.frame < 0:
            raise ValueError(f"frame is {self.frame}, but frames start at 0")


@dataclass(frozen=True, slots=True)
class TextSearch:
    """Every object of one kind to find and track.

    Attributes:
        label: the class of what is found; None: the words themselves.
        text: the words.
        frame: 0-based source frame where the search starts; None: where the frames to track start.
    """

    label: str | None
    text: str
    frame: int | None = None
