"""MOTChallenge's format: a line for each box."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from backend.formats.video_tracks import VideoTracks, format_rows, number_labels, to_xywh, write_lines

_BOX = "%.2f,%.2f,%.2f,%.2f"


def write_mot(clips: Iterable[VideoTracks], labels: Sequence[str], out: Path, dense: bool) -> None:
    """MOTChallenge's ground truth: `NAME/gt/gt.txt`, `NAME/seqinfo.ini`; beside them `seqmap.txt`, `labels.txt`.

    Frames from 1 on. A class is the number of its line in `labels.txt`; trackeval takes the first for pedestrians.
    """
    classes, names = number_labels(labels), []
    for clip in clips:
        write_sequence_info(clip, out)
        texts = [
            format_rows(
                f"%d,{trace.id},{_BOX},1,{classes[trace.label]},1\n",
                trace.frames + 1,
                to_xywh(trace.boxes),
            )
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
