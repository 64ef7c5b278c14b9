"""The options of `sam3-backend project export` for datasets and pictures."""

import argparse
from dataclasses import fields

from backend.datasets.options import LAYOUTS, DatasetOptions
from backend.datasets.registry import DATASETS, check_format
from backend.errors import SettingsError
from backend.formats.registry import FORMATS

_NAMES = {field.name for field in fields(DatasetOptions)}
_WITH_PICTURES = [name for name, form in FORMATS.items() if form.picture_path]
"""Formats of tracks that may have pictures."""


def add_dataset_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of datasets; those that are not given are None."""
    group = parser.add_argument_group("datasets", f"These options are for {', '.join(DATASETS)}.")
    group.add_argument(
        "--task", choices=("detect", "segment", "obb"), help="boxes, polygons of masks, or rotated boxes (detect)"
    )
    group.add_argument(
        "--pictures",
        choices=("annotated", "all", "none"),
        help="frames with objects, all frames, or labels of all frames without pictures (annotated); "
        f"{', '.join(_WITH_PICTURES)}: all, or none (none); coco-vid and youtube-vis write a folder with all",
    )
    group.add_argument("--every", type=_parse_count, metavar="N", help="take every N-th frame of a video")
    group.add_argument("--rate", type=_parse_positive, metavar="R", help="take R frames a second of a video")
    group.add_argument(
        "--max", type=_parse_count, dest="max_pictures", metavar="N", help="take at most N frames of a video"
    )
    group.add_argument(
        "--distinct",
        action="store_true",
        default=None,
        help="take only frames on which something moved or changed since the last one taken",
    )
    group.add_argument(
        "--background",
        type=_parse_share,
        metavar="SHARE",
        help="percent of the pictures that show nothing, of frames without objects (0)",
    )
    group.add_argument(
        "--checked",
        type=_parse_distance,
        metavar="N",
        help="take only annotations, and frames at most N frames from a keyframe that a person set",
    )
    group.add_argument("--quality", type=_parse_quality, metavar="Q", help="quality of JPEG, 1 to 100 (90)")
    group.add_argument("--png", action="store_true", default=None, help="write PNG instead of JPEG")
    group.add_argument("--labels", type=_parse_labels, metavar="A,B", help="write these classes only")
    group.add_argument("--min-score", type=_parse_score, metavar="S", help="leave out tracks with a lower score")
    group.add_argument(
        "--min-size",
        type=_parse_positive,
        metavar="PX",
        help="leave out boxes that are narrower or lower, in pixels (1)",
    )
    group.add_argument(
        "--split", type=_parse_split, metavar="A,B[,C]", help="shares of the videos for train, val and test (80,20)"
    )
    group.add_argument("--seed", type=int, metavar="N", help="another number gives another split (0)")
    group.add_argument("--split-field", metavar="F", help="field of the tasks' data that names the split instead")
    group.add_argument("--layout", choices=LAYOUTS, help="folders and names of coco; roboflow for RF-DETR (default)")
    group.add_argument(
        "--track-ids", action="store_true", default=None, help="yolo: track id as sixth column; it cannot be trained on"
    )


def read_dataset_options(options: argparse.Namespace) -> DatasetOptions | None:
    """The options of a dataset; None if the format is none.

    Raises:
        SettingsError: an option does not fit the format.
    """
    given = {name: value for name, value in vars(options).items() if name in _NAMES and value is not None}
    if options.format not in DATASETS:
        given.pop("pictures", None)  # see `takes_pictures`
        if given:
            flag = {"max_pictures": "max"}.get(first := next(iter(given)), first).replace("_", "-")
            raise SettingsError(f"--{flag} is for the datasets {', '.join(DATASETS)}, not for {options.format}")
        return None
    dataset_options = DatasetOptions(**given)
    check_format(options.format, dataset_options)
    return dataset_options


def takes_pictures(options: argparse.Namespace) -> bool:
    """Whether pictures go beside tracks in a format that is no dataset.

    Raises:
        SettingsError: the format has none, or has all or none.
    """
    if options.format in DATASETS or options.pictures is None:
        return False
    if options.format not in _WITH_PICTURES:
        names = f"{', '.join(_WITH_PICTURES)} and the datasets {', '.join(DATASETS)}"
        raise SettingsError(f"--pictures is for {names}, not for {options.format}")
    if options.pictures == "annotated":
        raise SettingsError(f"{options.format} needs every frame: write --pictures all, or none")
    return bool(options.pictures == "all")


def _parse_count(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _parse_distance(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def _parse_share(text: str) -> float:
    return _parse_number(text, 0, 90)


def _parse_positive(text: str) -> float:
    return _parse_number(text, 0, 10_000)


def _parse_score(text: str) -> float:
    return _parse_number(text, 0, 1)


def _parse_number(text: str, low: float, high: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not low < number <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above {low:g} up to {high:g}")
    return number


def _parse_quality(text: str) -> int:
    return int(_parse_number(text, 0, 100)) or 1


def _parse_labels(text: str) -> tuple[str, ...]:
    return tuple(label for part in text.split(",") if (label := part.strip()))


def _parse_split(text: str) -> tuple[float, float, float]:
    try:
        shares = [float(share) for share in text.split(",")]
    except ValueError:
        shares = []
    if not (2 <= len(shares) <= 3 and all(0 <= share <= 1e6 for share in shares) and shares[0]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a split: write shares for train, val and test as 80,10,10")
    train, val, test = [*shares, 0.0][:3]
    return train, val, test
