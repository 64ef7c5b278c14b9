"""X-AnyLabeling: a folder of pictures for each video, with a JSON file beside each picture."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from backend.datasets.options import DatasetOptions
from backend.datasets.polygons import mask_polygons
from backend.datasets.samples import DatasetFile, LabeledObject, LabeledPicture, LabeledVideo, PicturePlace
from backend.formats.video_tracks import Size

_VERSION = "4.2.1"
"""Of X-AnyLabeling, whose files these are like; it warns of a version that is missing."""


def xanylabeling_path(place: PicturePlace) -> str:
    """The path of a picture: X-AnyLabeling opens a folder as one video."""
    return f"{place.video}/{place.file}"


def format_xanylabeling(
    videos: Iterable[LabeledVideo], labels: Sequence[str], options: DatasetOptions
) -> Iterator[DatasetFile]:
    """`NAME.json` beside each picture; `group_id` is the track."""
    for video in videos:
        for picture in video.pictures:
            shapes = [shape for item in picture.objects for shape in _shapes(item, labels, options)]
            text = json.dumps(_document(picture, video.size, shapes), ensure_ascii=False, indent=2)
            yield PurePosixPath(picture.path).with_suffix(".json").as_posix(), (text + "\n").encode()


def _document(picture: LabeledPicture, size: Size, shapes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": PurePosixPath(picture.path).name,
        "imageData": None,
        "imageHeight": size[1],
        "imageWidth": size[0],
    }


def _shapes(item: LabeledObject, labels: Sequence[str], options: DatasetOptions) -> Iterator[dict[str, Any]]:
    """The shapes of an object: each part of its mask, or its box."""
    common: dict[str, Any] = {"label": labels[item.label], "score": item.score, "group_id": item.track}
    common |= {"description": "", "difficult": False, "flags": {}, "attributes": {}, "kie_linking": []}
    polygons = mask_polygons(item.mask) if options.task == "segment" and item.mask else []
    for polygon in polygons:
        # Its polygons repeat the first point.
        yield common | {"shape_type": "polygon", "points": [*polygon.tolist(), polygon[0].tolist()]}
    if not polygons:
        yield common | (_rotated(item) if options.task == "obb" else _upright(item))


def _upright(item: LabeledObject) -> dict[str, Any]:
    x0, y0, x1, y1 = (round(number, 2) for number in item.box)
    return {"shape_type": "rectangle", "points": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]}


def _rotated(item: LabeledObject) -> dict[str, Any]:
    (x0, y0), (x1, y1) = item.corners[:2].tolist()
    direction = math.atan2(y1 - y0, x1 - x0) % (2 * math.pi)
    return {"shape_type": "rotation", "points": item.corners.round(2).tolist(), "direction": direction}
