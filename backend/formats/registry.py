"""Export formats by name: their writers, and what each needs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend.formats.coco import write_coco_vid, write_youtube_vis
from backend.formats.csv_table import write_csv
from backend.formats.cvat import write_cvat
from backend.formats.mask_formats import write_davis, write_mots
from backend.formats.mot import write_mot
from backend.formats.video_tracks import VideoTracks

Writer = Callable[[Iterable[VideoTracks], Sequence[str], Path, bool], None]
"""Writes videos with these classes to a path: every frame if `dense`, else keyframes where the format has them."""


@dataclass(frozen=True, slots=True)
class Format:
    """An export format.

    Attributes:
        is_folder: it writes a folder, not a file.
        needs: what the tracks must have: the video's size in pixels, or that and masks.
        has_masks: it stores masks where tracks have them.
        picture_path: where its readers look for a frame, by the video's name and the frame; None: it has no pictures.
    """

    write: Writer
    is_folder: bool = False
    needs: Literal["pixels", "masks"] = "pixels"
    has_masks: bool = False
    picture_path: Callable[[str, int], str] | None = None


LABELSTUDIO = "labelstudio"
"""Label Studio's own format, written from tasks and not from `VideoTracks`."""


def _mot_picture(video: str, frame: int) -> str:
    return f"{video}/img1/{frame + 1:06d}.jpg"


def _davis_picture(video: str, frame: int) -> str:
    return f"JPEGImages/{video}/{frame:06d}.jpg"


FORMATS: Mapping[str, Format] = {
    "mot": Format(write_mot, is_folder=True, picture_path=_mot_picture),
    "mots": Format(write_mots, is_folder=True, needs="masks", has_masks=True, picture_path=_mot_picture),
    "coco-vid": Format(write_coco_vid, has_masks=True),
    "youtube-vis": Format(write_youtube_vis, has_masks=True),
    "davis": Format(write_davis, is_folder=True, needs="masks", has_masks=True, picture_path=_davis_picture),
    "cvat": Format(write_cvat, is_folder=True),
    "csv": Format(write_csv),
}
NAMES = (*FORMATS, LABELSTUDIO)
