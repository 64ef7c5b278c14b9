"""The file of masks beside a file of tasks, which Label Studio's JSON has no place for.

`tasks.masks.json` beside `tasks.json`: `{region id: {source frame: {"size": [height, width], "counts": text}}}`, with
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
"""By region, then by source frame."""


def sidecar_path(tasks: Path) -> Path:
    """Where the masks of a file of tasks are."""
    return tasks.with_suffix(".masks.json")


def write_sidecar(tasks: Path, masks: Masks) -> None:
    """Write them beside a file of tasks."""
    texts = [
        f"{json.dumps(region)}: {json.dumps({frame: rle_to_json(mask) for frame, mask in sorted(some.items())})}"
        for region, some in masks.items()
    ]
    sidecar_path(tasks).write_text("{" + ",\n".join(texts) + "}\n", encoding="utf-8")


def read_sidecar(tasks: Path) -> dict[str, dict[int, Rle]]:
    """Those beside a file of tasks, if there are any.

    Raises:
        BadRequest: what is there cannot be read.
    """
    path = sidecar_path(tasks)
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {region: {int(frame): parse_rle(mask) for frame, mask in some.items()} for region, some in found.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise BadRequest(f"{path.name} holds no masks as track writes them: track anew, or remove it") from error


@dataclass(frozen=True, slots=True)
class SidecarMasks:
    """These masks as a source."""

    kept: Masks

    @classmethod
    def for_regions(cls, masks: Masks, regions: Iterable[str]) -> "SidecarMasks":
        """For a task with these regions; one that has none of those that were kept is another video's."""
        return cls(masks if masks.keys() & {*regions} else {})

    def boxes(self) -> Iterator[tuple[Key, Frames, Boxes]]:
        """Their tight boxes."""
        for region, some in self.kept.items():
            boxes = np.array([mask_bounds(mask) for mask in some.values()]).reshape(-1, 4)
            yield (0, 0, region), np.array([*some], np.int64), boxes

    def masks(self, wanted: Collection[Key]) -> Iterator[tuple[Key, Mapping[int, Rle]]]:
        """All of them."""
        for region, some in self.kept.items():
            yield (0, 0, region), some
