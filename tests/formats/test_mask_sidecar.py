from pathlib import Path

import numpy as np
import pytest

from backend.errors import BadRequest
from backend.formats.mask_sidecar import SidecarMasks, read_sidecar, write_sidecar
from backend.tracks.masks import Rle

MASK = Rle.from_mask(np.eye(4, dtype=bool))


def test_masks_come_back_from_beside_their_tasks(tmp_path: Path) -> None:
    tasks, masks = tmp_path / "tasks.json", {"a": {0: MASK, 7: MASK}, 'ö"': {}}
    assert read_sidecar(tasks) == {}
    write_sidecar(tasks, masks)
    assert [one.name for one in tmp_path.iterdir()] == ["tasks.masks.json"]
    assert read_sidecar(tasks) == masks
    write_sidecar(tasks, {})
    assert read_sidecar(tasks) == {}


def test_they_are_those_of_a_task_that_has_some_of_the_regions_still() -> None:
    source = SidecarMasks.for_regions({"a": {3: MASK}, "b": {5: MASK}}, ["b", "new"])
    assert [(key[2], masks) for key, masks in source.masks([])] == [("a", {3: MASK}), ("b", {5: MASK})]
    found = [(key[2], frames.tolist(), boxes.tolist()) for key, frames, boxes in source.boxes()]
    assert found == [("a", [3], [[0, 0, 4, 4]]), ("b", [5], [[0, 0, 4, 4]])]
    assert list(SidecarMasks.for_regions(source.regions, ["c"]).boxes()) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 3}', '{"a": {"x": {}}}', '{"a": {"0": {"size": [2, 2]}}}'])
def test_a_file_of_something_else_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "tasks.masks.json").write_text(text)
    with pytest.raises(BadRequest, match=r"tasks\.masks\.json is not a file of masks written by track"):
        read_sidecar(tmp_path / "tasks.json")
