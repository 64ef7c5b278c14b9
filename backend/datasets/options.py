"""What a dataset contains: which pictures and objects, and how they are split."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from backend.errors import SettingsError

TrainingTask = Literal["detect", "segment", "obb"]
PictureChoice = Literal["annotated", "all", "none"]
LAYOUTS = ("default", "roboflow")


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """Options of an export to a dataset.

    Attributes:
        task: upright boxes, polygons of masks, or corners of rotated boxes.
        pictures: frames with objects, all frames, or labels of all frames without pictures.
        png: write PNG instead of JPEG.
        quality: of JPEG, 1 to 100.
        every: take every N-th frame of a video.
        rate: take so many frames a second; None: all.
        max_pictures: take at most so many frames of a video, evenly spaced; None: all.
        distinct: take only frames on which something moved or changed since the last one taken.
        background: percent of the pictures that show nothing, 0 to 90.
        checked: only annotations, and frames at most so many frames from a person's keyframe; None: all.
        labels: classes to write; empty: all.
        min_score: leave out tracks with a lower score.
        min_size: leave out boxes of less pixels in width or height, at least 1.
        split: shares of the videos for train, val and test.
        seed: another seed gives another split.
        split_field: field of the tasks' data that names the split; empty: split by share.
        track_ids: YOLO only: write the track id as sixth column.
        layout: COCO only: `roboflow` for RF-DETR.
    """

    task: TrainingTask = "detect"
    pictures: PictureChoice = "annotated"
    png: bool = False
    quality: int = 90
    every: int = 1
    rate: float | None = None
    max_pictures: int | None = None
    distinct: bool = False
    background: float = 0.0
    checked: int | None = None
    labels: tuple[str, ...] = ()
    min_score: float = 0.0
    min_size: float = 1.0
    split: tuple[float, float, float] = (80.0, 20.0, 0.0)
    seed: int = 0
    split_field: str = ""
    track_ids: bool = False
    layout: str = "default"

    def __post_init__(self) -> None:
        """Check values that no parser checks.

        Raises:
            SettingsError: they exclude each other.
        """
        if self.every > 1 and self.rate is not None:
            raise SettingsError("--every and --rate exclude each other: give one of them")
        if self.background and self.pictures != "annotated":
            raise SettingsError("--background adds frames to --pictures annotated: leave one out")
        if self.track_ids and self.task != "detect":
            raise SettingsError("--track-ids writes a sixth column, which only --task detect has: leave one out")

    @property
    def suffix(self) -> str:
        """The suffix of pictures."""
        return ".png" if self.png else ".jpg"

    def to_json(self) -> dict[str, Any]:
        """For the file of settings in the dataset."""
        return asdict(self)
