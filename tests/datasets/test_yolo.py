"""YOLO, read by the rules of Ultralytics' own check (`verify_image_label`); benchmarks/datasets.py runs that check."""

import numpy as np
import pytest
import yaml
from hypothesis import given, settings

from backend.datasets.build import group_objects
from backend.datasets.frames import filter_tracks
from backend.datasets.options import DatasetOptions
from backend.datasets.samples import LabeledPicture, LabeledVideo
from backend.datasets.yolo import format_yolo
from backend.formats.video_tracks import VideoTracks
from tests.formats.made import FRAMES, SIZE, clip, several, traced
from tests.labelstudio.bodies import drawn, keyframe


def labeled(
    tracks: VideoTracks, labels: list[str], frames: range = range(FRAMES), split: str = "train"
) -> LabeledVideo:
    """The video as a builder hands it to writers."""
    objects = group_objects(tracks, labels, set(frames))
    pictures = [
        LabeledPicture(f"{tracks.name}_{frame:06d}", frame, frame / 25, "", tuple(objects.get(frame, ())))
        for frame in frames
    ]
    return LabeledVideo(tracks.task, tracks.name, split, tracks.pixels, pictures)


def read_labels(content: bytes, classes: int, columns: int | None) -> list[list[float]]:
    """The rows of a label file, or an error where Ultralytics would ignore the file."""
    lines = [line.split() for line in content.decode().splitlines()]
    if columns is None:
        assert all(len(line) > 6 and len(line) % 2 for line in lines)
    else:
        assert all(len(line) == columns for line in lines)
    for line in lines:
        assert 0 <= int(line[0]) < classes
        assert all(0 <= float(number) <= 1 for number in line[1:])
    return [[float(number) for number in line] for line in lines]


@settings(max_examples=25)
@given(several)
def test_boxes_come_back(regions: list[dict]) -> None:
    video = filter_tracks(clip(*regions), DatasetOptions())
    labels = sorted({track.label for track in video.tracks} | {"unused"})
    files = dict(format_yolo([labeled(video, labels)], labels, DatasetOptions()))
    assert yaml.safe_load(files["data.yaml"]) == {
        "train": "images/train",
        "val": "images/train",
        "names": dict(enumerate(labels)),
    }
    for frame in range(FRAMES):
        rows = read_labels(files[f"labels/train/{video.name}_{frame:06d}.txt"], len(labels), 5)
        expected = [
            (labels.index(track.label), *boxes[frame])
            for track, boxes in zip(video.tracks, traced(video), strict=True)
            if frame in boxes
        ]
        assert len(rows) == len(expected)
        for (label, x, y, w, h), (number, *box) in zip(rows, expected, strict=True):
            found = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * [*SIZE, *SIZE]
            assert label == number
            assert np.allclose(found, box, atol=1e-3)


@pytest.mark.parametrize(("task", "columns"), [("detect", 5), ("segment", None), ("obb", 9)])
def test_each_task_has_its_columns_and_stays_in_the_picture(task: str, columns: int | None) -> None:
    options = DatasetOptions(task=task)
    turned = drawn(keyframe(1, 90, 90, 20, 20, rotation=45), id="r", labels=("Person",))
    video = filter_tracks(clip(drawn(keyframe(1, -5, -5)), turned), options)
    files = dict(format_yolo([labeled(video, ["Car", "Person"])], ["Car", "Person"], options))
    rows = read_labels(files[f"labels/train/{video.name}_000000.txt"], 2, columns)
    assert [row[0] for row in rows] == [0, 1]
    if task == "obb":
        (x, width), (y, height) = ((0.9 * side, 0.2 * side * np.sqrt(0.5)) for side in SIZE)
        corner = x + width - height, y + width + height
        assert np.allclose(np.array(rows[1][5:7]) * SIZE, np.minimum(corner, SIZE), atol=1e-3)


def test_track_ids_are_a_sixth_column_on_request() -> None:
    video = clip(drawn(keyframe(1, 10), meta={"track_id": 41}))
    files = dict(format_yolo([labeled(video, ["Car"])], ["Car"], DatasetOptions(track_ids=True)))
    assert files[f"labels/train/{video.name}_000000.txt"].split()[5] == b"41"


def test_splits_are_named() -> None:
    videos = [labeled(clip(), ["Car"], range(2), split) for split in ("val", "test", "train")]
    content = yaml.safe_load(dict(format_yolo(videos, ["Car"], DatasetOptions()))["data.yaml"])
    assert content["val"] == "images/val"
    assert content["test"] == "images/test"
