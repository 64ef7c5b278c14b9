"""Hugging Face `datasets`: an imagefolder, with the objects of each picture in `metadata.jsonl`."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from backend.datasets.options import DatasetOptions
from backend.datasets.samples import DatasetFile, LabeledPicture, LabeledVideo, PicturePlace

_SPLITS = {"train": "train", "val": "validation", "test": "test"}


def huggingface_path(place: PicturePlace) -> str:
    """The path of a picture."""
    return f"{_SPLITS[place.split]}/{place.file}"


def format_huggingface(
    videos: Iterable[LabeledVideo], labels: Sequence[str], options: DatasetOptions
) -> Iterator[DatasetFile]:
    """`SPLIT/metadata.jsonl` with a line for each picture.

    `objects` has a list for each of bbox (`x y width height`, pixels), categories (from 0), their names and track.
    """
    rows = defaultdict[str, list[str]](list)
    for video in videos:
        split = _SPLITS[video.split]
        for picture in video.pictures:
            row = _row(picture, labels, video.name)
            rows[split].append(json.dumps(row, ensure_ascii=False))
    for split, lines in rows.items():
        yield f"{split}/metadata.jsonl", "".join(f"{line}\n" for line in lines).encode()


def _row(picture: LabeledPicture, labels: Sequence[str], video: str) -> dict[str, Any]:
    boxes = [[round(number, 2) for number in item.box] for item in picture.objects]
    objects = {
        "bbox": [[x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)] for x0, y0, x1, y1 in boxes],
        "categories": [item.label for item in picture.objects],
        "names": [labels[item.label] for item in picture.objects],
        "track": [item.track for item in picture.objects],
    }
    return {"file_name": picture.path.rpartition("/")[2], "video": video, "frame": picture.frame, "objects": objects}
