"""Formats of masks: MOTS in lines of text, DAVIS in pictures. Tracks without masks are left out.

Both give a pixel to one object: where masks overlap, the smaller one lies in front.
"""

import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.errors import BadRequest
from backend.formats.mot import write_sequence_info
from backend.formats.rle import encode_rle
from backend.formats.video_tracks import VideoTracks, write_lines
from backend.tracks.masks import Rle

_MOTS = {"car": 1, "person": 2, "pedestrian": 2}
_IGNORED = 10
"""The number that MOTS gives to regions that do not count."""
_OBJECTS = 254
"""DAVIS has a byte for a pixel: 0 is the ground, and its readers take 255 for "unknown"."""


def write_mots(clips: Iterable[VideoTracks], labels: Sequence[str], out: Path, dense: bool) -> None:
    """MOTS: `NAME/gt/gt.txt` of lines `frame id class height width rle`; beside them as for MOTChallenge.

    Frames from 1 on; ids are class * 1000 + track. Car is class 1 and person 2, as MOTS and KITTI have them, other
    labels come after: `classes.txt` has them all.
    """
    classes, names = _mots_classes(labels), []
    for clip in clips:
        write_sequence_info(clip, out)
        known = {trace.id: classes[trace.label] for trace in clip.masked}
        factor = 10 ** max([3, *(len(str(track)) for track in known)])
        texts = [
            f"{frame + 1} {known[track] * factor + track} {known[track]} {mask.height} {mask.width} {encode_rle(mask)}"
            for frame, masks in _by_frame(clip)
            for track, mask in _apart(masks).items()
        ]
        write_lines(out / clip.name / "gt" / "gt.txt", texts)
        names.append(clip.name)
    write_lines(out / "seqmap.txt", ["name", *names])
    write_lines(out / "classes.txt", [f"{number} {label}" for label, number in classes.items()])


def _mots_classes(labels: Sequence[str]) -> dict[str, int]:
    free = (number for number in count(3) if number != _IGNORED)
    return {label: _MOTS.get(label.casefold()) or next(free) for label in labels}


def write_davis(clips: Iterable[VideoTracks], labels: Sequence[str], out: Path, dense: bool) -> None:
    """DAVIS: `Annotations/NAME/FRAME.png` of every frame, a palette picture of track ids; `ImageSets/all.txt`.

    Raises:
        BadRequest: a track's id does not fit into a byte.
    """
    names = []
    for clip in clips:
        width, height = clip.pixels
        if large := [trace.id for trace in clip.masked if trace.id > _OBJECTS]:
            raise BadRequest(f"DAVIS holds track ids up to {_OBJECTS}, and it has {large[0]}: export it as mots")
        folder = out / "Annotations" / clip.name
        folder.mkdir(parents=True, exist_ok=True)
        nothing, masks = encode_png(np.zeros((height, width), np.uint8)), dict(_by_frame(clip))
        for frame in range(clip.length):
            picture = encode_png(_paint(masks[frame]).astype(np.uint8)) if frame in masks else nothing
            (folder / f"{frame:06d}.png").write_bytes(picture)
        names.append(clip.name)
    write_lines(out / "ImageSets" / "all.txt", names)


def _by_frame(clip: VideoTracks) -> list[tuple[int, dict[int, Rle]]]:
    """Masks by track, for every frame that has some.

    Raises:
        BadRequest: one is of another size than the video.
    """
    width, height = clip.pixels
    found: defaultdict[int, dict[int, Rle]] = defaultdict(dict)
    for trace in clip.masked:
        for frame, mask in trace.masks.items():
            if (mask.width, mask.height) != (width, height):
                raise BadRequest(
                    f"its masks have {mask.width} x {mask.height} pixels, and its pictures {width} x {height}: "
                    "leave out --size, or track it again"
                )
            found[frame][trace.id] = mask
    return sorted(found.items())


def _paint(masks: Mapping[int, Rle]) -> NDArray[np.uint16]:
    """The id of the foremost object at each pixel, 0 where none is; shape (height, width)."""
    first = next(iter(masks.values()))
    pixels = np.zeros(first.width * first.height, np.uint16)
    for number, mask in sorted(masks.items(), key=lambda item: -item[1].area):
        ends = np.cumsum(mask.counts).tolist()
        for start, stop in zip(ends[::2], ends[1::2], strict=False):
            pixels[start:stop] = number
    return pixels.reshape(first.width, first.height).T


def _apart(masks: Mapping[int, Rle]) -> Mapping[int, Rle]:
    """The masks without what lies behind others; one that is hidden as a whole is left out."""
    if len(masks) < 2 or not _overlap(masks.values()):
        return masks
    places = dict(enumerate(masks, start=1))
    painted = _paint({place: masks[track] for place, track in places.items()})
    return {track: Rle.from_mask(painted == place) for place, track in places.items() if (painted == place).any()}


def _overlap(masks: Iterable[Rle]) -> bool:
    """Whether some pixel belongs to two: where the runs of all, sorted, reach into each other."""
    runs = np.concatenate([np.cumsum(mask.counts, dtype=np.int64)[: len(mask.counts) // 2 * 2] for mask in masks])
    runs = runs.reshape(-1, 2)
    runs = runs[runs[:, 0].argsort(kind="stable")]
    return bool((runs[1:, 0] < runs[:-1, 1]).any())


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture of palette colours; no other library here writes one.

    Args:
        pixels: shape (height, width), numbers of colours.
    """
    height, width = pixels.shape
    raw = np.zeros((height, width + 1), np.uint8)  # each row begins with the number of its filter: none
    raw[:, 1:] = pixels
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", header), (b"PLTE", _PALETTE), (b"IDAT", zlib.compress(raw.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def _palette() -> bytes:
    """The 256 colours of PASCAL VOC and DAVIS: a number's bits in turn are red's, green's and blue's highest."""
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((np.arange(256) >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours.tobytes()


_PALETTE = _palette()
