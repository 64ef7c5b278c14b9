"""Input of every export format: one task's tracks on all frames of its video, independent of Label Studio."""

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
"""The class of regions without a label."""
_FOREIGN = re.compile(r"[^-\w.]+")


@dataclass(frozen=True, slots=True, eq=False)
class ExportTrack:
    """A track to export.

    Attributes:
        id: the track's number, unique within the video.
        score: the region's score, 0..1.
        frames: shape (n,), the frames that show it, ascending.
        boxes: shape (n, 4), pixels; fractions of the picture, 0..1, if its size is unknown.
        keys: shape (m,), indices of the keyframes in `frames`.
        enabled: shape (m,); false hides the track after this keyframe until the next.
        human: shape (m,), whether a person set the keyframe.
        masks: by frame; some frames may have none.
        corners: shape (n, 4, 2), pixels, of the boxes as they are rotated, clockwise from the upper left one; None if
            none is rotated.
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
    corners: NDArray[np.float64] | None = None

    def select(self, keep: NDArray[np.bool_]) -> "ExportTrack":
        """The track on some of its frames; `keep` has shape (n,)."""
        frames, keyed = self.frames[keep], keep[self.keys]
        return replace(
            self,
            frames=frames,
            boxes=self.boxes[keep],
            keys=np.searchsorted(frames, self.frames[self.keys[keyed]]),
            enabled=self.enabled[keyed],
            human=self.human[keyed],
            masks={frame: self.masks[frame] for frame in frames.tolist() if frame in self.masks},
            corners=None if self.corners is None else self.corners[keep],
        )


@dataclass(frozen=True, slots=True, eq=False)
class VideoTracks:
    """The video of a task and its tracks.

    Attributes:
        name: folder name, unique in an export.
        length: number of frames.
        rate: frames per second.
        size: None if unknown.
        skipped: a sentence for each region or keyframe that could not be read.
    """

    task: int
    name: str
    length: int
    rate: float
    size: Size | None
    tracks: tuple[ExportTrack, ...]
    skipped: tuple[str, ...] = ()

    @property
    def pixels(self) -> Size:
        """Width and height in pixels.

        Raises:
            SettingsError: the size is unknown.
        """
        if self.size is None:
            raise SettingsError("the video's size is unknown: give it as --size 1920x1080")
        return self.size

    @property
    def masked(self) -> list[ExportTrack]:
        """The tracks that have masks."""
        return [track for track in self.tracks if track.masks]


def folder_name(task: int, video: str) -> str:
    """A folder's name: the task number and the video's file name without its extension."""
    stem = _FOREIGN.sub("_", Path(video.partition("?")[0]).stem).strip("._")
    return f"{task}-{stem[:80]}" if stem else str(task)


def number_labels(labels: Sequence[str]) -> dict[str, int]:
    """Class numbers by label, counting from 1."""
    return {label: number for number, label in enumerate(labels, start=1)}


def format_rows(template: str, *columns: Any) -> str:
    """Format all rows of a table at once, a line of text for each.

    Args:
        template: the text of a row, with a % placeholder for each column.
        columns: arrays of shape (n,) or (n, k).
    """
    table = np.column_stack([np.asarray(column, float) for column in columns])
    text: str = template * len(table) % tuple(table.ravel().tolist())
    return text


def to_xywh(boxes: Boxes) -> Boxes:
    """Convert boxes `x0 y0 x1 y1` to `x y width height`; both shape (n, 4)."""
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file and create its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` on success; after an error, `path` is unchanged."""
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
