"""Frames of the file and of the page: where the video is at hand by its clock, else LS frame k is frame k - 1."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.formats.video_tracks import Frames
from backend.video import VideoInfo
from backend.video.frame_clock import FrameClock


@dataclass(frozen=True, slots=True, eq=False)
class FrameTiming:
    """Which LS frame each frame is.

    Attributes:
        pages: shape (length,), the first LS frame that shows each; a fraction where none does, since the page counts
            fewer frames than there are.
        last: the last LS frame that is one of them.
        rate: frames per second.
    """

    pages: NDArray[np.float64]
    last: int
    rate: float
    _clock: FrameClock | None = None

    @classmethod
    def from_video(cls, video_info: VideoInfo, framerate: float) -> "FrameTiming":
        """By the video's own times.

        Args:
            framerate: what the page counts with.

        Raises:
            BadRequest: it cannot be right.
        """
        clock = FrameClock(video_info.times, video_info.end, framerate)
        shown = clock.source_frames(range(1, clock.length + 1))
        pages = video_info.times * framerate + 1
        # From the last to the first, so that the first one that shows a picture stays.
        pages[shown[::-1]] = np.arange(clock.length, 0, -1)
        return cls(pages, clock.length, video_info.rate, clock)

    @classmethod
    def from_counts(cls, length: int, framerate: float) -> "FrameTiming":
        """Without the video: as many frames as the page counts."""
        return cls(np.arange(1.0, length + 1), length, framerate)

    @property
    def length(self) -> int:
        """How many frames there are."""
        return len(self.pages)

    def frames(self, pages: Frames) -> Frames:
        """The frame that each LS frame shows."""
        return pages - 1 if self._clock is None else self._clock.source_frames(pages)


def read_rate(data: Mapping[str, Any]) -> float | None:
    """The frame rate in a task's data, by our config's name for it."""
    try:
        rate = float(str(data.get("fps")))
    except ValueError:
        return None
    return rate if 0.1 <= rate <= 1000 else None
