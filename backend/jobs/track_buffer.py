"""One track while it is computed: what each pass found, fused where a forward and a reverse pass overlap."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from backend.jobs.schedule import Interval, Pass
from backend.tracks.masks import Rle
from backend.tracks.track import Rows, Track, fuse_directions

_SpanRows = tuple[range, NDArray[np.floating[Any]]]
"""Source frames and their rows: x0 y0 x1 y1 score, NaN where the object is absent."""


class TrackBuffer:
    """One track through some intervals of a video; other threads may read it while it grows.

    Args:
        length: frames of the video.
        intervals: between two prompted frames the track goes both ways, else away from the prompted frame.
        max_frames: how far to go beyond a prompted frame towards the video's start or end; 0: no limit.
        span: source frames that the track does not leave; None: the whole video.
    """

    def __init__(
        self, length: int, intervals: Sequence[Interval], max_frames: int = 0, span: range | None = None
    ) -> None:
        self._length = length
        span = span or range(length)
        reach = max_frames or length
        # A group of passes that go through the same frames.
        self._groups: list[list[_PassBuffer]] = []
        for interval in intervals:
            first, last = interval.first, interval.last
            passes = []
            if first is not None:
                end = min(first + reach, span.stop - 1) if last is None else last
                passes.append(_PassBuffer(range(first, end + 1), False))
            if last is not None:
                start = max(last - reach, span.start) if first is None else first
                passes.append(_PassBuffer(range(start, last + 1), True))
            self._groups.append(passes)

    @classmethod
    def from_passes(cls, length: int, passes: Sequence[Pass]) -> Self:
        """A track on the frames of these passes, which overlap only if their directions differ; forward ones first."""
        track = cls(length, [])
        edges = sorted({edge for span, _ in passes for edge in (span.start, span.stop)})
        for start, stop in pairwise(edges):
            directions = [reverse for span, reverse in passes if start in span]
            track._groups.append([_PassBuffer(range(start, stop), reverse) for reverse in directions])
        return track

    @property
    def _buffers(self) -> Iterator["_PassBuffer"]:
        return (buffer for group in self._groups for buffer in group)

    @property
    def passes(self) -> list[Pass]:
        """The passes that compute the track."""
        return [Pass(buffer.span, buffer.reverse) for buffer in self._buffers]

    def add(self, frames: range, rows: Rows, reverse: bool, masks: Mapping[int, Rle] = MappingProxyType({})) -> None:
        """Add a session's results for some frames; frames outside the track's passes are ignored.

        The same results may be added twice.

        Args:
            frames: consecutive, from the lowest.
            rows: shape (frames, 5).
            reverse: the direction of the pass.
            masks: by frame.
        """
        for buffer in self._buffers:
            inside = range(max(frames.start, buffer.span.start), min(frames.stop, buffer.span.stop))
            if buffer.reverse == reverse and inside:
                buffer.add(inside, rows[inside.start - frames.start : inside.stop - frames.start])
                buffer.masks |= {frame: mask for frame, mask in masks.items() if frame in inside}

    def track(self) -> Track:
        """The track as far as it is computed."""
        parts = [part for group in self._groups for part in _fuse_passes(group)]
        first = min((frames.start for frames, _ in parts), default=0)
        stop = max((frames.stop for frames, _ in parts), default=0)
        rows = _expand(range(first, stop), parts)
        track = Track.from_rows(rows[:, :4], rows[:, 4], self._masks())
        return replace(track, start=first + track.start)

    def _masks(self) -> dict[int, Rle]:
        """Masks by frame; where two passes overlap, those of the pass that started nearer."""
        nearest: dict[int, tuple[int, Rle]] = {}
        for buffer in self._buffers:
            for frame, mask in list(buffer.masks.items()):  # a copy: another thread may add masks meanwhile
                if frame not in nearest or buffer.offset(frame) < nearest[frame][0]:
                    nearest[frame] = buffer.offset(frame), mask
        return {frame: mask for frame, (_, mask) in nearest.items()}

    def processed_frames(self) -> NDArray[np.bool_]:
        """Shape (length,): whether each frame was processed by at least one pass."""
        parts = [Pass(buffer.span, buffer.reverse).completed_part(buffer.count) for buffer in self._buffers]
        return frame_mask(self._length, parts)


def frame_mask(length: int, spans: Iterable[range]) -> NDArray[np.bool_]:
    """Shape (length,): true on the frames of these spans."""
    mask = np.zeros(length, bool)
    for span in spans:
        mask[span.start : span.stop] = True
    return mask


def _fuse_passes(group: Sequence["_PassBuffer"]) -> list[_SpanRows]:
    """The rows of one span, fused if a forward and a reverse pass went through it."""
    parts = [rows for buffer in group if (rows := buffer.rows())[0]]
    if len(parts) < 2:
        return parts
    span = group[0].span
    forward, backward = (_expand(span, [part]) for part in parts)
    boxes, scores = fuse_directions((forward[:, :4], forward[:, 4]), (backward[:, :4], backward[:, 4]))
    return [(span, np.column_stack([boxes, scores]))]


def _expand(span: range, parts: Iterable[_SpanRows]) -> NDArray[np.float64]:
    """Shape (n, 5): the rows of all frames of a span, NaN where no part has any."""
    expanded = np.full((len(span), 5), np.nan)
    for frames, rows in parts:
        expanded[frames.start - span.start : frames.stop - span.start] = rows
    return expanded


class _PassBuffer:
    """The rows of one pass; only frames between the first and the last sight of the object take memory."""

    __slots__ = ("_first", "_rows", "_used", "count", "masks", "reverse", "span")

    def __init__(self, span: range, reverse: bool) -> None:
        self.span = span
        self.reverse = reverse
        self.count = 0
        self.masks: dict[int, Rle] = {}
        # Rows are in the order of travel; row 0 lies `_first` frames after the start.
        self._first = 0
        self._rows: Rows = np.empty((0, 5), np.float32)
        self._used = 0

    def offset(self, frame: int) -> int:
        """How many frames a frame lies after the start of the pass."""
        return self.span[-1] - frame if self.reverse else frame - self.span[0]

    def add(self, frames: range, rows: Rows) -> None:
        """Add the next frames, rows by source frame; or frames that were added before."""
        offset = self.offset(frames[-1] if self.reverse else frames[0])
        rows = rows[::-1] if self.reverse else rows
        present = np.flatnonzero(~np.isnan(rows[:, 0]))
        if len(present):
            start, stop = int(present[0]), int(present[-1]) + 1
            if not self._used:
                self._first = offset + start
            first, last = offset + start - self._first, offset + stop - self._first
            if last > len(self._rows):
                self._grow(last)
            self._rows[first:last] = rows[start:stop]
            self._used = max(self._used, last)
        self.count = max(self.count, offset + len(rows))

    def _grow(self, rows: int) -> None:
        """Grow by at least an eighth, so that copies are rare and little memory is unused; never beyond the span."""
        rows = min(max(rows, len(self._rows) + len(self._rows) // 8 + 64), len(self.span) - self._first)
        more = np.full((rows - len(self._rows), 5), np.nan, np.float32)
        self._rows = np.concatenate([self._rows, more])

    def rows(self) -> _SpanRows:
        """The rows by source frame, from the first to the last sight of the object."""
        used = self._used  # read first: another thread may add the next frame meanwhile
        start, rows = self._first, self._rows[:used]
        if self.reverse:
            return range(self.span.stop - start - used, self.span.stop - start), rows[::-1]
        return range(self.span.start + start, self.span.start + start + used), rows
