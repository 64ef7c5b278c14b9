"""Input of every dataset writer: pictures and the objects on them, in pixels."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backend.formats.video_tracks import Size
from backend.tracks.geometry import Box
from backend.tracks.masks import Rle

DatasetFile = tuple[str, bytes]
"""A path relative to the dataset's folder, and the contents."""


@dataclass(frozen=True, slots=True)
class PicturePlace:
    """What the path of a picture is made of.

    Attributes:
        video: name, unique in the dataset.
        frame: source frame, from 0.
        split: train, val or test.
        suffix: of the file, with its dot.
        layout: of folders, see `DatasetOptions`.
    """

    video: str
    frame: int
    split: str
    suffix: str
    layout: str = "default"

    @property
    def name(self) -> str:
        """The file name without suffix, unique in the dataset."""
        return f"{self.video}_{self.frame:06d}"

    @property
    def file(self) -> str:
        """The file name."""
        return self.name + self.suffix


@dataclass(frozen=True, slots=True, eq=False)
class LabeledObject:
    """An object on a picture.

    Attributes:
        label: index of its class.
        track: track id, unique within the video.
        box: upright, inside the picture, with an area.
        corners: shape (4, 2), of the rotated box, clockwise from the upper left one; may lie outside the picture.
    """

    label: int
    track: int
    score: float | None
    box: Box
    corners: NDArray[np.float64]
    mask: Rle | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LabeledPicture:
    """A frame of a video.

    Attributes:
        name: file name without suffix, unique in the dataset.
        frame: source frame, from 0.
        time: seconds at which it appears.
        path: of the picture, relative to the dataset's folder; also where none is written.
    """

    name: str
    frame: int
    time: float
    path: str
    objects: tuple[LabeledObject, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class LabeledVideo:
    """The pictures of one video.

    Attributes:
        split: train, val or test.
    """

    task: int
    name: str
    split: str
    size: Size
    pictures: list[LabeledPicture] = field(default_factory=list)
