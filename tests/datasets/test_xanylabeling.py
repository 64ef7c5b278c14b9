"""X-AnyLabeling, read by the rules of its client; benchmarks/datasets.py runs the client's own reader."""

import json
from pathlib import Path

import numpy as np
import pytest

from backend.formats.mask_sidecar import write_sidecar
from backend.tracks.masks import Rle
from tests.datasets.made import MOVING, ROTATED, SIZE, export, write_tasks


@pytest.mark.parametrize(("task", "shapes"), [("detect", "rectangle"), ("obb", "rotation"), ("segment", "polygon")])
def test_each_picture_has_a_file_beside_it(tmp_path: Path, task: str, shapes: str) -> None:
    write_tasks(tmp_path, "constant", "ntsc", regions=(MOVING, ROTATED))
    mask = np.zeros(SIZE[::-1], bool)
    mask[26:46, 20:30] = mask[26:46, 34:42] = True
    write_sidecar(tmp_path / "tasks.json", {MOVING["id"]: {2: Rle.from_mask(mask)}})
    assert export(tmp_path, "xanylabeling", "--task", task, "--every", "2") == 0
    folders = sorted(path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert [folder.name for folder in folders] == ["1-1", "2-2"]
    for folder in folders:
        files = sorted(folder.glob("*.json"))
        assert len(files) == len([*folder.glob("*.jpg")]) == 30
        for file in files:
            read = json.loads(file.read_text())
            assert (folder / read["imagePath"]).is_file()
            assert (read["imageWidth"], read["imageHeight"], read["imageData"]) == (*SIZE, None)
            for shape in read["shapes"]:
                assert (shape["label"], shape["group_id"]) in {("Car", 4), ("Person", 2)}
                assert np.ndim(shape["points"]) == 2
    first = json.loads((folders[0] / f"{folders[0].name}_000002.json").read_text())["shapes"]
    assert {shape["shape_type"] for shape in first} == ({shapes} if task != "segment" else {"polygon", "rectangle"})
    if task == "segment":
        parts = [np.array(shape["points"]) for shape in first if shape["group_id"] == 4]
        assert [part.min(0).tolist() for part in sorted(parts, key=lambda part: part.min())] == [
            [20.5, 26.5],
            [34.5, 26.5],
        ]
    turned = next(shape for shape in first if shape["group_id"] == 2)
    if task == "obb":
        assert turned["direction"] == pytest.approx(np.radians(30))
        assert np.allclose(np.linalg.norm(np.diff(turned["points"], axis=0), axis=1), [38.4, 12.8, 38.4], atol=0.02)
