"""Export formats by name: their writers, and what each needs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.formats.coco import write_coco_vid, write_youtube_vis
from backend.formats.csv_table import write_csv
from backend.formats.cvat import write_cvat
from backend.formats.mask_formats import check_davis, check_masks, write_davis, write_mots
from backend.formats.mot import write_mot
from backend.formats.video_tracks import VideoTracks

Writer = Callable[[Iterable[VideoTracks], Sequence[str], Path, bool], None]
"""Writes videos with these classes to a path: every frame if `dense`, else keyframes where the format has them."""


@dataclass(frozen=True, slots=True)
class Format:
    """An export format.

    Attributes:
        loses: what it cannot hold, as the end of a sentence.
        is_folder: it writes a folder, not a file.
        has_masks: it stores masks where tracks have them.
        check: raises a BackendError if it cannot hold a video's tracks; None: it holds all.
        picture_path: where its readers look for a frame, by the video's name and the frame; None: it has no pictures.
        file: of a format that is a file, its path in a folder.
    """

    write: Writer
    loses: str
    is_folder: bool = False
    has_masks: bool = False
    check: Callable[[VideoTracks], None] | None = None
    picture_path: Callable[[str, int], str] | None = None
    file: str = ""

    @property
    def needs_masks(self) -> bool:
        """Whether tracks without masks are left out."""
        return self.has_masks and self.check is not None


LABELSTUDIO = "labelstudio"
"""Label Studio's own format, written from tasks and not from `VideoTracks`."""


def _mot_picture(video: str, frame: int) -> str:
    return f"{video}/img1/{frame + 1:06d}.jpg"


def _davis_picture(video: str, frame: int) -> str:
    return f"JPEGImages/{video}/{frame:06d}.jpg"


def _coco_picture(video: str, frame: int) -> str:
    return f"images/{video}/{frame:06d}.jpg"


_COCO_FILE = "annotations/instances_default.json"
"""datumaro looks for this name, and for pictures in `images` beside `annotations`."""
_ONLY_BOXES = "scores, rotation and which frames are keyframes"
_ONLY_MASKS = "scores, keyframes and objects without a mask"
FORMATS: Mapping[str, Format] = {
    "mot": Format(write_mot, f"masks, {_ONLY_BOXES}", is_folder=True, picture_path=_mot_picture),
    "mots": Format(
        write_mots, _ONLY_MASKS, is_folder=True, has_masks=True, check=check_masks, picture_path=_mot_picture
    ),
    "coco-vid": Format(write_coco_vid, _ONLY_BOXES, has_masks=True, picture_path=_coco_picture, file=_COCO_FILE),
    "youtube-vis": Format(write_youtube_vis, _ONLY_BOXES, has_masks=True, picture_path=_coco_picture, file=_COCO_FILE),
    "davis": Format(
        write_davis,
        f"classes, {_ONLY_MASKS}",
        is_folder=True,
        has_masks=True,
        check=check_davis,
        picture_path=_davis_picture,
    ),
    "cvat": Format(write_cvat, "masks", is_folder=True),
    "csv": Format(write_csv, "masks and rotation", file="tracks.csv"),
}
NAMES = (*FORMATS, LABELSTUDIO)
