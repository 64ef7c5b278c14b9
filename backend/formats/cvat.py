"""CVAT's XML 1.1 for video: a file for each video, to be uploaded to a task of CVAT as annotations."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from backend.formats.video_tracks import ExportTrack, VideoTracks
from backend.tracks.geometry import Boxes

SCORE, HUMAN = "score", "human"
"""Attributes: the score of a track, and whether a person set a keyframe."""


def write_cvat(videos: Iterable[VideoTracks], labels: Sequence[str], out: Path, dense: bool) -> None:
    """Write `NAME.xml` for each video. As CVAT does, it has every frame, and marks keyframes.

    A track is outside from the frame after its last one on, until it is shown again. Boxes have six decimals, so that
    keyframes come back as they were.
    """
    for video in videos:
        with (out / f"{video.name}.xml").open("w", encoding="utf-8") as file:
            file.writelines(_document(video, labels))


def _document(video: VideoTracks, labels: Sequence[str]) -> Iterator[str]:
    width, height = video.pixels
    yield '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta>\n<task>\n'
    yield f"<name>{escape(video.name)}</name>\n<size>{video.length}</size>\n<mode>interpolation</mode>\n"
    yield f"<start_frame>0</start_frame>\n<stop_frame>{video.length - 1}</stop_frame>\n<labels>\n"
    for label in labels:
        yield f"<label><name>{escape(label)}</name><type>rectangle</type><attributes>\n"
        yield _attribute(SCORE, "False", "text") + _attribute(HUMAN, "True", "checkbox", "false")
        yield "</attributes></label>\n"
    yield f"</labels>\n<original_size><width>{width}</width><height>{height}</height></original_size>\n"
    yield "</task>\n</meta>\n"
    for track in video.tracks:
        yield f'<track id="{track.id}" label={quoteattr(track.label)} source="auto">\n'
        yield from _boxes(track, video.length)
        yield "</track>\n"
    yield "</annotations>\n"


def _attribute(name: str, mutable: str, kind: str, default: str = "") -> str:
    return (
        f"<attribute><name>{name}</name><mutable>{mutable}</mutable><input_type>{kind}</input_type>"
        f"<default_value>{default}</default_value><values>{default}</values></attribute>\n"
    )


def _boxes(track: ExportTrack, length: int) -> Iterator[str]:
    """The box of every frame, and one that is outside after each stretch of frames."""
    boxes, rotations = unrotate(track)
    humans = dict(zip(track.keys.tolist(), track.human.tolist(), strict=True))
    frames, keys = track.frames, {*track.keys.tolist()}
    starts = np.diff(frames, prepend=-2) > 1
    ends = np.append(starts[1:], frames[-1:] < length - 1)
    score = "" if track.score is None else f'<attribute name="{SCORE}">{track.score:.4f}</attribute>'
    for row, (frame, box) in enumerate(zip(frames.tolist(), boxes.tolist(), strict=True)):
        sides = " ".join(f'{name}="{side:.6f}"' for name, side in zip(("xtl", "ytl", "xbr", "ybr"), box, strict=True))
        rotation = f' rotation="{rotations[row]:.4f}"' if rotations is not None else ""
        place = f'{sides}{rotation} z_order="0"'
        is_key = row in keys or starts[row] or ends[row]
        human = "true" if humans.get(row) else "false"
        yield _box(frame, 0, int(is_key), place, f'{score}<attribute name="{HUMAN}">{human}</attribute>')
        if ends[row]:
            yield _box(frame + 1, 1, 1, place, f'{score}<attribute name="{HUMAN}">false</attribute>')


def _box(frame: int, outside: int, key: int, place: str, attributes: str) -> str:
    marks = f'outside="{outside}" occluded="0" keyframe="{key}"'
    return f'<box frame="{frame}" {marks} {place}>{attributes}</box>\n'


def unrotate(track: ExportTrack) -> tuple[Boxes, NDArray[np.float64] | None]:
    """The boxes as they are before they are rotated about their centres, and the degrees; None if none is rotated."""
    if track.corners is None:
        return track.boxes, None
    along, down = track.corners[:, 1] - track.corners[:, 0], track.corners[:, 3] - track.corners[:, 0]
    half = np.stack([np.linalg.norm(along, axis=1), np.linalg.norm(down, axis=1)], axis=1) / 2
    centres = track.corners.mean(axis=1)
    degrees = np.degrees(np.arctan2(along[:, 1], along[:, 0])) % 360
    return np.hstack([centres - half, centres + half]), degrees
