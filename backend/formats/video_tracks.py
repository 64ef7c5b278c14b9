"""What every format is written from: one task's tracks on all frames of its video. Plain values, no Label Studio."""

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.errors import SettingsError
from backend.tracks.geometry import Boxes
from backend.tracks.masks import Rle

Frames = NDArray[np.int64]
Size = tuple[int, int]
"""Width and height in pixels."""
UNNAMED = "object"
"""The class of a region without one."""
_FOREIGN = re.compile(r"[^-\w.]+")


@dataclass(frozen=True, slots=True, eq=False)
class ExportTrack:
    """One track.

    Attributes:
        id: the number that people see, unique within the clip.
        score: as the region has it, 0..1.
        frames: shape (n,), those that show it, ascending.
        boxes: shape (n, 4), pixels; parts of the picture, 0..1, where its size is unknown.
        keys: shape (m,), the rows that are keyframes.
        enabled: shape (m,), false: after this keyframe it is hidden until the next one.
        human: shape (m,), whether a person set it.
        masks: by frame, on some of the frames that show it.
    """

    id: int
    label: str
    score: float | None
    frames: Frames
    boxes: Boxes
    keys: Frames
    enabled: NDArray[np.bool_]
    human: NDArray[np.bool_]
    masks: Mapping[int, Rle] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class VideoTracks:
    """One task's video.

    Attributes:
        name: of its folder, unique in an export.
        length: frames.
        rate: frames per second.
        size: of its pictures; None: unknown.
    """

    task: int
    name: str
    length: int
    rate: float
    size: Size | None
    tracks: tuple[ExportTrack, ...]

    @property
    def pixels(self) -> Size:
        """Its pictures' size.

        Raises:
            SettingsError: it is unknown.
        """
        if self.size is None:
            raise SettingsError("the size of its pictures is unknown: give it as --size 1920x1080")
        return self.size

    @property
    def masked(self) -> list[ExportTrack]:
        """The tracks that have masks."""
        return [trace for trace in self.tracks if trace.masks]


def folder_name(task: int, video: str) -> str:
    """A clip's name: the task's number, and the video file's name without its ending."""
    stem = _FOREIGN.sub("_", Path(video.partition("?")[0]).stem).strip("._")
    return f"{task}-{stem[:80]}" if stem else str(task)


def number_labels(labels: Sequence[str]) -> dict[str, int]:
    """Classes by name, from 1 on."""
    return {label: number for number, label in enumerate(labels, start=1)}


def format_rows(form: str, *columns: Any) -> str:
    """A line of text a row, all at once.

    Args:
        form: with a % for each column.
        columns: numbers, each of shape (n,) or (n, k).
    """
    table = np.column_stack([np.asarray(column, float) for column in columns])
    text: str = form * len(table) % tuple(table.ravel().tolist())
    return text


def to_xywh(boxes: Boxes) -> Boxes:
    """Boxes `x0 y0 x1 y1` as `x y width height`; shape (n, 4) both."""
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])


def write_lines(path: Path, texts: Iterable[str]) -> None:
    """Write a text file, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Where to write what comes into place when it is complete, and not at all after an error."""
    part = path.with_name(f".{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        yield part
        if path.is_dir():
            path.rmdir()
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if part.is_file():
            part.unlink()
