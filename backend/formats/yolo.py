"""YOLO's format with track ids: a file for each frame, a line for each box."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.formats.video_tracks import ExportTrack, VideoTracks, format_rows, number_labels, write_lines


def write_yolo(videos: Iterable[VideoTracks], labels: Sequence[str], out: Path, dense: bool) -> None:
    """Write `labels/NAME/FRAME.txt` for each frame, with lines `class cx cy w h track`, and `classes.txt`.

    Coordinates are fractions of the picture. Frames and classes count from 0. Boxes are clipped to the picture; boxes
    fully outside are left out.
    """
    classes = number_labels(labels)
    for video in videos:
        parts = [_to_rows(track, classes[track.label] - 1, video) for track in video.tracks]
        table = np.concatenate(parts) if parts else np.empty((0, 7))
        table = table[np.argsort(table[:, 0], kind="stable")]
        texts = format_rows("%d %.6f %.6f %.6f %.6f %d\n", table[:, 1:]).encode("ascii").splitlines(keepends=True)
        ends = np.searchsorted(table[:, 0], np.arange(video.length + 1)).tolist()
        folder = out / "labels" / video.name
        folder.mkdir(parents=True, exist_ok=True)
        for frame in range(video.length):
            (folder / f"{frame:06d}.txt").write_bytes(b"".join(texts[ends[frame] : ends[frame + 1]]))
    write_lines(out / "classes.txt", labels)


def _to_rows(track: ExportTrack, number: int, video: VideoTracks) -> NDArray[np.float64]:
    """Frame, class, centre, size and track id; shape (n, 7)."""
    boxes = np.clip(track.boxes / np.array([*(video.size or (1, 1))] * 2), 0, 1)
    sizes = boxes[:, 2:] - boxes[:, :2]
    rows = np.column_stack(
        [
            track.frames,
            np.full(len(boxes), number),
            boxes[:, :2] + sizes / 2,
            sizes,
            np.full(len(boxes), track.id),
        ]
    )
    inside: NDArray[np.float64] = rows[(sizes > 0).all(1)]
    return inside
