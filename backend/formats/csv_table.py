"""CSV: a row for each box."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from backend.formats.video_tracks import ExportTrack, VideoTracks, format_rows

COLUMNS = ("task", "frame", "track", "label", "x0", "y0", "x1", "y1", "score", "human", "keyframe", "enabled")


def write_csv(videos: Iterable[VideoTracks], labels: Sequence[str], out: Path, dense: bool) -> None:
    """Write a CSV with a header: keyframes, or with `dense` every frame that shows a track.

    Boxes are in pixels, and frames count from 0. `keyframe` is 1 for keyframes and 0 for interpolated boxes; `human`
    is 1 if a person set the keyframe. `enabled` 0 hides the track from the next frame to its next row; 1 in the last
    row shows it to the end of the video.
    """
    with out.open("w", encoding="utf-8", newline="") as file:
        file.write(",".join(COLUMNS) + "\n")
        for video in videos:
            _ = video.pixels  # raises if the size is unknown
            for track in video.tracks:
                file.write(_format_track(video, track, dense))


def _format_track(video: VideoTracks, track: ExportTrack, dense: bool) -> str:
    rows = np.arange(len(track.frames)) if dense else track.keys
    marks = np.zeros((len(track.frames), 3))
    marks[:, 2] = 1
    marks[track.keys] = np.column_stack([track.human, np.ones(len(track.keys)), track.enabled])
    label = _quoted(track.label).replace("%", "%%")
    score = "" if track.score is None else f"{track.score:.4f}"
    template = f"{video.task},%d,{track.id},{label},%.2f,%.2f,%.2f,%.2f,{score},%d,%d,%d\n"
    return format_rows(template, track.frames[rows], track.boxes[rows], marks[rows])


def _quoted(text: str) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([text])
    return line.getvalue()
