"""Mask formats: MOTS (lines of text) and DAVIS (pictures). Tracks without masks are left out.

Both assign each pixel to one object. Where masks overlap, the smaller mask is in front.
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
"""MOTS uses this class number for ignored regions."""
_OBJECTS = 254
"""Largest track id in DAVIS. A pixel is one byte: 0 is the background, and readers treat 255 as "unknown"."""


def check_masks(video: VideoTracks) -> None:
    """Check that a video has masks of its size.

    Raises:
        BadRequest: it has not.
    """
    if video.tracks and not video.masked:
        raise BadRequest("none of its tracks has masks: track with show_masks: true, or export boxes")
    width, height = video.pixels
    for mask in (mask for track in video.masked for mask in track.masks.values()):
        if (mask.width, mask.height) != (width, height):
            raise BadRequest(
                f"masks are {mask.width} x {mask.height} pixels and frames {width} x {height}: "
                "leave out --size, or track it again"
            )


def check_davis(video: VideoTracks) -> None:
    """Check that a video has masks of its size, and track ids that DAVIS can hold.

    Raises:
        BadRequest: it has not.
    """
    check_masks(video)
    if large := [track.id for track in video.masked if track.id > _OBJECTS]:
        raise BadRequest(
            f"DAVIS stores track ids up to {_OBJECTS}, and this video has track {large[0]}: export it as mots"
        )


def write_mots(videos: Iterable[VideoTracks], labels: Sequence[str], out: Path, dense: bool) -> None:
    """Write MOTS: `NAME/gt/gt.txt` with lines `frame id class height width rle`, and `seqinfo.ini` and `seqmap.txt`.

    Frames count from 1. Ids are class * 1000 + track. As in MOTS and KITTI, car is class 1 and person is class 2;
    other labels follow. `classes.txt` lists all classes.
    """
    classes, names = _mots_classes(labels), []
    for video in videos:
        write_sequence_info(video, out)
        class_numbers = {track.id: classes[track.label] for track in video.masked}
        factor = 10 ** max([3, *(len(str(track_id)) for track_id in class_numbers)])
        texts = [
            f"{frame + 1} {class_numbers[track_id] * factor + track_id} {class_numbers[track_id]} "
            f"{mask.height} {mask.width} {encode_rle(mask)}"
            for frame, masks in _by_frame(video)
            for track_id, mask in _without_overlaps(masks).items()
        ]
        write_lines(out / video.name / "gt" / "gt.txt", texts)
        names.append(video.name)
    write_lines(out / "seqmap.txt", ["name", *names])
    write_lines(out / "classes.txt", [f"{number} {label}" for label, number in classes.items()])


def _mots_classes(labels: Sequence[str]) -> dict[str, int]:
    free = (number for number in count(3) if number != _IGNORED)
    return {label: _MOTS.get(label.casefold()) or next(free) for label in labels}


def write_davis(videos: Iterable[VideoTracks], labels: Sequence[str], out: Path, dense: bool) -> None:
    """Write DAVIS: `Annotations/NAME/FRAME.png`, a palette picture of track ids for each frame; `ImageSets/all.txt`."""
    names = []
    for video in videos:
        width, height = video.pixels
        folder = out / "Annotations" / video.name
        folder.mkdir(parents=True, exist_ok=True)
        empty, masks = encode_png(np.zeros((height, width), np.uint8)), dict(_by_frame(video))
        for frame in range(video.length):
            picture = encode_png(_paint(masks[frame]).astype(np.uint8)) if frame in masks else empty
            (folder / f"{frame:06d}.png").write_bytes(picture)
        names.append(video.name)
    write_lines(out / "ImageSets" / "all.txt", names)


def _by_frame(video: VideoTracks) -> list[tuple[int, dict[int, Rle]]]:
    """Masks by track id, for each frame that has masks."""
    masks: defaultdict[int, dict[int, Rle]] = defaultdict(dict)
    for track in video.masked:
        for frame, mask in track.masks.items():
            masks[frame][track.id] = mask
    return sorted(masks.items())


def _paint(masks: Mapping[int, Rle]) -> NDArray[np.uint16]:
    """The id of the foremost object at each pixel, 0 for the background; shape (height, width)."""
    first = next(iter(masks.values()))
    pixels = np.zeros(first.width * first.height, np.uint16)
    for number, mask in sorted(masks.items(), key=lambda item: -item[1].area):
        ends = np.cumsum(mask.counts).tolist()
        for start, stop in zip(ends[::2], ends[1::2], strict=False):
            pixels[start:stop] = number
    return pixels.reshape(first.width, first.height).T


def _without_overlaps(masks: Mapping[int, Rle]) -> Mapping[int, Rle]:
    """Masks without the pixels that other masks cover; a mask that is fully covered is left out."""
    if len(masks) < 2 or not _have_overlap(masks.values()):
        return masks
    places = dict(enumerate(masks, start=1))
    painted = _paint({place: masks[track_id] for place, track_id in places.items()})
    return {track_id: Rle.from_mask(painted == place) for place, track_id in places.items() if (painted == place).any()}


def _have_overlap(masks: Iterable[Rle]) -> bool:
    """Whether two masks share a pixel: then some of the sorted runs overlap."""
    runs = np.concatenate([np.cumsum(mask.counts, dtype=np.int64)[: len(mask.counts) // 2 * 2] for mask in masks])
    runs = runs.reshape(-1, 2)
    runs = runs[runs[:, 0].argsort(kind="stable")]
    return bool((runs[1:, 0] < runs[:-1, 1]).any())


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode a palette PNG, which no library among our dependencies writes.

    Args:
        pixels: shape (height, width), palette indices.
    """
    height, width = pixels.shape
    raw = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter type: 0, none
    raw[:, 1:] = pixels
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", header), (b"PLTE", _PALETTE), (b"IDAT", zlib.compress(raw.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def _palette() -> bytes:
    """The 256 colours of PASCAL VOC and DAVIS: an index's bits fill red, green, blue in turn, high bits first."""
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((np.arange(256) >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours.tobytes()


_PALETTE = _palette()
