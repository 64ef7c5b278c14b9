"""Decodes frames of an open file by number.

A frame is reached by decoding from the last key frame before it and identified by its time stamp, never by counting
after a seek.
"""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from backend.video.index import VideoIndex, VideoLimits, bad_video, decode_frames, open_video

Picture = NDArray[np.uint8]
"""Shape (height, width, 3), RGB, as displayed."""

_MAX_DECODED_AHEAD = 8  # up to so many frames before a key frame are decoded instead of skipped by a seek


class Decoder:
    """Reads frames by number, in any order. Not thread-safe.

    Attributes:
        damaged: number of the first frame that was found damaged; None: none was.
    """

    _last: tuple[int, av.VideoFrame] | None
    _pending: tuple[int, av.VideoFrame] | None  # already decoded, after the frame that was asked for

    def __init__(self, path: Path, index: VideoIndex, limits: VideoLimits) -> None:
        self._path, self._index, self._limits = path, index, limits
        self._container, self._stream = open_video(path, limits)
        self.damaged: int | None = None
        self._begin(None)

    def close(self) -> None:
        """Close the file and end the codec's threads."""
        self._begin(None)
        self._container.close()
        del self._frames, self._stream  # they keep the codec and its threads alive

    def read(self, number: int) -> Picture:
        """Frame `number`; if it is damaged, the one before it, which players keep showing."""
        return self._convert(self._decode(number))

    def read_backward(self, start: int, stop: int) -> Iterator[tuple[int, Picture]]:
        """Frames from the last to the first of a span, all of which are decoded first."""
        window = [(number, self._decode(number)) for number in range(start, stop)]
        while window:  # emptied as we go, to free memory
            number, frame = window.pop()
            yield number, self._convert(frame)

    def _decode(self, number: int) -> av.VideoFrame:
        if not self._is_near(number):
            self._seek(number)
        while self._last is None or self._last[0] < number:
            found = self._next()
            if found is None or found[0] > number:
                self._pending = found
                self._mark_damaged(number)
                break
            if found[1].is_corrupt:
                self._mark_damaged(found[0])
            self._last = found
        if self._last is None:
            raise bad_video("its first pictures are damaged")
        return self._last[1]

    def _mark_damaged(self, number: int) -> None:
        self.damaged = number if self.damaged is None else min(number, self.damaged)

    def _convert(self, frame: av.VideoFrame) -> Picture:
        """A frame as RGB, as displayed."""
        coded = frame.to_ndarray(format="rgb24", width=self._index.width, height=self._index.height)
        return np.ascontiguousarray(np.rot90(coded, self._index.quarter_turns), np.uint8)

    def _is_near(self, number: int) -> bool:
        """Whether decoding on reaches `number` sooner than a seek would."""
        here = self._last[0] if self._last else 0
        key = self._index.keys.searchsorted(self._index.stamps[number], "right") - 1
        near = key < 0 or self._index.stamps.searchsorted(self._index.keys[key]) <= here + _MAX_DECODED_AHEAD
        return bool(here <= number and near)

    def _seek(self, number: int) -> None:
        """Seek to the last key frame before `number`; if that fails, to an earlier one or to the start."""
        keys = self._index.keys[: self._index.keys.searchsorted(self._index.stamps[number], "right")]
        for key in keys[::-1][:8].tolist():
            try:
                self._container.seek(key, stream=self._stream)
            except av.FFmpegError:
                break
            self._begin(key)
            self._pending = self._next()
            if self._pending is not None and self._pending[0] <= number:
                return
        self._container.close()
        self._container, self._stream = open_video(self._path, self._limits)
        self._begin(None)

    def _begin(self, key: int | None) -> None:
        self._frames = self._numbered(decode_frames(self._container, self._stream, self._index.cut_position, key))
        self._last = self._pending = None

    def _next(self) -> tuple[int, av.VideoFrame] | None:
        found, self._pending = self._pending, None
        return found or next(self._frames, None)

    def _numbered(self, frames: Iterator[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
        for count, frame in enumerate(frames):
            number = count if self._index.is_counted else int(self._index.stamps.searchsorted(frame.pts or 0))
            if self._index.is_counted or self._index.stamps[number : number + 1].tolist() == [frame.pts]:
                yield number, frame
