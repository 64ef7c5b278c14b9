"""Ranges of LS frames: frames as Label Studio counts them, from 1."""

from typing import NamedTuple

LAST_FRAME = 10**8
"""The end of a range that goes to the end of the video."""
MAX_FRAMES = 1_000_000
"""No video has more LS frames. Requests are held to it before anything is allocated for what they claim."""


class FrameRange(NamedTuple):
    """LS frames, both included."""

    first: int = 1
    last: int = LAST_FRAME

    def contains(self, other: "FrameRange") -> bool:
        """Whether all frames of another range are in this one."""
        return self.first <= other.first and other.last <= self.last

    def __repr__(self) -> str:
        # Digests of saved jobs contain this text: do not change it with the name of the class.
        return f"Range(first={self.first}, last={self.last})"


ALL_FRAMES = FrameRange()
