"""The frames of one video for several readers that go through it together."""

from collections.abc import Callable, Generator
from functools import partial

from backend.video.decoder import Picture

_MAX_SKIPPED = 8
"""Up to so many frames that nobody read are decoded on the way; beyond that, decoding starts anew."""

ReadPicture = Callable[[], Picture]
"""Reads a frame; who does not call it costs no decoding."""


Pictures = Generator[tuple[int, Picture]]
"""Frame numbers and pictures."""


class FrameSequence:
    """Decodes each frame once for all who stand on it; one thread may use it.

    Args:
        open_frames: `Video.frames`.
    """

    def __init__(self, open_frames: Callable[[range, bool], Pictures]) -> None:
        self._open_frames = open_frames
        self._readers = 0
        self._pictures: Pictures | None = None
        self._reverse = False
        self._last: tuple[int, Picture] | None = None

    def follow(self, span: range, reverse: bool) -> Generator[tuple[int, ReadPicture]]:
        """See `Video.follow`."""
        self._readers += 1
        try:
            for frame in reversed(span) if reverse else span:
                rest = range(span.start, frame + 1) if reverse else range(frame, span.stop)
                yield frame, partial(self._read, frame, rest, reverse)
        finally:
            self._readers -= 1
            if not self._readers:
                self._close()

    def _read(self, frame: int, rest: range, reverse: bool) -> Picture:
        """Read a frame, as the first one of the rest of a span."""
        if self._last is None or self._last[0] != frame:
            self._last = self._go_on(frame, reverse) or self._start(rest, reverse)
        return self._last[1]

    def _go_on(self, frame: int, reverse: bool) -> tuple[int, Picture] | None:
        """The frame, if it comes soon."""
        if self._pictures is None or self._last is None or reverse != self._reverse:
            return None
        distance = self._last[0] - frame if reverse else frame - self._last[0]
        if not 0 < distance <= _MAX_SKIPPED + 1:
            return None
        return next((item for item in self._pictures if item[0] == frame), None)

    def _start(self, rest: range, reverse: bool) -> tuple[int, Picture]:
        self._close()
        self._pictures, self._reverse = self._open_frames(rest, reverse), reverse
        return next(self._pictures)

    def _close(self) -> None:
        if self._pictures is not None:
            self._pictures.close()
        self._pictures = self._last = None
