"""The formats that tracks are read from."""

from collections.abc import Callable, Mapping
from pathlib import Path

from backend.formats.coco_reader import read_coco_vid
from backend.formats.cvat_reader import read_cvat
from backend.formats.imported_tracks import ImportedVideo, Skip
from backend.formats.mot_reader import read_mot

READERS: Mapping[str, Callable[[Path, Skip], list[ImportedVideo]]] = {
    "mot": read_mot,
    "coco-vid": read_coco_vid,
    "cvat": read_cvat,
}
