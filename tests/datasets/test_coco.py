"""COCO, read by pycocotools."""

from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from backend.formats.mask_sidecar import write_sidecar
from backend.tracks.masks import Rle
from tests.datasets.made import MOVING, ROTATED, SIZE, export, write_tasks


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools with numpy 2
@pytest.mark.parametrize("layout", ["default", "roboflow"])
def test_each_split_has_a_file_that_pycocotools_reads(tmp_path: Path, layout: str) -> None:
    write_tasks(tmp_path, "constant", "ntsc", regions=(MOVING, ROTATED))
    mask = np.zeros(SIZE[::-1], bool)
    mask[26:46, 20:42] = True
    write_sidecar(tmp_path / "tasks.json", {MOVING["id"]: {2: Rle.from_mask(mask)}})
    words = ["--task", "segment", "--layout", layout, "--split-field", "set", "--every", "2"]
    assert export(tmp_path, "coco", *words) == 0
    masked = 0
    for split, folder in (("train", "train"), ("val", "valid")):
        pictures = tmp_path / "out" / (folder if layout == "roboflow" else f"images/{split}")
        file = f"{folder}/_annotations.coco.json" if layout == "roboflow" else f"annotations/instances_{split}.json"
        read = COCO(tmp_path / "out" / file)
        assert [one["name"] for one in read.loadCats(read.getCatIds())] == ["Car", "Person"]
        images = read.loadImgs(read.getImgIds())
        assert {image["file_name"] for image in images} == {path.name for path in pictures.glob("*.jpg")}
        assert len(images) == 30
        for annotation in read.loadAnns(read.getAnnIds()):
            decoded, (x, y, width, height) = read.annToMask(annotation), annotation["bbox"]
            assert x >= 0 <= y
            assert x + width <= SIZE[0] + 0.01
            assert y + height <= SIZE[1] + 0.01
            assert decoded.sum() > 0
            if isinstance(annotation["segmentation"], dict):
                masked += 1
                assert (decoded == mask).all()
    assert masked
