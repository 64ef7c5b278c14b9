"""The formats that tracks are read from."""

from collections.abc import Callable, Mapping
from pathlib import Path

from backend.formats.coco_reader import read_coco_vid
from backend.formats.cvat_reader import read_cvat
from backend.formats.imported_tracks import ImportedVideo, Skip
from backend.formats.mot_reader import read_mot
from backend.formats.xanylabeling_reader import read_xanylabeling
from backend.formats.yolo_reader import read_yolo

READERS: Mapping[str, Callable[[Path, Skip], list[ImportedVideo]]] = {
    "mot": read_mot,
    "coco-vid": read_coco_vid,
    "coco": read_coco_vid,
    "cvat": read_cvat,
    "xanylabeling": read_xanylabeling,
    "yolo": read_yolo,
}
