"""Reads video files as numbered pictures, exact in any container, and decodes ahead in order."""

import fcntl
import os
import queue
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from backend.errors import BackendError
from backend.video.decoder import Decoder, Picture
from backend.video.decoder_process import RemoteDecoder
from backend.video.index import VideoIndex, VideoLimits, bad_video, build_index
from backend.video.probe import load_index
from backend.video.sequence import FrameSequence, Pictures, ReadPicture

_QUEUE_BYTES = 64 << 20  # pictures decoded ahead of the consumer
_WINDOW_BYTES = 256 << 20  # decoded frames held while reading backward


def hold_file(path: Path) -> int:
    """Open a file so that the cache that it may be in does not remove it; the caller closes the file descriptor.

    Raises:
        BadVideo: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        raise bad_video("it cannot be opened") from None
    with suppress(OSError):  # some network disks have no locks
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


class _ReadAhead:
    """A thread that keeps at most `room` pictures ready until it is closed. Iterate once."""

    def __init__(self, pictures: Pictures, room: int) -> None:
        self._pictures, self._room, self._closed = pictures, threading.Semaphore(room), False
        self._ready: queue.SimpleQueue[tuple[int, Picture] | BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._fill, name="video-ahead", daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        end: BaseException | None = None
        try:
            for item in self._pictures:
                self._room.acquire()
                if self._closed:
                    end = ValueError("the video is closed")
                    break
                self._ready.put(item)
            self._pictures.close()
        except BaseException as error:  # raised in the consumer
            end = error
        self._ready.put(end)

    def __iter__(self) -> Pictures:
        while isinstance(item := self._ready.get(), tuple):
            self._room.release()
            yield item
        if item is not None:
            raise item

    def close(self) -> None:
        self._closed = True
        self._room.release()
        self._thread.join()


OpenDecoder = Callable[[Path, VideoIndex, VideoLimits], Decoder | RemoteDecoder]


class Video:
    """A video file as numbered pictures, 0..len-1. A context manager; closing ends decoders and threads.

    `read` and `frames` may be used alternately and from several threads.

    Attributes:
        times: shape (n,), seconds at which each frame appears, as `currentTime` in a browser; strictly increasing.
        end: seconds at which the last frame ends.
        duration: seconds of the container, at least `end`; Label Studio's length is round(duration * framerate).
        rate: frames per second; see `VideoIndex`.
        width: pixels, as displayed, like `height`.
        key: identifies the file and its current content.

    Args:
        open_decoder: `DecoderProcesses.open`, or `Decoder` to decode in this process.

    Raises:
        BadVideo: no frame can be decoded, or the file exceeds the limits.
    """

    _sequence: FrameSequence | None = None

    def __init__(
        self,
        path: Path,
        limits: VideoLimits | None = None,
        index: VideoIndex | None = None,
        open_decoder: OpenDecoder = Decoder,
    ) -> None:
        self._path, self._limits, self._open_decoder = path, limits or VideoLimits(), open_decoder
        self._release = weakref.finalize(self, os.close, hold_file(path))
        try:
            self._index = index or load_index(path) or build_index(path, self._limits)
            self._decoder = open_decoder(path, self._index, self._limits)
        except (BackendError, MemoryError):
            self._release()
            raise
        except Exception as error:  # whatever a damaged file makes of PyAV
            self._release()
            raise bad_video("it is damaged") from error
        self._lock, self._closed = threading.Lock(), False
        self.key = (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)
        self._read_aheads: set[_ReadAhead] = set()
        self._damaged: int | None = None  # the first frame that was found damaged
        self.times, self.end = self._index.times, self._index.end
        self.duration, self.rate = self._index.duration, self._index.rate
        sides = self._index.width, self._index.height
        self.width, self.height = sides[::-1] if self._index.quarter_turns % 2 else sides

    def __len__(self) -> int:
        return len(self.times)

    @property
    def damage(self) -> str:
        """What is wrong with the file as far as it was read, for people; empty: nothing is known to be."""
        found = [f"the video is damaged at {self.times[self._damaged]:.1f} s"] if self._damaged is not None else []
        return "; ".join([*found, *([self._index.cut] if self._index.cut else [])])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all decoders and threads; later use raises ValueError."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._decoder.close()
                self._release()
        for ahead in tuple(self._read_aheads):
            ahead.close()

    def reopen(self) -> "Video":
        """Open the file of a closed video again, without reading its index again.

        Raises:
            BadVideo: the file is gone.
        """
        return Video(self._path, self._limits, self._index, self._open_decoder)

    def read(self, index: int) -> Picture:
        """Frame `index`, in any order; if it is damaged, the one before it, which players keep showing.

        Raises:
            IndexError: `index` is outside 0..len-1.
        """
        with self._lock:
            self._check(range(index, index + 1))
            picture = self._decoder.read(index)
            self._note_damage(self._decoder)
            return picture

    def frames(self, span: range, reverse: bool = False) -> Pictures:
        """Number and picture of each frame of `span`. A thread decodes ahead; it ends when the generator is closed.

        Raises:
            IndexError: `span` is not within 0..len-1.
            ValueError: its step is not 1.
        """
        self._check(span)
        return self._run(span, lambda: self._backward(span) if reverse else self._forward(span))

    def follow(self, span: range, reverse: bool = False) -> Generator[tuple[int, ReadPicture]]:
        """As `frames`, for several in one thread that go through the video together.

        Yields the number of each frame, and a function that reads it until the next one is taken. A frame is decoded
        once for all who stand on it, and not at all if nobody reads it. Do not change the picture: others get it, too.
        """
        if self._sequence is None:
            self._sequence = FrameSequence(self.frames)
        return self._sequence.follow(span, reverse)

    def select(self, numbers: Sequence[int]) -> Pictures:
        """As `frames`, but only these frames, ascending; the others are not converted, and skipped where a seek helps.

        Raises:
            IndexError: a number is outside 0..len-1.
        """
        span = range(min(numbers), max(numbers) + 1) if numbers else range(0)
        self._check(span)
        return self._run(span, lambda: self._forward(numbers))

    def _check(self, span: range) -> None:
        if self._closed:
            raise ValueError("the video is closed")
        if span.step != 1:
            raise ValueError(f"the step is {span.step}, but must be 1")
        if span and not 0 <= span.start < span.stop <= len(self):
            raise IndexError(f"there are no frames {span.start} to {span.stop - 1}: the video has 0 to {len(self) - 1}")

    def _run(self, span: range, pictures: Callable[[], Pictures]) -> Pictures:
        with self._lock:
            self._check(span)
            ahead = _ReadAhead(pictures(), max(1, _QUEUE_BYTES // (self.width * self.height * 3)))
            self._read_aheads.add(ahead)
        try:
            yield from ahead
        finally:
            self._read_aheads.discard(ahead)
            ahead.close()

    def _note_damage(self, decoder: Decoder | RemoteDecoder) -> None:
        if decoder.damaged is not None and (self._damaged is None or decoder.damaged < self._damaged):
            self._damaged = decoder.damaged

    def _forward(self, numbers: Iterable[int]) -> Pictures:
        decoder = self._open_decoder(self._path, self._index, self._limits)
        try:
            for number in numbers:
                yield number, decoder.read(number)
        finally:
            self._note_damage(decoder)
            decoder.close()

    def _backward(self, span: range) -> Pictures:
        """Read windows from the last to the first, each decoded forward, from a key frame if memory allows."""
        decoder = self._open_decoder(self._path, self._index, self._limits)
        max_frames = max(1, _WINDOW_BYTES // self._index.frame_bytes)
        begins = self._index.stamps.searchsorted(self._index.keys)
        stop = span.stop
        try:
            while stop > span.start:
                start = max(span.start, stop - max_frames)
                if start > span.start:
                    start = int(min(begins[(begins >= start) & (begins < stop)], default=start))
                yield from decoder.read_backward(start, stop)
                stop = start
        finally:
            self._note_damage(decoder)
            decoder.close()
