from pathlib import Path

import numpy as np
import pytest

from backend.errors import BackendError
from backend.formats.imported_tracks import scale_video
from backend.formats.yolo_reader import read_yolo
from tests.datasets.made import MOVING, ROTATED, export, write_tasks


def labels(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / "labels" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    return folder


def test_files_of_yolo_track_are_read(tmp_path: Path) -> None:
    """As `Results.save_txt` writes them: frames from 1, the id last, before it a confidence on request."""
    line = "1 0.5 0.5 0.25 0.5 {}\n"
    labels(tmp_path, {"walk_1_1": line.format(7), "walk_1_3": line.format(7) + line.format(9)})
    labels(tmp_path, {"ride_2": line.format("0.5 3"), "ride_3": line.format("1 3")})
    (tmp_path / "data.yaml").write_text("names: {0: Person, 1: Car}")
    ride, walk = sorted(
        (scale_video(video, (640, 360)) for video in read_yolo(tmp_path / "labels")), key=lambda v: v.name
    )
    assert (walk.name, walk.length, walk.size, walk.detections) == ("walk_1", 3, None, ())
    assert [(track.id, track.label, track.frames.tolist(), track.score) for track in walk.tracks] == [
        (7, "Car", [0, 2], None),
        (9, "Car", [2], None),
    ]
    assert walk.tracks[0].boxes[0].tolist() == [240, 90, 400, 270]
    assert [(track.id, track.frames.tolist(), track.score) for track in ride.tracks] == [(3, [1, 2], 0.75)]


def test_detections_have_no_ids(tmp_path: Path) -> None:
    labels(tmp_path, {"walk_1": "0 0.5 0.5 0.25 0.5 0.875\n", "walk_2": "0 0.5 0.5 0.25 0.5\n"})
    (video,) = read_yolo(tmp_path)
    assert video.tracks == ()
    assert [(one.frame, one.label, one.score) for one in video.detections] == [(0, "0", 0.875), (1, "0", None)]


def test_our_datasets_with_track_ids_come_back(tmp_path: Path) -> None:
    write_tasks(tmp_path, "constant", "ntsc", regions=(MOVING, ROTATED))
    assert export(tmp_path, "yolo", "--track-ids") == 0
    videos = {video.name: video for video in read_yolo(tmp_path / "out")}
    assert set(videos) == {"1-1", "2-2"}
    person, car = videos["1-1"].tracks
    assert (person.id, person.label, len(person.frames)) == (2, "Person", 60)
    assert (car.id, car.label, car.frames.tolist()) == (4, "Car", [2, 3, 4, 5, 6, 7])


def test_what_cannot_be_read_costs_no_other_and_is_named(tmp_path: Path) -> None:
    labels(tmp_path, {"a_1": "0 0.5 0.5 0.5 0.5 1\n0 x\n0 0.1 0.1 0.2 0.2 0.3 0.3 0.4 0.4\n", "readme": "hello"})
    labels(tmp_path, {"a_2": "0 0.5 0.5 0 0.5 1\n"})
    skipped: list[str] = []
    (video,) = read_yolo(tmp_path, skipped.append)
    assert np.allclose(video.tracks[0].boxes, [0.25, 0.25, 0.75, 0.75])
    assert [reason.partition(":")[0] for reason in skipped] == [
        "1 files are skipped",
        "a: 2 lines are skipped".partition(":")[0],
        "track 1 of a",
    ]


@pytest.mark.parametrize("files", [{}, {"a_1": "hello"}, {"a": "0 0.5 0.5 0.5 0.5"}])
def test_a_folder_without_boxes_is_told(tmp_path: Path, files: dict[str, str]) -> None:
    labels(tmp_path, files)
    with pytest.raises(BackendError, match=r"labels|no boxes"):
        read_yolo(tmp_path)
