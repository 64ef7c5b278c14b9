"""Map source frames to Label Studio (LS) frames: by the video's timestamps, else LS frame k is source frame k - 1."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.formats.video_tracks import Frames
from backend.video import VideoInfo
from backend.video.frame_clock import FrameClock


@dataclass(frozen=True, slots=True, eq=False)
class FrameTiming:
    """The LS frame of each source frame.

    Attributes:
        ls_frames: shape (length,), the first LS frame that shows each source frame; a fraction if none does,
            because the page counts fewer frames than the video has.
        last: the last LS frame of the video.
        rate: frames per second.
    """

    ls_frames: NDArray[np.float64]
    last: int
    rate: float
    _clock: FrameClock | None = None

    @classmethod
    def from_video(cls, video_info: VideoInfo, framerate: float) -> "FrameTiming":
        """From the video's timestamps.

        Args:
            framerate: frames per second of the LS frames.

        Raises:
            BadRequest: the frame rate does not fit the video.
        """
        clock = FrameClock(video_info.times, video_info.end, framerate)
        shown = clock.source_frames(range(1, clock.length + 1))
        ls_frames = video_info.times * framerate + 1
        # In reverse, so that the first LS frame that shows a source frame wins.
        ls_frames[shown[::-1]] = np.arange(clock.length, 0, -1)
        return cls(ls_frames, clock.length, video_info.rate, clock)

    @classmethod
    def from_counts(cls, length: int, framerate: float) -> "FrameTiming":
        """Without the video: one source frame for each LS frame."""
        return cls(np.arange(1.0, length + 1), length, framerate)

    @property
    def length(self) -> int:
        """Number of source frames."""
        return len(self.ls_frames)

    def frames(self, ls_frames: Frames) -> Frames:
        """The source frame that each LS frame shows."""
        return ls_frames - 1 if self._clock is None else self._clock.source_frames(ls_frames)
