"""PASCAL VOC: an XML file for each picture, in the folders that torchvision's VOCDetection reads."""

import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from backend.datasets.options import DatasetOptions
from backend.datasets.samples import DatasetFile, LabeledPicture, LabeledVideo, PicturePlace

_ROOT = "VOCdevkit/VOC2012"
"""torchvision reads no other folder without `year`."""


def voc_path(place: PicturePlace) -> str:
    """The path of a picture."""
    return f"{_ROOT}/JPEGImages/{place.file}"


def format_voc(videos: Iterable[LabeledVideo], labels: Sequence[str], options: DatasetOptions) -> Iterator[DatasetFile]:
    """`Annotations/NAME.xml` for each picture, and `ImageSets/Main/SPLIT.txt` with the names of pictures.

    Pixels count from 1, as in VOC.
    """
    names = defaultdict[str, list[str]](list)
    for video in videos:
        for picture in video.pictures:
            names[video.split].append(picture.name)
            root = _annotation(video, picture, labels)
            ET.indent(root)
            yield f"{_ROOT}/Annotations/{picture.name}.xml", ET.tostring(root, encoding="utf-8", xml_declaration=True)
    names["trainval"] = names["train"] + names["val"]
    for split, listed in names.items():
        yield f"{_ROOT}/ImageSets/Main/{split}.txt", "".join(f"{name}\n" for name in listed).encode()


def _annotation(video: LabeledVideo, picture: LabeledPicture, labels: Sequence[str]) -> ET.Element:
    root = ET.Element("annotation")
    _add(root, folder="VOC2012", filename=Path(picture.path).name)
    _add(ET.SubElement(root, "size"), width=video.size[0], height=video.size[1], depth=3)
    _add(root, segmented=0)
    for item in picture.objects:
        element, box = ET.SubElement(root, "object"), item.box
        _add(element, name=labels[item.label], pose="Unspecified", truncated=0, difficult=0)
        corners = {"xmin": box.x0 + 1, "ymin": box.y0 + 1, "xmax": box.x1, "ymax": box.y1}
        _add(ET.SubElement(element, "bndbox"), **{key: f"{number:.2f}" for key, number in corners.items()})
    return root


def _add(parent: ET.Element, **values: Any) -> None:
    for name, value in values.items():
        ET.SubElement(parent, name).text = str(value)
