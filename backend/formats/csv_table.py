"""CSV: a row for each box."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from backend.formats.video_tracks import ExportTrack, VideoTracks, format_rows

COLUMNS = ("task", "frame", "track", "label", "x0", "y0", "x1", "y1", "score", "human", "keyframe", "enabled")


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
    form = f"{clip.task},%d,{trace.id},{label},%.2f,%.2f,%.2f,%.2f,{score},%d,%d,%d\n"
    return format_rows(form, trace.frames[chosen], trace.boxes[chosen], marks[chosen])


def _quoted(text: str) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([text])
    return line.getvalue()
