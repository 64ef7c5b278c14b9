"""Formats of datasets by name."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from backend.datasets.coco import coco_path, format_coco
from backend.datasets.huggingface import format_huggingface, huggingface_path
from backend.datasets.options import LAYOUTS, DatasetOptions, TrainingTask
from backend.datasets.samples import DatasetFile, LabeledVideo, PicturePlace
from backend.datasets.voc import format_voc, voc_path
from backend.datasets.xanylabeling import format_xanylabeling, xanylabeling_path
from backend.datasets.yolo import format_yolo, yolo_path
from backend.errors import SettingsError

DatasetFormatter = Callable[[Iterable[LabeledVideo], Sequence[str], DatasetOptions], Iterator[DatasetFile]]
"""Formats the labels of videos with these classes as files."""


@dataclass(frozen=True, slots=True)
class DatasetFormat:
    """A format of datasets.

    Attributes:
        picture_path: the path of a picture.
        tasks: what it can hold.
        loses: what it cannot hold, as the end of a sentence; empty: nothing.
    """

    format: DatasetFormatter
    picture_path: Callable[[PicturePlace], str]
    tasks: tuple[TrainingTask, ...] = ("detect",)
    loses: str = ""


_IN_TABLE = "track ids and scores, which are in tracks.csv"
DATASETS: Mapping[str, DatasetFormat] = {
    "yolo": DatasetFormat(format_yolo, yolo_path, ("detect", "segment", "obb"), _IN_TABLE),
    "voc": DatasetFormat(format_voc, voc_path, loses=_IN_TABLE),
    "coco": DatasetFormat(
        format_coco,
        coco_path,
        ("detect", "segment"),
        "scores, and track ids only as track_id, which readers ignore; both are in tracks.csv",
    ),
    "hf": DatasetFormat(format_huggingface, huggingface_path, loses="scores, which are in tracks.csv"),
    "xanylabeling": DatasetFormat(
        format_xanylabeling, xanylabeling_path, ("detect", "segment", "obb"), "splits, which are in tracks.csv"
    ),
}


def check_format(name: str, options: DatasetOptions) -> None:
    """Check that a format has what the options ask for.

    Raises:
        SettingsError: it has not.
    """
    form = DATASETS[name]
    if options.task not in form.tasks:
        raise SettingsError(f"{name} has no --task {options.task}: use {' or '.join(form.tasks)}")
    if options.track_ids and name != "yolo":
        raise SettingsError(f"--track-ids is for yolo, not for {name}")
    if options.layout != LAYOUTS[0] and name != "coco":
        raise SettingsError(f"--layout is for coco, not for {name}")
