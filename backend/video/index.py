"""The index of a video file: the time stamps of its frames and key frames.

A file is demuxed once, without decoding. If its time stamps are wrong (H.264 with B-frames in AVI), it is decoded once
in full, and frames are counted from its start: exact, but slow to read backward.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from backend.errors import BadVideo
from backend.settings import Settings
from backend.video.frame_clock import FrameClock

_PROBED_FRAMES = 8  # frames decoded on opening to verify the time stamps
_CUT_SECONDS = 0.1  # by which containers may be wrong about their length
_ROUNDING = 0.0015  # seconds by which containers round the time between two pictures, and some more
_SAME_RATE = 0.01  # relative difference of frame rates that mean the same
_HIGHEST_RATE = 60  # to show all pictures of a video whose rate varies; above, it may be
_MOST_REPEATS = 4  # times the average
_REORDER = 32  # how many places B-frames may move a frame between decoding and display; codecs allow 16
# FFmpeg guesses the format by content: a text file named evil.mp4 may be a playlist that reads other local files.
_THREAD_BYTES = 512 << 20
_OPTIONS = {"format_whitelist": "mov,matroska,webm,avi,mpegts,mpeg,flv,ogg", "protocol_whitelist": "file"}


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """Limits of a video file, checked before decoding."""

    pixels: int = 8192**2
    frames: int = 1_000_000

    @classmethod
    def from_settings(cls, settings: Settings) -> "VideoLimits":
        """The limits of the settings."""
        return cls(settings.limits.pixels, settings.limits.frames)


@dataclass(frozen=True, slots=True)
class VideoIndex:
    """A file's frames; time stamps count units of the stream."""

    stamps: NDArray[np.int64]  # (n,), ascending
    keys: NDArray[np.int64]  # time stamps at which decoding may begin, ascending; none if frames are counted
    is_counted: bool  # time stamps in the file are wrong: frames are identified by their order
    cut_position: int | None  # byte position of the last packet if the file ends within it
    quarter_turns: int  # quarter turns, counter-clockwise, from the coded picture to the displayed one
    frame_bytes: int  # of one decoded frame
    width: int  # pixels as coded, like height
    height: int
    times: NDArray[np.float64]
    end: float
    duration: float
    rate: float
    declared_end: float  # seconds at which the last frame ends by the container's own account; 0: it does not say

    @property
    def cut(self) -> str:
        """That the file breaks off, for people; empty: it does not."""
        if self.declared_end - self.end > max(_CUT_SECONDS, 2 / self.rate):
            return f"the video is cut off: it can be read for {self.end:.1f} of {self.declared_end:.1f} s"
        return "" if self.cut_position is None else f"the video is cut off after {self.end:.1f} s"


def bad_video(reason: str) -> BadVideo:
    """The error, with a way to fix it."""
    return BadVideo(f"this file holds no video that can be decoded: {reason}; save it as MP4 with H.264 and try again")


def open_video(path: Path, limits: VideoLimits) -> tuple[InputContainer, VideoStream]:
    """Open a file, which the caller closes, and find its first video stream."""
    bounds = {"max_pixels": str(limits.pixels)}  # also for the decoder, because the size may change within the file
    try:
        container = av.open(str(path.absolute()), options=_OPTIONS | bounds)
    except (av.FFmpegError, ValueError):
        raise bad_video("it is damaged, empty or in an unsupported format") from None
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    width, height = (streams[0].width, streams[0].height) if streams and streams[0].codec_context else (0, 0)
    if 0 < width * height <= limits.pixels:
        streams[0].thread_type = "AUTO"
        # Each thread holds pictures of its own.
        streams[0].codec_context.thread_count = max(
            1, min(8, os.cpu_count() or 1, _THREAD_BYTES // (3 * width * height))
        )
        streams[0].codec_context.options = bounds
        return container, streams[0]
    container.close()
    if width * height:
        raise bad_video(f"its frames of {width} x {height} have more than {limits.pixels} pixels")
    raise bad_video("its codec is unknown or its frames have no size" if streams else "it has no moving picture")


def _packets(container: InputContainer, stream: VideoStream) -> Iterator["av.Packet[Any]"]:
    """All packets, then an empty one that flushes the decoder; the file ends at a damaged part."""
    try:
        yield from container.demux(stream)
    except av.FFmpegError:
        flush: av.Packet[Any] = av.Packet()
        flush.stream = stream
        yield flush


def decode_frames(
    container: InputContainer, stream: VideoStream, cut: int | None, key: int | None = None
) -> Iterator[av.VideoFrame]:
    """Frames in display order, from the key frame with time stamp `key`, or from the file's current position.

    Yields nothing if the position is after that key frame. A seek may land anywhere, and a decoder that starts in the
    middle of a group invents pictures. It may also invent those displayed before the key frame, so use only later ones.
    """
    begun = key is None
    for packet in _packets(container, stream):
        if key is not None and not begun and packet.size:
            if packet.is_keyframe and packet.pts is not None and packet.pts > key:
                return
            begun = packet.is_keyframe and packet.pts == key
        if not begun or (packet.is_corrupt and packet.pos == cut):
            continue
        try:
            frames = stream.decode(packet)
        except av.FFmpegError:
            continue  # like players: only damaged frames are lost
        yield from frames


def _sort_stamps(stamps: list[int | None]) -> NDArray[np.int64] | None:
    """The sorted time stamps; None if one is missing, duplicate, or too far from its place."""
    if None in stamps or len(set(stamps)) < len(stamps):
        return None
    unsorted = np.array(stamps, np.int64)
    order = unsorted.argsort()
    return None if np.abs(order - np.arange(len(order))).max(initial=0) > _REORDER else unsorted[order]


def _scan(path: Path, limits: VideoLimits) -> tuple[list[tuple[int | None, int]], set[int], int | None]:
    """Time stamp and duration of every frame, time stamps of the key frames, position of a cut-off last packet."""
    frames: list[tuple[int | None, int]] = []
    keys: set[int] = set()
    cut: int | None = None
    container, stream = open_video(path, limits)
    with container:
        for packet in _packets(container, stream):
            if not packet.size:
                continue
            if packet.is_keyframe and packet.pts is not None:
                keys.add(packet.pts)
            # VP8 stores reference frames that are never shown as separate packets
            hidden = stream.codec_context.name == "vp8" and not bytes(packet)[0] & 0x10
            cut = packet.pos if packet.is_corrupt else None
            if not packet.is_discard and not hidden:
                frames.append((packet.pts, packet.duration or 0))
            if len(frames) > limits.frames:
                raise bad_video(f"it has more than {limits.frames} frames")
    return (frames if cut is None else frames[:-1]), keys, cut


def build_index(path: Path, limits: VideoLimits) -> VideoIndex:
    """Build the index from packets, or by decoding everything if the first frames contradict them."""
    scanned, keys, cut = _scan(path, limits)
    container, stream = open_video(path, limits)
    with container:
        unit = stream.time_base or Fraction(1, 1000)
        usual = max(1, round(1 / ((stream.average_rate or 25) * unit)))
        frames = decode_frames(container, stream, cut)
        head = list(islice(frames, _PROBED_FRAMES))
        if not head:
            raise bad_video("none of its frames can be decoded")
        shown = [frame.pts for frame in head]
        stamps = _sort_stamps([stamp for stamp, _ in scanned])
        if stamps is not None and shown[0] is not None:
            stamps = stamps[stamps.searchsorted(shown[0]) :]  # earlier frames refer to frames that are missing
        counted = stamps is None or stamps[: len(shown)].tolist() != shown
        if counted:
            shown += [frame.pts for frame in islice(frames, limits.frames)]
            stamps = _sort_stamps(shown)
        if stamps is None:
            stamps = np.arange(len(shown)) * usual
        times = stamps.astype(np.float64) * float(unit) - _start_time(container)
        last = dict(scanned).get(int(stamps[-1])) or (int(np.median(np.diff(stamps))) if len(stamps) > 1 else usual)
        end = float(times[-1]) + float(last * unit)
        rate = _frame_rate(times, end, [float(told) for told in (stream.average_rate, stream.base_rate) if told])
        duration = max((container.duration or 0) / av.time_base, end)
        begin = np.array([] if counted else sorted(keys), np.int64)
        size = sum(plane.buffer_size for plane in head[0].planes)
        turns, sides = head[0].rotation // 90, (stream.width, stream.height)
        declared = _declared_end(container, stream)
        return VideoIndex(stamps, begin, counted, cut, turns, size, *sides, times, end, duration, rate, declared)


def _frame_rate(times: NDArray[np.float64], end: float, told: Sequence[float]) -> float:
    """Frames per second at which Label Studio can show every picture; if there is no such rate, the usual one.

    Args:
        told: rates that the file tells; exact, where time stamps are rounded.
    """
    average = len(times) / (end - float(times[0]))
    intervals = np.diff(times, append=end)
    middle = np.median(intervals)
    near = np.abs(intervals - middle) <= max(_ROUNDING, middle / 10)
    usual, shortest = float(1 / intervals[near].mean()), float(1 / intervals.min())
    # If pictures were dropped, or the rate varies, the average drifts away from the pictures.
    usual = average if abs(usual / average - 1) < _SAME_RATE else usual
    usual = next((rate for rate in told if abs(rate / usual - 1) < _SAME_RATE), usual)
    if usual == average or near.all():
        return usual
    rates = [rate for rate in (usual, shortest) if rate <= max(_HIGHEST_RATE, _MOST_REPEATS * average)]
    return next((rate for rate in rates if not FrameClock(times, end, rate).hidden_pictures().size), usual)


def _declared_end(container: InputContainer, stream: VideoStream) -> float:
    """Seconds at which the video ends by the container's own account; 0: it does not say."""
    if stream.duration and stream.time_base:
        begin = stream.start_time or 0
        return float((begin + stream.duration) * stream.time_base) - _start_time(container)
    try:
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")  # Matroska
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return 0.0


def _start_time(container: InputContainer) -> float:
    """The time stamp that a player shows as 0. Chromium keeps a late start and shifts a negative one to 0."""
    starts = [s.start_time * s.time_base for s in container.streams if s.start_time is not None and s.time_base]
    start = float(min(starts, default=0))
    played = {"mp4", "webm", "ogg"} & set(container.format.name.split(","))
    return min(start, 0.0) if played else start
