"""Datasets built by the command from real clips: pictures, labels, going on, and failures."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from backend.datasets import picture_cutter
from backend.errors import BackendError
from backend.formats.mask_sidecar import write_sidecar
from backend.tracks.masks import Rle
from backend.video.frame_clock import FrameClock
from backend.video.reader import Video
from tests.clips import CLIPS, read_code
from tests.datasets.made import MOVING, ROTATED, SIZE, contents, export, write_tasks
from tests.labelstudio.bodies import drawn, keyframe

pytestmark = pytest.mark.slow


def read_pictures(folder: Path) -> dict[str, np.ndarray]:
    """All pictures by name, RGB."""
    paths = [path for path in folder.rglob("*.*") if path.suffix in (".jpg", ".png")]
    return {path.stem: cv2.imread(str(path))[..., ::-1] for path in paths}


@pytest.mark.parametrize("words", [(), ("--png",)])
def test_pictures_are_the_frames_that_label_studio_shows(tmp_path: Path, words: tuple[str, ...]) -> None:
    """In every container and timing: constant and variable rates, B-frames, late starts, edit lists, rotations."""
    clips = write_tasks(tmp_path, *CLIPS)
    assert export(tmp_path, "yolo", *words) == 0
    found, expected = read_pictures(tmp_path / "out"), set[tuple[int, int]]()
    for number, clip in enumerate(clips, start=1):
        with Video(clip.path) as video:
            clock = FrameClock(video.times, video.end, 25)
        shown = {clock.source_frame(frame) for frame in range(3, 9)}
        names = {int(name.rpartition("_")[2]): name for name in found if name.startswith(f"{number}-")}
        assert set(names) >= shown
        for frame, name in names.items():
            assert found[name].shape[:2] == (clip.height, clip.width)
            assert read_code(found[name]) == clip.first + frame
        expected.update((number, frame) for frame in names)
    assert len(found) == len(expected) > 5 * len(clips)


FIRST_PICTURES = {"mot": "{}/img1/000001.jpg", "davis": "JPEGImages/{}/000000.jpg", "coco-vid": "images/{}/000000.jpg"}


@pytest.mark.parametrize("form", FIRST_PICTURES)
def test_formats_of_tracks_take_every_frame_where_their_readers_look(tmp_path: Path, capsys, form: str) -> None:
    clips = write_tasks(tmp_path, "constant", "edit_list")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    tasks.append({**tasks[0], "id": 3, "data": {**tasks[0]["data"], "video": str(tmp_path / "gone.mp4")}})
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    mask = np.zeros(SIZE[::-1], bool)
    mask[26:46, 20:42] = True
    write_sidecar(tmp_path / "tasks.json", {MOVING["id"]: {2: Rle.from_mask(mask)}})
    assert export(tmp_path, form, "--pictures", "all", "--size", "192x128") == 1
    said = capsys.readouterr().err
    assert "task 3: not exported: the video is not on this machine" in said
    assert f"{form} does not hold" in said
    for number, clip in enumerate(clips, start=1):
        first = tmp_path / "out" / FIRST_PICTURES[form].format(f"{number}-{clip.path.stem}")
        with Video(clip.path) as video:
            expected = {f"{frame + int(first.stem):06d}": clip.first + frame for frame in range(len(video))}
        assert {stem: read_code(picture) for stem, picture in read_pictures(first.parent).items()} == expected
    assert len([*(tmp_path / "out").rglob("*.jpg")]) == sum(map(len, clips))
    if form == "coco-vid":
        listed = json.loads((tmp_path / "out" / "annotations" / "instances_default.json").read_text())["images"]
        assert all((tmp_path / "out" / "images" / image["file_name"]).is_file() for image in listed)


def test_pictures_of_tracks_that_are_there_are_used_again(tmp_path: Path, capsys, monkeypatch) -> None:
    write_tasks(tmp_path, "constant", "ntsc")
    assert export(tmp_path, "mot", "--pictures", "all", out="whole") == 0
    encode, count = picture_cutter.encode_picture, iter(range(1000))

    def run_out_of_space(*words: Any) -> bytes:
        if next(count) >= 40:
            raise OSError(28, "No space left on device")
        return encode(*words)

    with monkeypatch.context() as patched:
        patched.setattr("backend.datasets.picture_cutter.encode_picture", run_out_of_space)
        assert export(tmp_path, "mot", "--pictures", "all") == 1
    assert "make room, and start the same command again" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert export(tmp_path, "mot", "--pictures", "all") == 0
    assert "going on: 40 of" in capsys.readouterr().err
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_folder_trains(tmp_path: Path, capsys) -> None:
    write_tasks(tmp_path, "constant", "ntsc", "vp9", regions=(MOVING, ROTATED))
    assert export(tmp_path, "yolo", "--pictures", "all", "--split", "34,33,33", "--max", "10") == 0
    data = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert data["names"] == {0: "Car", 1: "Person"}
    for split in ("train", "val", "test"):
        images = sorted((tmp_path / "out" / data[split]).iterdir())
        labels = sorted((tmp_path / "out" / data[split].replace("images", "labels")).iterdir())
        assert [path.stem for path in images] == [path.stem for path in labels]
        assert len({path.name.split("-")[0] for path in images}) == 1
        assert len(images) == 10
    with (tmp_path / "out" / "tracks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["label"], row["track"]) for row in rows} == {("Car", "4"), ("Person", "2")}
    assert all((tmp_path / "out" / row["picture"]).is_file() for row in rows)
    told = capsys.readouterr().err
    assert f"out: 3 videos, 30 pictures, {len(rows)} objects; train 10 pictures (" in told
    assert "yolo does not hold track ids and scores, which are in tracks.csv" in told
    settings = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (settings["format"], settings["max_pictures"]) == ("yolo", 10)
    words = "tasks.json --format yolo --pictures all --max 10 --split 34,33,33 -o dataset"
    assert settings["command"] == f"sam3-backend project export {words}"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["1.mp4", "2.mp4", "3.webm", "tasks.json", "out"])


def test_pictures_without_objects_have_empty_labels(tmp_path: Path) -> None:
    write_tasks(tmp_path, "constant")
    assert export(tmp_path, "yolo", "--pictures", "all", "--every", "5") == 0
    labels = sorted((tmp_path / "out" / "labels" / "train").iterdir())
    assert len(labels) == len(read_pictures(tmp_path / "out")) == 12
    assert [path.name for path in labels if path.read_text()] == ["1-1_000005.txt"]


def test_background_and_checked_frames(tmp_path: Path, capsys) -> None:
    write_tasks(tmp_path, "constant")
    assert export(tmp_path, "yolo", "--background", "40", "--checked", "1") == 0
    labels = {path.stem[-2:]: path.read_text() for path in (tmp_path / "out" / "labels" / "train").iterdir()}
    # A person's keyframes are on frames 2 and 7.
    assert {name for name, text in labels.items() if text} == {"02", "03", "06", "07"}
    assert {name for name, text in labels.items() if not text} == {"01", "08"}
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    tasks[0]["predictions"] = tasks[0].pop("annotations")
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    assert export(tmp_path, "yolo", "--predictions", "--checked", "1", out="none") == 2
    assert "task 1: not exported: nobody submitted an annotation" in capsys.readouterr().err


def test_labels_alone_need_no_video(tmp_path: Path, capsys) -> None:
    (clip,) = write_tasks(tmp_path, "constant")
    clip.path.unlink()
    assert export(tmp_path, "yolo") == 2
    assert "--pictures none exports labels without the video" in capsys.readouterr().err
    assert export(tmp_path, "yolo", "--pictures", "none", "--size", "192x128") == 0
    assert "1 tasks have Label Studio's frame numbers less one" in capsys.readouterr().err
    files = contents(tmp_path / "out")
    assert len(files) == 103
    assert sum(bool(text) for name, text in files.items() if name.startswith("labels/")) == 6
    assert export(tmp_path, "yolo", "--no-video", "--size", "192x128", out="none") == 2
    assert "add --pictures none" in capsys.readouterr().err


def test_a_killed_export_goes_on_with_the_same_bytes(tmp_path: Path, capsys) -> None:
    write_tasks(tmp_path, "long_group", "variable", regions=(MOVING, ROTATED))
    assert export(tmp_path, "yolo") == 0
    command = [sys.executable, "-c", "import sys; from backend.cli import main; sys.exit(main())"]
    words = ["project", "export", str(tmp_path / "tasks.json"), "--format", "yolo", "-o", str(tmp_path / "again")]
    process = subprocess.Popen([*command, *words], stderr=subprocess.DEVNULL)
    part = tmp_path / ".again.part"
    while not len([*part.rglob("*.jpg")]) > 20:
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "again").exists()
    there = {path: path.stat().st_mtime_ns for path in part.rglob("*.jpg")}
    capsys.readouterr()
    assert export(tmp_path, "yolo", out="again") == 0
    assert f"going on: {len(there)} of 180 pictures are there" in capsys.readouterr().err
    assert contents(tmp_path / "again") == contents(tmp_path / "out")
    kept = {tmp_path / "again" / path.relative_to(part): written for path, written in there.items()}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.parametrize("change", ["quality", "video", "frames"])
def test_pictures_of_other_settings_or_another_video_are_not_used(tmp_path: Path, monkeypatch, change: str) -> None:
    write_tasks(tmp_path, "constant")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("backend.datasets.yolo._format_yaml", fail)
        assert export(tmp_path, "yolo", "--quality", "60" if change == "quality" else "90") == 1
    assert (tmp_path / ".out.part" / "images").is_dir()
    regions = (drawn(keyframe(20), keyframe(24, enabled=False)),) if change == "frames" else (MOVING,)
    write_tasks(tmp_path, "edit_list" if change == "video" else "constant", regions=regions)
    for out in ("out", "fresh"):
        assert export(tmp_path, "yolo", out=out) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_full_disk_is_told_before_and_on_the_way(tmp_path: Path, capsys, monkeypatch) -> None:
    write_tasks(tmp_path, "constant")
    free = shutil.disk_usage(tmp_path)._replace(free=9_000)
    with monkeypatch.context() as patch:
        patch.setattr("backend.datasets.picture_folder.shutil.disk_usage", lambda _: free)
        assert export(tmp_path, "yolo") == 2
    assert "the pictures need about 51.6 kB and 9.0 kB are free: choose another disk" in capsys.readouterr().err
    real = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == "1-1_000005.jpg":
            raise OSError(28, "No space left on device", str(target))
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        assert export(tmp_path, "yolo") == 1
    told = capsys.readouterr().err
    assert "out cannot be written (No space left on device): make room, and start the same command again" in told
    assert str(tmp_path) not in told
    assert export(tmp_path, "yolo") == 0
    assert "going on: 3 of 6 pictures are there" in capsys.readouterr().err


def test_a_bad_task_or_video_costs_no_other_and_is_named_at_the_end(tmp_path: Path, capsys, monkeypatch) -> None:
    clips = write_tasks(tmp_path, "constant", "ntsc", "variable")
    clips[0].path.write_bytes(b"no video")
    cut = picture_cutter._cut_pictures

    def fail_late(video: Video, paths: dict[int, str], *more: object) -> None:
        cut(video, paths, *more)
        if video.key[0].endswith("2.mp4"):
            raise BackendError("the file is gone")

    monkeypatch.setattr("backend.datasets.picture_cutter._cut_pictures", fail_late)
    assert export(tmp_path, "yolo", "--split-field", "set") == 1
    told = capsys.readouterr().err.splitlines()
    assert "task 1: not exported: this file holds no video" in told[-4]
    assert told[-3].endswith("task 2: not exported: the file is gone")
    assert told[-2].endswith("1 videos cannot be opened: --pictures none exports labels without the videos")
    assert {name[0] for name in read_pictures(tmp_path / "out")} == {"3"}
    assert {path.name[0] for path in (tmp_path / "out" / "labels" / "train").iterdir()} == {"3"}


def test_masks_become_polygons_and_objects_without_are_told(tmp_path: Path, capsys) -> None:
    write_tasks(tmp_path, "constant", regions=(MOVING, ROTATED))
    mask = np.zeros(SIZE[::-1], bool)
    # The region's box on Label Studio's frame 3.
    mask[26:46, 20:42] = True
    mask[30:40, 25:35] = False
    write_sidecar(tmp_path / "tasks.json", {MOVING["id"]: {2: Rle.from_mask(mask)}})
    assert export(tmp_path, "yolo", "--task", "segment") == 0
    lines = (tmp_path / "out" / "labels" / "train" / "1-1_000002.txt").read_text().splitlines()
    polygon = np.array(lines[1].split()[1:], float).reshape(-1, 2) * SIZE
    assert (polygon.min(0).tolist(), polygon.max(0).tolist()) == (
        pytest.approx([20.5, 26.5], abs=1e-3),
        pytest.approx([41.5, 45.5], abs=1e-3),
    )
    assert "65 objects have no mask and are written as their box" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("form", "words", "says"),
    [
        ("csv", ["--split", "80,20"], "--split is for the datasets yolo"),
        ("mot", ["--max", "3"], "--max is for the datasets"),
        ("csv", ["--pictures", "all"], "--pictures is for mot, mots, coco-vid, youtube-vis, davis and the"),
        ("mot", ["--pictures", "annotated"], "mot needs every frame: write --pictures all, or none"),
        ("mot", ["--pictures", "all", "--no-video"], "--no-video leaves no pictures"),
        ("yolo", ["--labels", "Dog"], "there is no label Dog: choose from Car"),
        ("yolo", ["--track-ids", "--task", "obb"], "--track-ids writes a sixth column"),
        ("yolo", ["--labels", "Car", "--min-score", "0.5", "--split-field", "none"], "its field none names no split"),
    ],
)
def test_options_that_do_not_fit_are_told(tmp_path: Path, capsys, form: str, words: list[str], says: str) -> None:
    write_tasks(tmp_path, "constant")
    assert export(tmp_path, form, *words) == 2
    assert says in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


@pytest.mark.parametrize(
    "words",
    [
        ["--split", "80"],
        ["--split", "0,0"],
        ["--every", "0"],
        ["--quality", "200"],
        ["--min-score", "x"],
        ["--background", "95"],
    ],
)
def test_wrong_values_are_usage_errors(tmp_path: Path, words: list[str]) -> None:
    write_tasks(tmp_path, "constant")
    with pytest.raises(SystemExit) as ended:
        export(tmp_path, "yolo", *words)
    assert ended.value.code == 2
