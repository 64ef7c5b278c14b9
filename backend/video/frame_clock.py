"""LS frames and source frames: Label Studio's 1-based frame at its framerate, and our 0-based picture of the file."""

import math

import numpy as np
from numpy.typing import NDArray

from backend.errors import BadRequest

# Label Studio shows frame k by seeking to (k - 1) / framerate plus this many seconds.
_SEEK = 0.002
# A picture that appears just when Label Studio seeks is the one that it shows.
_TIE = 1e-6
_SLOWEST, _FASTEST = 0.1, 1000.0
_LONGEST = 1_000_000


def check_framerate(framerate: float) -> None:
    """Refuse what no video counts with.

    Raises:
        BadRequest: it is below 0.1 or above 1000 frames per second, or no number.
    """
    if not _SLOWEST <= framerate <= _FASTEST:
        raise BadRequest(f"the framerate {framerate:g} cannot be right: set fps in the task's data to the video's own")


def same_rate(one: float, other: float) -> bool:
    """Whether two frame rates count the same frames: they drift by less than a frame in 10,000."""
    return math.isclose(one, other, rel_tol=1e-4)


class FrameClock:
    """Both ways between the frames that an annotator counts and the pictures of one file.

    Args:
        times: shape (n,), seconds from the file's start at which each picture appears, strictly increasing.
        end: seconds at which the last picture ends.
        framerate: frames per second that Label Studio counts with; it need not be the file's own.

    Raises:
        BadRequest: the framerate cannot be right.
    """

    def __init__(self, times: NDArray[np.float64], end: float, framerate: float) -> None:
        check_framerate(framerate)
        self.framerate = framerate
        # Rounded, for what is a whole number of frames may come out a little larger.
        self.length = max(1, math.ceil(round((end - _SEEK) * framerate, 6)))
        """The last LS frame that shows a picture for the first time or still; later ones outlast the pictures."""
        if self.length > _LONGEST:
            raise BadRequest(
                f"{self.length} frames at {framerate:g} a second are too many: correct fps in the task's data"
            )
        self.picture_count = len(times)
        """Pictures of the file."""
        self._times = times

    def check_frame(self, frame: int, length: int | None = None) -> None:
        """Refuse what is no LS frame of the video.

        Args:
            length: LS frames that the page counts, where it counts more.

        Raises:
            BadRequest: it is beyond the last one, or below 1.
        """
        if not 1 <= frame <= max(self.length, length or 0):
            raise BadRequest(f"there is no frame {frame}: the video has {self.length}")

    def source_frames(self, frames: range | NDArray[np.int64]) -> NDArray[np.int64]:
        """The source frame that each LS frame shows; before the first picture the first, after the last the last."""
        seconds = (np.asarray(frames) - 1) / self.framerate + _SEEK + _TIE
        return np.clip(np.searchsorted(self._times, seconds, side="right") - 1, 0, len(self._times) - 1)

    def source_frame(self, frame: int) -> int:
        """The source frame that LS frame `frame` shows."""
        return int(self.source_frames(range(frame, frame + 1))[0])

    def first_frame(self, source: int) -> int:
        """The first LS frame that shows source frame `source`, or the next picture where none shows it."""
        return max(1, math.ceil((float(self._times[source]) - _SEEK - _TIE) * self.framerate) + 1)
