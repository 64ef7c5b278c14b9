"""Masks in a file next to a file of tasks, since Label Studio's JSON cannot hold them.

`tasks.masks.json` next to `tasks.json`: `{region id: {source frame: {"size": [height, width], "counts": text}}}`, with
COCO's compressed run lengths as text; frames count from 0.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backend.errors import BadRequest
from backend.formats.mask_matching import Key, mask_bounds
from backend.formats.rle import parse_rle, rle_to_json
from backend.formats.video_tracks import Frames
from backend.tracks.geometry import Boxes
from backend.tracks.masks import Rle

Masks = Mapping[str, Mapping[int, Rle]]
"""Masks by region id, then by source frame."""


def sidecar_path(tasks: Path) -> Path:
    """The path of the masks of a file of tasks."""
    return tasks.with_suffix(".masks.json")


def write_sidecar(tasks: Path, masks: Masks) -> None:
    """Write masks next to a file of tasks."""
    texts = [
        f"{json.dumps(region)}: {json.dumps({frame: rle_to_json(mask) for frame, mask in sorted(frames.items())})}"
        for region, frames in masks.items()
    ]
    sidecar_path(tasks).write_text("{" + ",\n".join(texts) + "}\n", encoding="utf-8")


def read_sidecar(tasks: Path) -> dict[str, dict[int, Rle]]:
    """Read the masks next to a file of tasks; empty if there is no such file.

    Raises:
        BadRequest: the file cannot be read.
    """
    path = sidecar_path(tasks)
    if not path.is_file():
        return {}
    try:
        regions = json.loads(path.read_text(encoding="utf-8"))
        return {
            region: {int(frame): parse_rle(mask) for frame, mask in frames.items()}
            for region, frames in regions.items()
        }
    except (OSError, ValueError, AttributeError) as error:
        raise BadRequest(f"{path.name} is not a file of masks written by track: track again, or remove it") from error


@dataclass(frozen=True, slots=True)
class SidecarMasks:
    """Masks from a sidecar file, as a `MaskSource`."""

    regions: Masks

    @classmethod
    def for_regions(cls, masks: Masks, regions: Iterable[str]) -> "SidecarMasks":
        """The masks for a task with these regions; empty if it shares no region with the file."""
        return cls(masks if masks.keys() & {*regions} else {})

    def boxes(self) -> Iterator[tuple[Key, Frames, Boxes]]:
        """The masks' tight boxes."""
        for region, frames in self.regions.items():
            boxes = np.array([mask_bounds(mask) for mask in frames.values()]).reshape(-1, 4)
            yield (0, 0, region), np.array([*frames], np.int64), boxes

    def masks(self, keys: Collection[Key]) -> Iterator[tuple[Key, Mapping[int, Rle]]]:
        """All masks."""
        for region, frames in self.regions.items():
            yield (0, 0, region), frames
