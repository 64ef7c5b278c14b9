"""Hugging Face's imagefolder by its rules; benchmarks/datasets.py loads it with the library."""

import json
from pathlib import Path

import pytest

from tests.datasets.made import MOVING, ROTATED, SIZE, export, write_tasks


def test_each_split_has_its_metadata(tmp_path: Path) -> None:
    write_tasks(tmp_path, "constant", "ntsc", regions=(MOVING, ROTATED))
    assert export(tmp_path, "hf", "--split-field", "set", "--max", "20") == 0
    for split in ("train", "validation"):
        folder = tmp_path / "out" / split
        rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        assert {row["file_name"] for row in rows} == {path.name for path in folder.glob("*.jpg")}
        assert len(rows) == 20
        tracks = set()
        for row in rows:
            assert len({len(column) for column in row["objects"].values()}) == 1
            for (x, y, width, height), number, label, track in zip(
                *(row["objects"][key] for key in ("bbox", "categories", "names", "track")), strict=True
            ):
                assert x >= 0 <= y
                assert x + width <= SIZE[0] + 0.01
                assert y + height <= SIZE[1] + 0.01
                tracks.add((number, label, track))
        assert tracks == {(0, "Car", 4), (1, "Person", 2)}


def test_a_task_that_it_cannot_hold_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tasks(tmp_path, "constant")
    assert export(tmp_path, "hf", "--task", "obb") == 2
    assert "hf has no --task obb: use detect" in capsys.readouterr().err
