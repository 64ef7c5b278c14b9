"""`sam3-backend track`: a file in, tasks for Label Studio and a video to look at out."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.cli import main
from backend.labelstudio.sequence import parse
from backend.video import Video, write_video
from tests.labelstudio.test_regions import shown

SIZE, COUNT, STEP = (320, 180), 40, 3


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A textured square of 40 pixels that starts at (20, 60) and moves 3 pixels a frame to the right."""
    rng = np.random.default_rng(1)
    ground, square = (rng.integers(0, 255, (h, w, 3), np.uint8) for w, h in (SIZE, (40, 40)))
    ground, square = cv2.blur(ground, (9, 9)) // 2, cv2.resize(square[::5, ::5], (40, 40))
    pictures = []
    for index in range(COUNT):
        picture = ground.copy()
        picture[60:100, 20 + STEP * index : 60 + STEP * index] = square
        pictures.append(picture)
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, pictures, 25)
    return path


def track(clip: Path, *words: str) -> dict:
    """The task that comes out."""
    output = clip.parent / "tasks.json"
    assert main(["track", str(clip), "--engine", "opencv", *words, "-o", str(output)]) == 0
    (task,) = json.loads(output.read_text())
    return task


def truth(frame: int) -> list[float]:
    """Percent on an LS frame."""
    return [(20 + STEP * (frame - 1)) / 3.2, 60 / 1.8, 40 / 3.2, 40 / 1.8]


def test_a_box_becomes_a_task_that_label_studio_imports(clip: Path) -> None:
    task = track(clip, "--label", "Car", "--box", "20,60,40,40@0", "--video-url", "/data/upload/1/clip.mp4")
    assert task["data"] == {"video": "/data/upload/1/clip.mp4", "fps": 25}
    (prediction,) = task["predictions"]
    (region,) = prediction["result"]
    assert (region["type"], region["from_name"], region["to_name"]) == ("videorectangle", "box", "video")
    assert region["value"]["labels"] == ["Car"]
    assert (region["value"]["framesCount"], region["value"]["duration"]) == (COUNT, pytest.approx(COUNT / 25))
    items = list(parse(region["value"]["sequence"]))
    assert [item.frame for item in items if item.is_human] == [1]
    for frame in (2, 10, 25, COUNT):
        assert np.allclose(shown(items, frame), truth(frame), atol=2.5)


def test_the_overlay_shows_the_boxes_on_every_frame(clip: Path, tmp_path: Path) -> None:
    track(clip, "--box", "20,60,40,40@0", "--overlay", str(tmp_path / "out.mp4"))
    with Video(tmp_path / "out.mp4") as drawn, Video(clip) as plain:
        assert (len(drawn), drawn.width, drawn.height) == (COUNT, *SIZE)
        for at in (5, 30):
            changed = np.abs(drawn.read(at).astype(int) - plain.read(at)).max(axis=2) > 60
            left = 20 + STEP * at
            assert changed[60:100, left - 3 : left + 4].any(axis=1).mean() > 0.8  # along the box's left edge
            assert not changed[110:].any()  # nothing is drawn elsewhere


def test_tracks_and_labels_apply_to_the_prompts_after_them(clip: Path) -> None:
    words = "--track a --label Car --box 20,60,40,40@0 --track b --label Ball --point 100,80@20 --not 200,20@20"
    regions = track(clip, *words.split())["predictions"][0]["result"]
    assert [(r["id"], r["value"]["labels"], r["meta"]["track_id"]) for r in regions] == [
        ("a", ["Car"], 1),
        ("b", ["Ball"], 2),
    ]
    assert regions[1]["value"]["sequence"][0]["frame"] == 21
    assert not any(item.is_human for item in parse(regions[1]["value"]["sequence"]))


def test_span_and_direction_are_kept_to(clip: Path) -> None:
    words = "--box 80,60,40,40@20 --span 10..30 --direction both"
    (region,) = track(clip, *words.split())["predictions"][0]["result"]
    items = list(parse(region["value"]["sequence"]))
    assert (items[0].frame, items[-1].frame, items[-1].enabled) == (11, 30, False)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("", 2, "nothing is prompted"),
        ("--box 1,2,3@0", 2, "write it as X,Y,W,H@F"),
        ("--box 1,2,3,4", 2, "say on which source frame, as in X,Y,W,H@F"),
        ("--box 1,2,0,4@0", 2, "is empty"),
        ("--point a,b@0", 2, "write it as X,Y@F"),
        ("--not 5,5@0", 2, "add a positive point"),
        ("--mask gone.png@0", 2, "gone.png is no picture"),
        ("--text dog", 1, "by words"),
        ("--box 1,2,30,40@400", 1, "frame 400"),
        ("--box 20,60,40,40@5 --span 10..20", 1, "outside the span 10..20"),
        ("--box 1000,60,40,40@5", 1, "outside the picture"),
        ("--engine sam3 --box 20,60,40,40@5", 2, "set engine: opencv"),
        ("--engine auto --box 20,60,40,40@5", 2, "set engine: opencv"),
    ],
)
def test_a_mistake_is_one_sentence_and_an_exit_code(clip, capsys, words: str, code: int, sentence: str) -> None:
    assert main(["track", str(clip), "--engine", "opencv", *words.split()]) == code
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
    assert str(clip.parent) not in error


def test_a_file_that_is_no_video_is_one_sentence(tmp_path: Path, capsys) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    assert main(["track", str(path), "--engine", "opencv", "--box", "1,2,3,4@0"]) == 1
    assert "no video that can be decoded" in capsys.readouterr().err
