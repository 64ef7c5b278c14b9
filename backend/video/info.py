"""Timing and size of a video, kept after its file is closed."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from backend.video.reader import Video


@dataclass(frozen=True, slots=True, eq=False)
class VideoInfo:
    """The timing and the picture size of a video.

    Attributes:
        times: shape (n,), seconds at which each picture appears.
        end: seconds at which the last picture ends.
        duration: seconds of the container.
        rate: pictures per second.
        size: width and height in pixels.
        damage: see `Video.damage`.
    """

    times: NDArray[np.float64]
    end: float
    duration: float
    rate: float
    size: tuple[int, int]
    damage: str = ""

    @classmethod
    def from_video(cls, video: Video) -> Self:
        """The info of an open video, which may be closed afterwards."""
        return cls(video.times, video.end, video.duration, video.rate, (video.width, video.height), video.damage)

    @classmethod
    def evenly_spaced(cls, length: int, rate: float, size: tuple[int, int]) -> Self:
        """The info of a video that is not available: `length` pictures at `rate` pictures per second."""
        return cls(np.arange(length) / rate, length / rate, length / rate, rate, size)
