"""`sam3-backend project export` and `import`: files, a small Label Studio, real clips."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from backend.cli import main
from backend.commands import exchange
from backend.commands.export import Wanted, run
from backend.export.formats import FORMATS, NAMES
from backend.masks import Rle
from backend.settings import Settings
from tests.clips import write_clip
from tests.export.made import SIZE, kept, task
from tests.labelstudio.bodies import CONFIG, drawn, keyframe
from tests.labelstudio.studio import PROJECT, TOKEN, Studio

REGION = drawn(keyframe(3, 10), keyframe(8, 30, enabled=False), meta={"track_id": 4})


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    with Studio(CONFIG) as studio:
        monkeypatch.setenv("LABEL_STUDIO_URL", studio.url)
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
        yield studio


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", frames=12, size=(96, 64)).path


def export(source: Path | int, form: str, out: Path, *words: str) -> int:
    given = ["--project", str(source)] if isinstance(source, int) else [str(source)]
    data = ["--data-dir", str(out.parent / "data")]
    return main(["project", "export", *given, "--format", form, "-o", str(out), *data, *words])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_command_line_knows_all_formats() -> None:
    assert sorted(exchange._FORMATS) == sorted(NAMES)


@pytest.mark.parametrize("form", [name for name in NAMES if name not in ("mots", "davis")])
def test_a_file_is_exported(tmp_path: Path, capsys, form: str) -> None:
    out = tmp_path / "out"
    assert export(kept(tmp_path, task(REGION)), form, out, "--size", "640x360") == 0
    assert out.is_dir() == (form in FORMATS and FORMATS[form].is_folder)
    assert "out: 1 tasks" in capsys.readouterr().err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out", "tasks.json"]


@pytest.mark.parametrize("form", ["mots", "davis"])
def test_tracks_without_masks_are_told(tmp_path: Path, capsys, form: str) -> None:
    assert export(kept(tmp_path, task(REGION)), form, tmp_path / "out", "--size", "640x360") == 2
    assert "task 7: not exported: none of its tracks has masks" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["tasks.json"]


def test_masks_that_were_kept_are_written(tmp_path: Path) -> None:
    masks = {(7, REGION["id"]): {3: Rle.of(np.ones((360, 640), bool))}}
    told: list[str] = []
    wanted = Wanted("mots", tmp_path / "out", size=SIZE)
    other = drawn(keyframe(1), id="other")
    assert run(Settings(), kept(tmp_path, task(REGION, other)), wanted, masks, told.append) == 0
    assert len((tmp_path / "out" / "7-0a1b2c3d-clip" / "gt" / "gt.txt").read_text().splitlines()) == 1
    assert told[-1] == "1 tracks have no masks, and are left out of mots"


def test_what_track_writes_is_exported_by_its_own_video(tmp_path: Path, clip: Path, capsys) -> None:
    tracked = {"data": {"video": str(clip), "fps": 25}, "predictions": [{"result": [REGION]}]}
    file = kept(tmp_path, tracked)
    assert export(file, "csv", tmp_path / "a.csv") == 2
    assert "submit some, --predictions takes" in capsys.readouterr().err
    assert export(file, "csv", tmp_path / "a.csv", "--predictions", "--dense") == 0
    found = rows(tmp_path / "a.csv")
    assert [row["frame"] for row in found] == ["2", "3", "4", "5", "6", "7"]
    assert (found[0]["task"], found[0]["track"], found[0]["x0"]) == ("1", "4", "9.60")
    assert "Label Studio's" not in capsys.readouterr().err


def test_without_its_video_frames_are_the_pages_and_that_is_told(tmp_path: Path, capsys) -> None:
    file = kept(tmp_path, task(REGION), task(REGION, id=8))
    assert export(file, "csv", tmp_path / "a.csv", "--size", "640x360") == 0
    told = capsys.readouterr().err
    assert "frames of 2 tasks are Label Studio's, less one" in told
    assert [row["frame"] for row in rows(tmp_path / "a.csv")] == ["2", "7"] * 2
    assert export(file, "csv", tmp_path / "a.csv", "--size", "640x360", "--no-video") == 0
    assert "Label Studio's" not in capsys.readouterr().err


def test_tasks_that_cannot_be_exported_are_told_and_the_others_written(tmp_path: Path, capsys) -> None:
    file = kept(tmp_path, task(drawn(), id=3), task(REGION, id=4), task(id=5) | {"annotations": []})
    assert export(file, "csv", tmp_path / "a.csv", "--size", "640x360") == 1
    told = capsys.readouterr().err
    assert "1 tasks have no submitted annotation" in told
    assert "task 3: not exported: the region has no keyframe" in told
    assert {row["task"] for row in rows(tmp_path / "a.csv")} == {"4"}


@pytest.mark.parametrize("form", ["csv", "mot", "labelstudio"])
def test_nothing_is_left_behind_where_nothing_can_be_exported(tmp_path: Path, capsys, form: str) -> None:
    file = kept(tmp_path, task(drawn()))
    assert export(file, form, tmp_path / "out", "--dense") != 0
    assert [one.name for one in tmp_path.iterdir()] == ["tasks.json"]
    assert "task 7: " in capsys.readouterr().err


def test_two_tasks_of_one_number_are_told(tmp_path: Path, capsys) -> None:
    assert export(kept(tmp_path, task(REGION), task(REGION)), "csv", tmp_path / "a.csv") == 1
    assert "two tasks have the number 7" in capsys.readouterr().err


def test_frames_beyond_any_video_are_told(tmp_path: Path, capsys) -> None:
    far = drawn(keyframe(3), keyframe(50_000_000))
    assert export(kept(tmp_path, task(far)), "csv", tmp_path / "a.csv", "--size", "640x360") == 2
    assert "50000000 frames are too many" in capsys.readouterr().err


def test_an_unknown_size_is_told(tmp_path: Path, capsys) -> None:
    assert export(kept(tmp_path, task(REGION)), "mot", tmp_path / "out") == 2
    assert "give it as --size 1920x1080" in capsys.readouterr().err


def test_places_that_are_taken_are_told_before_anything_is_read(tmp_path: Path, capsys) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    for form, place, says in [
        ("mot", "full", "not an empty folder"),
        ("mot", "full/a", "not an empty folder"),
        ("csv", "full", "is a folder"),
        ("csv", "none/a.csv", "in a folder that is there"),
    ]:
        assert export(tmp_path / "none.json", form, tmp_path / place) == 2
        assert says in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert export(kept(tmp_path, task(REGION)), "mot", tmp_path / "empty", "--size", "640x360") == 0


@pytest.mark.parametrize("words", [["--size", "640"], ["--size", "0x9"], ["--project", "3"], ["--format", "voc"]])
def test_wrong_words_are_usage_errors(tmp_path: Path, capsys, words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        export(kept(tmp_path, task(REGION)), "csv", tmp_path / "a.csv", *words)
    assert ended.value.code == 2


def test_a_project_is_exported_by_its_videos(studio: Studio, tmp_path: Path, clip: Path, capsys) -> None:
    video = studio.keep("clip.mp4", clip.read_bytes())
    for data in ({"video": video, "fps": 50}, {"video": "/data/upload/7/gone.mp4", "fps": 25}):
        region = {**REGION, "value": {**REGION["value"], "sequence": []}}
        frames = [{**one, "time": one["frame"] / data["fps"]} for one in REGION["value"]["sequence"]]
        region["value"]["sequence"] = frames
        studio.add_task(data, annotations=[{"id": 1, "result": [region]}])
    assert export(PROJECT, "csv", tmp_path / "a.csv", "--size", "96x64") == 0
    found = rows(tmp_path / "a.csv")
    # At 50 a second the third and the eighth frame of the page are the second and the fourth picture.
    assert [(row["task"], row["frame"]) for row in found] == [("1", "1"), ("1", "3"), ("2", "2"), ("2", "7")]
    assert "frames of 1 tasks are Label Studio's, less one" in capsys.readouterr().err
    assert studio.changes == []


def test_a_list_of_tasks_without_results_is_asked_for_one_by_one(studio: Studio, tmp_path: Path) -> None:
    number = studio.add_task({"video": "/none.mp4", "fps": 25}, annotations=[{"id": 1, "result": [REGION]}])
    stub = {**studio.tasks[number], "annotations": [{"id": 1}]}
    studio.places["/api/tasks"] = 200, json.dumps({"tasks": [stub], "total": 1}).encode()
    assert export(PROJECT, "csv", tmp_path / "a.csv", "--size", "96x64") == 0
    assert len(rows(tmp_path / "a.csv")) == 2


def test_a_project_needs_a_label_studio(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("LABEL_STUDIO_URL", raising=False)
    assert export(PROJECT, "csv", tmp_path / "a.csv") == 2
    assert "set LABEL_STUDIO_URL" in capsys.readouterr().err


def load(path: Path, form: str, *words: str) -> int:
    data = ["--data-dir", str(path.parent / "data")]
    return main(["project", "import", str(path), "--project", str(PROJECT), "--format", form, *data, *words])


@pytest.mark.parametrize("form", ["mot", "coco-vid"])
def test_what_was_exported_is_imported_once(studio: Studio, tmp_path: Path, clip: Path, capsys, form: str) -> None:
    video = studio.keep("clip.mp4", clip.read_bytes())
    studio.add_task({"video": "/other.mp4", "fps": 25})
    number = studio.add_task({"video": video, "fps": 25}, annotations=[{"id": 1, "result": [REGION]}])
    assert export(PROJECT, form, tmp_path / "out") == 0
    assert load(tmp_path / "out", form) == 0
    (posted,) = studio.predictions
    assert (posted["task"], posted["model_version"]) == (number, "import-out")
    (region,) = posted["result"]
    assert (region["value"]["labels"], region["meta"]["track_id"]) == (["Car"], 4)
    assert [(one["frame"], one["enabled"]) for one in region["value"]["sequence"]] == [(3, True), (8, False)]
    assert [one["x"] for one in region["value"]["sequence"]] == pytest.approx([10, 30], abs=0.02)
    capsys.readouterr()
    assert load(tmp_path / "out", form) == 0
    assert "has the prediction import-out already" in capsys.readouterr().err
    assert len(studio.predictions) == 1


def sequence(folder: Path, name: str, text: str = "3,4,10,20,30,20,1,1,1\n") -> Path:
    file = folder / name / "gt" / "gt.txt"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return folder / name


def test_a_task_is_found_by_its_videos_name_or_said(studio: Studio, tmp_path: Path, clip: Path, capsys) -> None:
    for name in ("clip.mp4", "b.mp4", "b.mp4"):
        studio.add_task({"video": studio.keep(name, clip.read_bytes()), "fps": 25})
    assert load(sequence(tmp_path, "clip"), "mot", "--label", "Person") == 0
    assert load(sequence(tmp_path, "b"), "mot") == 1
    assert "b: not imported: 2 tasks have a video of this name: say which by --task N" in capsys.readouterr().err
    assert load(sequence(tmp_path, "c"), "mot") == 1
    assert "no task has a video of this name" in capsys.readouterr().err
    assert load(tmp_path / "c", "mot", "--task", "2") == 0
    assert [(one["task"], one["model_version"]) for one in studio.predictions] == [(1, "import-clip"), (2, "import-c")]
    assert studio.predictions[0]["result"][0]["value"]["labels"] == ["Person"]


def test_without_the_video_the_files_own_numbers_count(studio: Studio, tmp_path: Path, capsys) -> None:
    studio.add_task({"video": "/data/upload/7/gone.mp4", "fps": 25})
    folder = sequence(tmp_path, "gone")
    assert load(folder, "mot") == 1
    assert "give it as --size 1920x1080" in capsys.readouterr().err
    assert load(folder, "mot", "--size", "100x50") == 0
    assert "its video is not read" in capsys.readouterr().err
    (keyframe,) = studio.predictions[0]["result"][0]["value"]["sequence"]
    assert (keyframe["frame"], keyframe["x"], keyframe["y"], keyframe["enabled"]) == (3, 10, 40, False)


def test_a_task_takes_one_video_of_a_file(studio: Studio, tmp_path: Path, capsys) -> None:
    studio.add_task({"video": "/a.mp4"})
    for name in ("a", "b"):
        sequence(tmp_path / "all", name)
    assert load(tmp_path / "all", "mot", "--task", "1") == 2
    assert "holds 2 videos (a, b): give one, or leave out --task" in capsys.readouterr().err


def test_another_video_and_another_config_are_told(studio: Studio, tmp_path: Path, clip: Path, capsys) -> None:
    studio.add_task({"video": studio.keep("clip.mp4", clip.read_bytes()), "fps": 25})
    (tmp_path / "labels.txt").write_text("Dog\n")
    assert load(sequence(tmp_path, "clip"), "mot") == 1
    assert 'the label "Dog" is not in the label config' in capsys.readouterr().err
    assert load(sequence(tmp_path, "late", "30,4,10,20,30,20,1,1,1\n"), "mot", "--task", "1", "--label", "Car") == 1
    assert "has 30 frames and the video 12: is it another one?" in capsys.readouterr().err
    assert studio.predictions == []
