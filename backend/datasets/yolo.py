"""YOLO: pictures, a text file of labels for each, and data.yaml, as Ultralytics trains on them."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import yaml

from backend.datasets.options import DatasetOptions
from backend.datasets.polygons import mask_outline
from backend.datasets.samples import DatasetFile, LabeledObject, LabeledVideo, PicturePlace
from backend.formats.video_tracks import Size


def yolo_path(place: PicturePlace) -> str:
    """The path of a picture."""
    return f"images/{place.split}/{place.file}"


def format_yolo(
    videos: Iterable[LabeledVideo], labels: Sequence[str], options: DatasetOptions
) -> Iterator[DatasetFile]:
    """`labels/SPLIT/NAME.txt` for each picture, empty if nothing is on it, and `data.yaml`.

    Coordinates are fractions of the picture. Lines are `class cx cy w h` (detect), `class x y x y ...` with a polygon
    (segment) or with four corners (obb). Classes count from 0.
    """
    splits: list[str] = []
    for video in videos:
        splits.append(video.split)
        for picture in video.pictures:
            lines = [_line(item, video.size, options) for item in picture.objects]
            yield f"labels/{video.split}/{picture.name}.txt", "".join(f"{line}\n" for line in lines).encode()
    yield "data.yaml", _format_yaml(labels, splits).encode()


def _line(item: LabeledObject, size: Size, options: DatasetOptions) -> str:
    if options.task == "segment":
        points = _polygon(item)
    elif options.task == "obb":
        points = item.corners
    else:
        (x0, y0, x1, y1), (width, height) = item.box, size
        centre = f"{(x0 + x1) / 2 / width:.6f} {(y0 + y1) / 2 / height:.6f}"
        end = f" {item.track}" if options.track_ids else ""
        return f"{item.label} {centre} {(x1 - x0) / width:.6f} {(y1 - y0) / height:.6f}{end}"
    fractions = np.clip(points / np.array(size), 0, 1)
    return " ".join([str(item.label), *(f"{number:.6f}" for number in fractions.ravel().tolist())])


def _polygon(item: LabeledObject) -> np.ndarray:
    """The outline of an object's mask; of its box if it has none."""
    outline = mask_outline(item.mask) if item.mask else None
    if outline is not None:
        return outline
    x0, y0, x1, y1 = item.box
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _format_yaml(labels: Sequence[str], splits: Sequence[str]) -> str:
    """data.yaml without `path`, so that the folder may be moved. Ultralytics requires train and val."""
    train = "train" if "train" in splits else next(iter(splits), "train")
    content = {"train": f"images/{train}", "val": f"images/{'val' if 'val' in splits else train}"}
    if "test" in splits:
        content["test"] = "images/test"
    return yaml.safe_dump({**content, "names": dict(enumerate(labels))}, sort_keys=False, allow_unicode=True)
