"""Formats of datasets by name."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.datasets.coco import coco_path, write_coco
from backend.datasets.options import DatasetOptions, TrainingTask
from backend.datasets.samples import LabeledVideo
from backend.datasets.voc import voc_path, write_voc
from backend.datasets.yolo import write_yolo, yolo_path

DatasetWriter = Callable[[Iterable[LabeledVideo], Sequence[str], Path, DatasetOptions], None]
"""Writes the labels of videos with these classes into a folder, which has the pictures."""


@dataclass(frozen=True, slots=True)
class DatasetFormat:
    """A format of datasets.

    Attributes:
        picture_path: the path of a picture from its split, its file name and the layout.
        tasks: what it can hold.
        loses: what it cannot hold, as the end of a sentence; empty: nothing.
    """

    write: DatasetWriter
    picture_path: Callable[[str, str, str], str]
    tasks: tuple[TrainingTask, ...] = ("detect",)
    loses: str = ""


DATASETS: Mapping[str, DatasetFormat] = {
    "yolo": DatasetFormat(write_yolo, yolo_path, ("detect", "segment", "obb"), "track ids, which are in tracks.csv"),
    "voc": DatasetFormat(write_voc, voc_path, loses="track ids, which are in tracks.csv"),
    "coco": DatasetFormat(write_coco, coco_path, ("detect", "segment")),
}
