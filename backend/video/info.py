"""What is known of a video once it was opened, without its file."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """The timing and the picture size of a video.

    Attributes:
        times: shape (n,), seconds at which each picture appears.
        end: seconds at which the last picture ends.
        width, height: pixels.
    """

    times: NDArray[np.float64]
    end: float
    width: int
    height: int
