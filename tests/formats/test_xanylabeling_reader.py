import json
from pathlib import Path
from typing import Any

import pytest

from backend.errors import BackendError
from backend.formats.xanylabeling_reader import read_xanylabeling
from tests.datasets.made import MOVING, ROTATED, SIZE, export, write_tasks


@pytest.mark.parametrize("words", [(), ("--task", "obb")])
def test_our_datasets_come_back(tmp_path: Path, words: tuple[str, ...]) -> None:
    write_tasks(tmp_path, "constant", "ntsc", regions=(MOVING, ROTATED))
    assert export(tmp_path, "xanylabeling", *words) == 0
    videos = {video.name: video for video in read_xanylabeling(tmp_path / "out")}
    assert set(videos) == {"1-1", "2-2"}
    person, car = videos["1-1"].tracks
    assert (videos["1-1"].size, person.id, person.label, len(person.frames)) == (SIZE, 2, "Person", 60)
    assert (car.id, car.frames.tolist(), car.score) == (4, [2, 3, 4, 5, 6, 7], None)
    assert car.boxes[0].tolist() == pytest.approx(
        [0.1 * SIZE[0], 0.2 * SIZE[1], 0.22 * SIZE[0], 0.36 * SIZE[1]], abs=0.02
    )


def shape(points: Any, **more: Any) -> dict[str, Any]:
    return {"label": "Car", "shape_type": "polygon", "points": points, "group_id": 3, "score": 0.5, **more}


def test_parts_are_joined_and_shapes_without_a_group_are_detections(tmp_path: Path) -> None:
    parts = [shape([[1, 1], [3, 1], [1, 4]]), shape([[7, 2], [9, 2], [7, 8]])]
    others = [shape([[5, 5]], shape_type="point"), shape([[0, 0], [4, 4]], shape_type="rectangle", group_id=None)]
    (tmp_path / "walk").mkdir()
    document = {"version": "2.4.0", "shapes": [*parts, *others], "imagePath": "f_00007.jpg"}
    (tmp_path / "walk" / "f_00007.json").write_text(json.dumps(document))
    (tmp_path / "walk" / "notes.json").write_text("[]")
    skipped: list[str] = []
    (video,) = read_xanylabeling(tmp_path / "walk", skipped.append)
    (track,) = video.tracks
    assert (video.name, video.length, video.size) == ("walk", 8, None)
    assert (track.id, track.frames.tolist(), track.boxes.tolist(), track.score) == (3, [7], [[1, 1, 9, 8]], 0.5)
    assert [(one.frame, one.box) for one in video.detections] == [(7, (0, 0, 4, 4))]
    assert skipped == ["walk: 1 shapes are skipped: only shapes with an area are read"]


def test_a_folder_without_such_files_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="give the folder"):
        read_xanylabeling(tmp_path)
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(BackendError, match="no files of X-AnyLabeling"):
        read_xanylabeling(tmp_path)
