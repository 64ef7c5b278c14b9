"""Tracks as other tools' files have them, and their checks."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backend.formats.video_tracks import Frames, Size
from backend.tracks.geometry import Boxes

Skip = Callable[[str], None]
"""Called with a sentence for each box, track or sequence that is left out."""


@dataclass(frozen=True, slots=True)
class ImportedKeyframe:
    """A keyframe as the file has it.

    Attributes:
        box: pixels `x0 y0 x1 y1`, before it is rotated.
        rotation: degrees, clockwise about its centre.
        enabled: false hides the track from the next frame on.
        human: the file says that a person set it in Label Studio.
    """

    frame: int
    box: tuple[float, float, float, float]
    rotation: float = 0.0
    enabled: bool = True
    human: bool = False


@dataclass(frozen=True, slots=True)
class Detection:
    """A box that belongs to no track.

    Attributes:
        label: its class; empty: the file names none.
        box: as those of tracks.
        score: 0..1; None: it has none.
    """

    frame: int
    label: str
    box: tuple[float, float, float, float]
    score: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ImportedTrack:
    """One track.

    Attributes:
        label: its class; empty: the file names none.
        frames: shape (n,), from 0 on, ascending.
        boxes: shape (n, 4), pixels.
        score: mean of the scores in the file, 0..1; None: it has none.
        keyframes: where the file has keyframes; then `frames` and `boxes` are theirs. Empty: it has every frame.
    """

    id: int
    label: str
    frames: Frames
    boxes: Boxes
    score: float | None = None
    keyframes: tuple[ImportedKeyframe, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ImportedVideo:
    """One video's tracks; `length` and `rate` as far as the file tells them.

    Attributes:
        size: of its pictures; None: unknown.
        detections: boxes that are to be linked to tracks.
        in_fractions: boxes are fractions of the picture, and not pixels.
    """

    name: str
    length: int
    rate: float | None
    size: Size | None
    tracks: tuple[ImportedTrack, ...]
    detections: tuple[Detection, ...] = ()
    in_fractions: bool = False


def check_boxes(name: str, frames: Frames, boxes: Boxes, skip: Skip) -> NDArray[np.int64]:
    """The rows of a track that can be used, in the order of their frames.

    Args:
        name: of the track, for the sentences.
        frames: shape (n,).
        boxes: shape (n, 4), pixels `x0 y0 x1 y1`.
    """
    order = np.argsort(frames, kind="stable")
    is_early = frames[order] < 0
    is_empty = ~np.isfinite(boxes[order]).all(axis=1) | ~(boxes[order, 2:] > boxes[order, :2]).all(axis=1)
    good = order[~is_early & ~is_empty]
    is_double = np.diff(frames[good], prepend=-1) == 0
    for is_bad, reason in ((is_early, "a frame before the first"), (~is_early & is_empty, "an empty box")):
        if count := int(is_bad.sum()):
            skip(f"{name}: {count} boxes are skipped, with {reason}, as on frame {frames[order[is_bad][0]]}")
    if count := int(is_double.sum()):
        skip(f"{name}: {count} boxes are skipped: it is twice on frame {frames[good[is_double][0]]}")
    rows: NDArray[np.int64] = good[~is_double]
    return rows


def build_track(number: int, boxes: Sequence[Detection], video: str, skip: Skip) -> ImportedTrack | None:
    """A track of these boxes; None if none of them can be used.

    Args:
        video: name of the video, for the sentences.
    """
    name = f"track {number} of {video}"
    frames, corners = np.array([item.frame for item in boxes]), np.array([item.box for item in boxes], float)
    kept = check_boxes(name, frames, corners, skip)
    if not len(kept):
        skip(f"{name} is skipped: it has no box")
        return None
    scores = [score for row in kept.tolist() if (score := boxes[row].score) is not None]
    score = float(np.mean(scores)) if scores else None
    return ImportedTrack(number, boxes[int(kept[0])].label, frames[kept], corners[kept], score)


def scale_video(video: ImportedVideo, size: Size) -> ImportedVideo:
    """The video with boxes in pixels of a picture of this size, if they are fractions."""
    if not video.in_fractions:
        return video
    factors = np.array([*size] * 2, float)
    tracks = tuple(replace(track, boxes=track.boxes * factors) for track in video.tracks)
    detections = []
    for item in video.detections:
        x0, y0, x1, y1 = (factors * item.box).tolist()
        detections.append(replace(item, box=(x0, y0, x1, y1)))
    return replace(video, tracks=tracks, detections=tuple(detections), in_fractions=False)


def renumber_tracks(tracks: Iterable[ImportedTrack]) -> dict[int, int]:
    """The ids that people see, from 1 on: those of the file, moved if it counts from 0."""
    ids = [track.id for track in tracks]
    first = min(ids, default=1)
    return {number: number + (0 if first >= 1 else 1 - first) for number in ids}
