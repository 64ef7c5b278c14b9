"""What a dataset contains: which pictures and objects, and how they are split."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from backend.errors import BadRequest, SettingsError
from backend.labelstudio.json_values import is_number

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

    def to_flags(self) -> list[str]:
        """The options of the command that are not the default, as `project export` takes them."""
        flags = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                flags.append("--" + _FLAGS.get(field.name, field.name.replace("_", "-")))
                flags += [] if value is True else [_format_value(value)]
        return flags

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Options as a page sends them; those that are missing or null have their defaults.

        Raises:
            BadRequest: a value is unknown or wrong.
        """
        given = {name: value for name, value in values.items() if value is not None}
        if unknown := given.keys() - _CHECKS.keys():
            raise BadRequest(f"there is no option {min(unknown)}: choose from {', '.join(_CHECKS)}")
        for name, value in given.items():
            is_valid, form = _CHECKS[name]
            if not is_valid(value):
                raise BadRequest(f"{name} must be {form}")
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
        }
        return cls(**fields)


_FLAGS = {"max_pictures": "max"}
"""Flags that are not named as the option."""


def _format_value(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(_format_value(part) for part in value)
    return str(value).removesuffix(".0")


def _is_among(choices: tuple[str, ...]) -> tuple[Callable[[Any], bool], str]:
    return lambda value: isinstance(value, str) and value in choices, f"one of {', '.join(choices)}"


def _is_number(low: float, high: float) -> tuple[Callable[[Any], bool], str]:
    return lambda value: is_number(value) and low <= value <= high, f"a number from {low:g} to {high:g}"


def _is_count(low: int, high: int) -> tuple[Callable[[Any], bool], str]:
    form = f"a whole number from {low} to {high}"
    return lambda value: is_number(value) and isinstance(value, int) and low <= value <= high, form


def _is_split(value: Any) -> bool:
    is_list = isinstance(value, list) and len(value) == 3 and all(is_number(share) for share in value)
    return is_list and all(0 <= share <= 1e6 for share in value) and value[0] > 0


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(label, str) for label in value)


_BOOLEAN: tuple[Callable[[Any], bool], str] = (lambda value: isinstance(value, bool), "true or false")
_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "task": _is_among(get_args(TrainingTask)),
    "pictures": _is_among(get_args(PictureChoice)),
    "png": _BOOLEAN,
    "quality": _is_count(1, 100),
    "every": _is_count(1, 1_000_000),
    "rate": _is_number(0.001, 10_000),
    "max_pictures": _is_count(1, 1_000_000),
    "distinct": _BOOLEAN,
    "background": _is_number(0, 90),
    "checked": _is_count(0, 1_000_000),
    "labels": (_is_texts, "a list of texts"),
    "min_score": _is_number(0, 1),
    "min_size": _is_number(0, 10_000),
    "split": (_is_split, "the shares of train, val and test, the first above 0"),
    "seed": _is_count(0, 2**31),
    "split_field": (lambda value: isinstance(value, str), "a text"),
    "track_ids": _BOOLEAN,
    "layout": _is_among(LAYOUTS),
}
"""Of each option, what says whether a value is valid, and what it must be."""
