"""The formats by name: who writes each, into what, and what it needs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend.formats import coco, mask_formats, tables
from backend.formats.video_tracks import Clip

Writer = Callable[[Iterable[Clip], Sequence[str], Path, bool], None]
"""Writes clips with these classes to a place, every frame or keyframes alone."""


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    Attributes:
        needs: what its tracks have to have: the size of the pictures, or masks too.
        has_masks: it holds masks where there are some.
    """

    write: Writer
    is_folder: bool = False
    needs: Literal["nothing", "pixels", "masks"] = "pixels"
    has_masks: bool = False


LABELSTUDIO = "labelstudio"
"""The one that is written from tasks, not from clips."""
FORMATS: Mapping[str, Format] = {
    "mot": Format(tables.mot, is_folder=True),
    "mots": Format(mask_formats.mots, is_folder=True, needs="masks", has_masks=True),
    "coco-vid": Format(coco.coco_vid, has_masks=True),
    "youtube-vis": Format(coco.youtube_vis, has_masks=True),
    "yolo": Format(tables.yolo, is_folder=True, needs="nothing"),
    "davis": Format(mask_formats.davis, is_folder=True, needs="masks", has_masks=True),
    "csv": Format(tables.table),
}
NAMES = (*FORMATS, LABELSTUDIO)
