"""Prompts: plain values in pixels and source frames.

They do not say who set them, in which region, or what was tracked from them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from backend.tracks.geometry import Box

LIKE = "like"
"""The name of a kind that has exemplars and no words."""


class _OnFrame(Protocol):
    @property
    def frame(self) -> int: ...


F = TypeVar("F", bound=_OnFrame)


def group_by_frame(items: Iterable[F]) -> dict[int, list[F]]:
    """The items of each frame."""
    frames: dict[int, list[F]] = {}
    for item in items:
        frames.setdefault(item.frame, []).append(item)
    return frames


Direction = Literal["forward", "backward", "both"]
"""In which direction to track beyond the first and the last prompted frame."""


@dataclass(frozen=True, slots=True)
class Point:
    """A click in pixels; a negative one marks what is not part of the object."""

    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a person marked of one object on one frame.

    Attributes:
        track: the object's id; prompts with the same id are one object.
        frame: 0-based source frame.
        box: around the object, in pixels.
        points: clicks on the object and outside it; with `box` they refine it. Negative points alone remove a part of
            the object on a frame that is already tracked; engines that do not support them raise Unsupported.
        mask: shape (height, width) of the picture, true on the object; excludes `box` and `points`.
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
            raise ValueError("a mask cannot be combined with a box or points: give one or the other")
        if self.box is not None and not 0 < self.box.area < float("inf"):
            raise ValueError(f"the box {tuple(self.box)} is empty or infinite")

    @property
    def is_negative(self) -> bool:
        """Whether it has negative points alone, which only mark what the object is not."""
        return self.box is None and self.mask is None and not any(point.positive for point in self.points)


@dataclass(frozen=True, slots=True)
class Target:
    """One object to track: its class, and its prompts by source frame."""

    label: str | None
    prompts: Mapping[int, Prompt]


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A box around an object of the kind to find, or, if it is not positive, of a kind not to find."""

    box: Box
    positive: bool = True


@dataclass(frozen=True, slots=True)
class Phrase:
    """A kind of object to find, by words, by exemplars on one frame, or by both: finds every object of it.

    Words alone are searched for on every frame from theirs on. Exemplars, and words beside them, are searched for on
    their frame, because SAM 3 reads a box on its own picture; what is found there is tracked.

    Attributes:
        text: the words as entered; empty: exemplars alone.
        frame: 0-based source frame where the search starts, in whichever direction it goes.
        exemplars: boxes on that frame, in pixels.
        name: of the kind; phrases with the same name are one kind. Default: the words.
    """

    text: str
    frame: int = 0
    exemplars: tuple[Exemplar, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        if self.frame < 0:
            raise ValueError(f"frame is {self.frame}, but frames start at 0")
        if self.exemplars and not self.text and not any(exemplar.positive for exemplar in self.exemplars):
            raise ValueError("exemplars of what not to find need words or a positive exemplar beside them")
        if not self.name:
            object.__setattr__(self, "name", self.text or LIKE)


@dataclass(frozen=True, slots=True)
class TextSearch:
    """A search for all objects of one kind, which are then tracked.

    Attributes:
        label: the class of the objects found; None: the words themselves.
        text: the words; empty: exemplars alone.
        frame: 0-based source frame where the search starts; None: the first of the frames to track.
        exemplars: by 0-based source frame; if there are any, only these frames are searched.
    """

    label: str | None
    text: str
    frame: int | None = None
    exemplars: Mapping[int, tuple[Exemplar, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the kind, which tells searches apart."""
        return f"{LIKE} {self.text or self.label or ''}".rstrip() if self.exemplars else self.text

    def phrases(self, start: int) -> list[Phrase]:
        """What an engine is asked; `start` is the first frame to track.

        Raises:
            ValueError: a frame has exemplars of what not to find alone.
        """
        if self.exemplars:
            return [Phrase(self.text, frame, some, self.name) for frame, some in sorted(self.exemplars.items())]
        return [Phrase(self.text, start if self.frame is None else self.frame)]
