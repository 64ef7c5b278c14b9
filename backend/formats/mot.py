"""MOTChallenge's format: a line for each box."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from backend.formats.video_tracks import VideoTracks, format_rows, number_labels, to_xywh, write_lines

_BOX = "%.2f,%.2f,%.2f,%.2f"


def write_mot(videos: Iterable[VideoTracks], labels: Sequence[str], out: Path, dense: bool) -> None:
    """Write MOTChallenge ground truth: `NAME/gt/gt.txt`, `NAME/seqinfo.ini`, `seqmap.txt` and `labels.txt`.

    Frames count from 1. A class number is a line number in `labels.txt`; trackeval takes class 1 for pedestrians.
    """
    classes, names = number_labels(labels), []
    for video in videos:
        write_sequence_info(video, out)
        texts = [
            format_rows(
                f"%d,{track.id},{_BOX},1,{classes[track.label]},1\n",
                track.frames + 1,
                to_xywh(track.boxes),
            )
            for track in video.tracks
        ]
        write_lines(out / video.name / "gt" / "labels.txt", labels)  # where CVAT and datumaro look for it
        write_lines(out / video.name / "gt" / "gt.txt", ["".join(texts).rstrip("\n")] if any(texts) else [])
        names.append(video.name)
    write_lines(out / "seqmap.txt", ["name", *names])
    write_lines(out / "labels.txt", labels)


def write_sequence_info(video: VideoTracks, out: Path) -> None:
    """Write `seqinfo.ini`, which describes a sequence to MOTChallenge's readers."""
    width, height = video.pixels
    info = {"name": video.name, "imDir": "img1", "frameRate": f"{video.rate:g}", "seqLength": video.length}
    info |= {"imWidth": width, "imHeight": height, "imExt": ".jpg"}
    write_lines(out / video.name / "seqinfo.ini", ["[Sequence]", *(f"{key}={value}" for key, value in info.items())])
