"""YOLO's format with track ids: a file for each frame, a line for each box."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.formats.video_tracks import ExportTrack, VideoTracks, format_rows, number_labels, write_lines


def write_yolo(clips: Iterable[VideoTracks], labels: Sequence[str], out: Path, dense: bool) -> None:
    """`labels/NAME/FRAME.txt`, one for every frame: `class cx cy w h track`, parts of the picture; `classes.txt`.

    Frames and classes from 0 on. What lies outside the picture is cut off; a box that lies outside is left out.
    """
    classes = number_labels(labels)
    for clip in clips:
        parts = [_yolo(trace, classes[trace.label] - 1, clip) for trace in clip.tracks]
        table = np.concatenate(parts) if parts else np.empty((0, 7))
        table = table[np.argsort(table[:, 0], kind="stable")]
        texts = format_rows("%d %.6f %.6f %.6f %.6f %d\n", table[:, 1:]).encode("ascii").splitlines(keepends=True)
        ends = np.searchsorted(table[:, 0], np.arange(clip.length + 1)).tolist()
        folder = out / "labels" / clip.name
        folder.mkdir(parents=True, exist_ok=True)
        for frame in range(clip.length):
            (folder / f"{frame:06d}.txt").write_bytes(b"".join(texts[ends[frame] : ends[frame + 1]]))
    write_lines(out / "classes.txt", labels)


def _yolo(trace: ExportTrack, number: int, clip: VideoTracks) -> NDArray[np.float64]:
    """Frame, class, centre, size and track; shape (n, 7)."""
    boxes = np.clip(trace.boxes / np.array([*(clip.size or (1, 1))] * 2), 0, 1)
    sizes = boxes[:, 2:] - boxes[:, :2]
    whole = np.column_stack(
        [
            trace.frames,
            np.full(len(boxes), number),
            boxes[:, :2] + sizes / 2,
            sizes,
            np.full(len(boxes), trace.id),
        ]
    )
    inside: NDArray[np.float64] = whole[(sizes > 0).all(1)]
    return inside
