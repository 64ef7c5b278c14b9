"""Test clips whose every frame carries its number, readable after lossy coding, scaling and screenshots.

    clip = write_clip(folder / "a.mp4", frames=60, rate=25, bframes=2)
    read_code(picture of frame 7) == 7            # raises Misread on a blend, a rotation or a wrong picture

The picture is a grid of 6 x 4 black and white cells that fills it: four corners that tell which way is up, 12 bits of
number, 8 bits of checksum. `CLIPS` names the kinds that tests, browser tests and benchmarks share.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

COLUMNS, ROWS = 6, 4
CORNERS = {0: 1, 5: 1, 18: 0, 23: 1}  # cell -> bit; no rotation or mirror image of it is the same
PLACES = [cell for cell in range(COLUMNS * ROWS) if cell not in CORNERS]


class Misread(AssertionError):
    """The picture carries no code, or one whose checksum is wrong."""


@dataclass(frozen=True)
class Clip:
    """A clip and what is true of it. Frame i carries the code `first` + i."""

    path: Path
    times: NDArray[np.float64]  # (n,), seconds as asked for; containers round them (mkv, webm: to 1 ms)
    width: int  # as displayed
    height: int
    first: int = 0  # the code of frame 0; more where an edit list hides the frames before

    def __len__(self) -> int:
        return len(self.times)


def _checksum(number: int) -> int:
    return (number * 0x9E3779B1 >> 12 ^ number ^ 0xA5) & 0xFF


def code_picture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """The picture (height, width, 3) that carries `number`, 0..4095."""
    value = number | _checksum(number) << 12
    cells = np.zeros(COLUMNS * ROWS, np.uint8)
    cells[list(CORNERS)] = list(CORNERS.values())
    cells[PLACES] = [value >> bit & 1 for bit in range(len(PLACES))]
    rows, columns = np.arange(height) * ROWS // height, np.arange(width) * COLUMNS // width
    grey = (cells.reshape(ROWS, COLUMNS) * 195 + 30).astype(np.uint8)[rows][:, columns]
    return np.repeat(grey[..., None], 3, axis=2)


def read_code(picture: NDArray[np.uint8]) -> int:
    """The number that a picture of any size (height, width, 3) carries.

    Raises:
        Misread: a cell is grey (a blend of two frames), a corner is wrong (rotated, mirrored) or the checksum is.
    """
    height, width = picture.shape[:2]
    bits = []
    for cell in range(COLUMNS * ROWS):
        row, column = divmod(cell, COLUMNS)
        y, x = (row + 0.5) * height / ROWS, (column + 0.5) * width / COLUMNS
        dy, dx = height / ROWS / 4, width / COLUMNS / 4
        level = float(picture[int(y - dy) : int(y + dy) + 1, int(x - dx) : int(x + dx) + 1].mean())
        if 90 < level < 165:
            raise Misread(f"cell {cell} is grey: {level:.0f}")
        bits.append(int(level > 127))
    if any(bits[cell] != bit for cell, bit in CORNERS.items()):
        raise Misread("the corners are wrong: no code, or rotated")
    value = sum(bits[cell] << place for place, cell in enumerate(PLACES))
    number = value & 0xFFF
    if value >> 12 != _checksum(number):
        raise Misread(f"the checksum of {number} is wrong")
    return number


def write_clip(
    path: Path,
    *,
    codec: str = "libx264",
    frames: int = 60,
    rate: Fraction | int = 25,
    times: Sequence[float] | None = None,
    size: tuple[int, int] = (192, 128),
    gop: int = 12,
    bframes: int = 0,
    rotation: int = 0,
    audio: float = 0.0,
    start: float = 0.0,
    options: dict[str, str] | None = None,
    draw: Callable[[int, int, int], NDArray[np.uint8]] = code_picture,
) -> Clip:
    """Write one clip; the ending of `path` picks the container.

    Args:
        path: where to; mp4, mkv, webm, ts, avi, …
        codec: an encoder of FFmpeg.
        frames: how many, unless `times` are given.
        rate: frames per second, unless `times` are given.
        times: seconds of each frame, rounded to 1 ms.
        size: width and height as displayed.
        gop: frames from key to key.
        bframes: at most so many B-frames in a row.
        rotation: degrees counter-clockwise by which a player must turn the coded picture: 0, 90, 180, 270.
        audio: seconds of a tone beginning at 0, as AAC or Opus; 0 for none.
        start: seconds by which all frames come later; if negative, an edit list of MP4 hides the frames before 0.
        options: of the encoder, over the defaults.
        draw: (number, width, height) -> picture.
    """
    unit = 1 / Fraction(rate) if times is None else Fraction(1, 1000)
    seconds = [float(i * unit) for i in range(frames)] if times is None else list(times)
    ticks = [round((second + start) / unit) for second in seconds]
    width, height = size
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as container:
        stream = container.add_stream(codec, rate=Fraction(rate), options=_options(codec, bframes, options))
        stream.width, stream.height = (height, width) if rotation % 180 else (width, height)
        # 4:2:0 has no odd sizes in x264; 4:4:4 has, and browsers play it
        stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        stream.codec_context.time_base, stream.codec_context.gop_size = unit, gop
        stream.codec_context.max_b_frames = bframes
        if rotation:
            stream.set_display_rotation(rotation)
        tone = container.add_stream("libopus" if path.suffix == ".webm" else "aac", rate=48000) if audio else None
        for number, tick in enumerate(ticks):
            picture = np.rot90(draw(number, width, height), -rotation // 90)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = tick, unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone is not None:
            _write_tone(container, tone, audio)
    hidden = sum(tick < 0 for tick in ticks)
    return Clip(path, np.array([float(tick * unit) for tick in ticks[hidden:]]), width, height, hidden)


def _uneven(frames: int) -> list[float]:
    """Times of a variable frame rate: steps of 20 to 250 ms, always the same."""
    steps = np.random.default_rng(1).choice([0.02, 0.033, 0.04, 0.1, 0.25], frames - 1)
    return [0.0, *np.cumsum(steps).round(3).tolist()]


CLIPS: dict[str, tuple[str, dict[str, Any]]] = {
    "constant": ("constant.mp4", {}),
    "ntsc": ("ntsc.mp4", {"rate": Fraction(30000, 1001)}),
    "variable": ("variable.mp4", {"times": _uneven(60), "bframes": 2}),
    "long_group": ("long_group.mp4", {"bframes": 3, "gop": 250, "frames": 120}),
    "late": ("late.mp4", {"start": 0.52}),
    "late_with_audio": ("late_with_audio.mp4", {"start": 0.52, "audio": 2.0}),
    "edit_list": ("edit_list.mp4", {"start": -0.2}),
    "mpegts": ("mpegts.ts", {"bframes": 2}),
    "mpegts_audio": ("mpegts_audio.ts", {"bframes": 2, "audio": 2.4}),
    "mpegts_open": ("mpegts_open.ts", {"bframes": 2, "options": {"x264-params": "scenecut=0:open-gop=1"}}),
    "matroska": ("matroska.mkv", {"bframes": 2}),
    "vp9": ("vp9.webm", {"codec": "libvpx-vp9"}),
    "vp8": ("vp8.webm", {"codec": "libvpx"}),
    "avi": ("avi.avi", {"codec": "mpeg4"}),
    "avi_bframes": ("avi_bframes.avi", {"codec": "mpeg4", "bframes": 2}),
    "avi_h264": ("avi_h264.avi", {"bframes": 2}),  # its time stamps are of no use
    "flv": ("flv.flv", {"bframes": 2}),
    "mpeg": ("mpeg.mpg", {"codec": "mpeg1video", "bframes": 2}),
    "rotated_90": ("rotated_90.mp4", {"rotation": 90}),
    "rotated_180": ("rotated_180.mp4", {"rotation": 180}),
    "rotated_270": ("rotated_270.mp4", {"rotation": 270}),
    "odd": ("odd.mp4", {"size": (191, 127)}),
    "long_audio": ("long_audio.mp4", {"audio": 4.0}),
}
"""Name -> file name and arguments of `write_clip`. Chromium plays those in mp4, mkv and webm."""


def write_clips(folder: Path, names: Sequence[str] = tuple(CLIPS)) -> dict[str, Clip]:
    """Write the named clips of `CLIPS`; all of them take about two seconds."""
    return {name: write_clip(folder / CLIPS[name][0], **CLIPS[name][1]) for name in names}


def _options(codec: str, bframes: int, options: dict[str, str] | None) -> dict[str, str]:
    defaults = {
        "libx264": {"preset": "veryfast", "bf": str(bframes), "crf": "20", "x264-params": "scenecut=0:b-adapt=0"},
        "libvpx": {"deadline": "realtime", "cpu-used": "8", "b": "1M"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "b": "1M"},
        "mpeg4": {"b": "2M", "bf": str(bframes)},
    }
    return {**defaults.get(codec, {}), **(options or {})}


def _write_tone(container: av.container.OutputContainer, stream: Any, seconds: float) -> None:
    samples = 1000
    for start in range(0, int(seconds * 48000), samples):
        wave = 0.1 * np.sin(np.arange(start, start + samples) * 2 * np.pi * 440 / 48000)
        stereo = np.stack([wave, wave]).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(stereo, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
