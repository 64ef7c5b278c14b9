"""COCO detection and segmentation: a JSON file for each split, and the layout that RF-DETR trains on."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from backend.datasets.options import DatasetOptions
from backend.datasets.samples import DatasetFile, LabeledObject, LabeledVideo, PicturePlace
from backend.formats.rle import rle_to_json

_ROBOFLOW = {"train": "train", "val": "valid", "test": "test"}


def coco_path(place: PicturePlace) -> str:
    """The path of a picture."""
    folder = _ROBOFLOW[place.split] if place.layout == "roboflow" else f"images/{place.split}"
    return f"{folder}/{place.file}"


def format_coco(
    videos: Iterable[LabeledVideo], labels: Sequence[str], options: DatasetOptions
) -> Iterator[DatasetFile]:
    """`annotations/instances_SPLIT.json`, or `SPLIT/_annotations.coco.json` in the layout `roboflow`.

    Ids count from 1. Every annotation has `segmentation`: run lengths where there is a mask, else the box's corners.
    """
    images, annotations = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for video in videos:
        for picture in video.pictures:
            number = len(images[video.split]) + 1
            size = {"width": video.size[0], "height": video.size[1]}
            image = {"id": number, "file_name": Path(picture.path).name, **size, "frame": picture.frame}
            images[video.split].append(json.dumps(image, ensure_ascii=False))
            for item in picture.objects:
                place = len(annotations[video.split]) + 1
                annotations[video.split].append(json.dumps({"id": place, "image_id": number, **_annotation(item)}))
    categories = json.dumps(
        [{"id": number, "name": label, "supercategory": ""} for number, label in enumerate(labels, start=1)],
        ensure_ascii=False,
    )
    for split, listed in images.items():
        path = f"annotations/instances_{split}.json"
        if options.layout == "roboflow":
            path = f"{_ROBOFLOW[split]}/_annotations.coco.json"
        rows, objects = ",\n".join(listed), ",\n".join(annotations[split])
        yield path, f'{{"images": [{rows}],\n"annotations": [{objects}],\n"categories": {categories}}}\n'.encode()


def _annotation(item: LabeledObject) -> dict[str, Any]:
    x0, y0, x1, y1 = (round(number, 2) for number in item.box)
    box = [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)]
    area: float = item.mask.area if item.mask else round(box[2] * box[3], 2)
    shape = rle_to_json(item.mask) if item.mask else [[x0, y0, x1, y0, x1, y1, x0, y1]]
    return {
        "category_id": item.label + 1,
        "bbox": box,
        "area": area,
        "iscrowd": 0,
        "segmentation": shape,
        "track_id": item.track,
    }
