"""Converts between LS frames, which Label Studio counts from 1 at its framerate, and source frames, counted from 0."""

import math

import numpy as np
from numpy.typing import NDArray

from backend.errors import BadRequest
from backend.tracks.frame_range import MAX_FRAMES

# Label Studio shows frame k by seeking to (k - 1) / framerate plus this many seconds.
_SEEK = 0.002
# Tolerance in seconds: a picture that appears exactly when Label Studio seeks is shown.
_TIE = 1e-6
_SLOWEST, _FASTEST = 0.1, 1000.0


def check_framerate(framerate: float) -> None:
    """Check that a framerate is plausible.

    Raises:
        BadRequest: it is not between 0.1 and 1000 frames per second.
    """
    if not _SLOWEST <= framerate <= _FASTEST:
        raise BadRequest(f"the framerate {framerate:g} cannot be right: set fps in the task's data to the video's own")


def same_rate(one: float, other: float) -> bool:
    """Whether two frame rates count the same frames: they drift by less than one frame in 10,000."""
    return math.isclose(one, other, rel_tol=1e-4)


class FrameClock:
    """Converts between the frames that an annotator counts and the pictures of one file.

    Args:
        times: shape (n,), seconds from the file's start at which each picture appears, strictly increasing.
        end: seconds at which the last picture ends.
        framerate: frames per second that Label Studio counts with; it need not be the file's own.

    Raises:
        BadRequest: the framerate is not plausible.
    """

    def __init__(self, times: NDArray[np.float64], end: float, framerate: float) -> None:
        check_framerate(framerate)
        self.framerate = framerate
        # Rounded: a whole number of frames may come out slightly larger.
        self.length = max(1, math.ceil(round((end - _SEEK) * framerate, 6)))
        """How many LS frames show a picture; later ones lie after the last picture has ended."""
        if self.length > MAX_FRAMES:
            raise BadRequest(
                f"{self.length} frames at {framerate:g} a second are too many: correct fps in the task's data"
            )
        self.whole_frames = min(self.length, max(1, math.floor(round(end * framerate, 6))))
        """How many LS frames end before the video does: Label Studio's page may not count another one (1.23.2)."""
        self.picture_count = len(times)
        """How many pictures the file has."""
        self._times = times

    def check_frame(self, frame: int, length: int | None = None) -> None:
        """Check that the video has an LS frame.

        Args:
            length: how many LS frames the page counts, if it counts more.

        Raises:
            BadRequest: the frame is below 1 or after the last one.
        """
        if not 1 <= frame <= max(self.length, length or 0):
            raise BadRequest(f"there is no frame {frame}: the video has {self.length}")

    def source_frames(self, frames: range | NDArray[np.int64]) -> NDArray[np.int64]:
        """The source frame that each LS frame shows: the first one before, and the last one after all pictures."""
        seconds = (np.asarray(frames) - 1) / self.framerate + _SEEK + _TIE
        return np.clip(np.searchsorted(self._times, seconds, side="right") - 1, 0, len(self._times) - 1)

    def source_frame(self, frame: int) -> int:
        """The source frame that LS frame `frame` shows."""
        return int(self.source_frames(range(frame, frame + 1))[0])

    def first_frame(self, source: int) -> int:
        """The first LS frame that shows source frame `source`, or the next picture if no LS frame shows it."""
        return max(1, math.ceil((float(self._times[source]) - _SEEK - _TIE) * self.framerate) + 1)

    def hidden_pictures(self) -> NDArray[np.int64]:
        """The source frames that no LS frame shows."""
        return np.setdiff1d(np.arange(len(self._times)), self.source_frames(range(1, self.length + 1)))

    def describe_hidden(self) -> str | None:
        """What to say of pictures that no LS frame shows; None: there are none."""
        hidden = self.hidden_pictures().tolist()
        if not hidden:
            return None
        some = ", ".join(map(str, hidden[:5])) + (", …" if len(hidden) > 5 else "")
        return (
            f"at {self.framerate:g} frames/s, Label Studio never shows {len(hidden)} of {self.picture_count} pictures "
            f"({some}): save the video with a constant frame rate"
        )
