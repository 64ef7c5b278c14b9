"""Formats of one line a box: MOTChallenge, YOLO with track ids, CSV."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.formats.video_tracks import ExportTrack, VideoTracks, format_rows, number_labels, to_xywh, write_lines

COLUMNS = ("task", "frame", "track", "label", "x0", "y0", "x1", "y1", "score", "human", "keyframe", "enabled")
_BOX = "%.2f,%.2f,%.2f,%.2f"


def write_mot(clips: Iterable[VideoTracks], labels: Sequence[str], out: Path, dense: bool) -> None:
    """MOTChallenge's ground truth: `NAME/gt/gt.txt`, `NAME/seqinfo.ini`; beside them `seqmap.txt`, `labels.txt`.

    Frames from 1 on. A class is the number of its line in `labels.txt`; trackeval takes the first for pedestrians.
    """
    classes, names = number_labels(labels), []
    for clip in clips:
        write_sequence_info(clip, out)
        texts = [
            format_rows(f"%d,{trace.id},{_BOX},1,{classes[trace.label]},1\n", trace.frames + 1, to_xywh(trace.boxes))
            for trace in clip.tracks
        ]
        write_lines(out / clip.name / "gt" / "gt.txt", ["".join(texts).rstrip("\n")] if any(texts) else [])
        names.append(clip.name)
    write_lines(out / "seqmap.txt", ["name", *names])
    write_lines(out / "labels.txt", labels)


def write_sequence_info(clip: VideoTracks, out: Path) -> None:
    """What MOTChallenge and its readers know of a sequence."""
    width, height = clip.pixels
    info = {"name": clip.name, "imDir": "img1", "frameRate": f"{clip.rate:g}", "seqLength": clip.length}
    info |= {"imWidth": width, "imHeight": height, "imExt": ".jpg"}
    write_lines(out / clip.name / "seqinfo.ini", ["[Sequence]", *(f"{key}={value}" for key, value in info.items())])


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


def write_csv(clips: Iterable[VideoTracks], labels: Sequence[str], out: Path, dense: bool) -> None:
    """CSV with a header: keyframes, or with `dense` every frame that shows a track; pixels, frames from 0 on.

    `keyframe`: somebody or something set this box, the others lie between; `human`: a person did. `enabled` 0: the
    track is hidden on the frames after this one, until its next row; the last row's 1 says that it stays to the end.
    """
    with out.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(COLUMNS) + "\n")
        for clip in clips:
            _ = clip.pixels
            for trace in clip.tracks:
                file.write(_rows(clip, trace, dense))


def _rows(clip: VideoTracks, trace: ExportTrack, dense: bool) -> str:
    chosen = np.arange(len(trace.frames)) if dense else trace.keys
    marks = np.zeros((len(trace.frames), 3))
    marks[:, 2] = 1
    marks[trace.keys] = np.column_stack([trace.human, np.ones(len(trace.keys)), trace.enabled])
    label = _quoted(trace.label).replace("%", "%%")
    score = "" if trace.score is None else f"{trace.score:.4f}"
    form = f"{clip.task},%d,{trace.id},{label},{_BOX},{score},%d,%d,%d\n"
    return format_rows(form, trace.frames[chosen], trace.boxes[chosen], marks[chosen])


def _quoted(text: str) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([text])
    return line.getvalue()
