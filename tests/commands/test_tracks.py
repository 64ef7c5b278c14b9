"""`sam3-backend project tracks`: the words of the command line, on files and on a small Label Studio."""

import json
from pathlib import Path

import pytest

from backend.cli import main
from tests.clips import write_clip
from tests.formats.made import kept, task
from tests.labelstudio.studio import Studio
from tests.track_editor.rosters import crossing


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return kept(tmp_path, task(*crossing()))


def tracks(*words: object) -> int:
    return main(["project", "tracks", *map(str, words)])


@pytest.fixture(autouse=True)
def data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAM3_BACKEND_DATA_DIR", str(tmp_path / "data"))


def results(file: Path) -> list[dict]:
    return json.loads(file.read_text())[0]["annotations"][0]["result"]


def test_the_list_says_what_there_is_and_what_may_be_one(file: Path, capsys) -> None:
    assert tracks(file, "list", "--no-video") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[1:] == [
        "task 7, annotation 1: 3 tracks on 100 frames",
        "track  class   score  frames  where",
        "    1  Car      0.90      50  0..50",
        "    2  Person            100  0..100",
        "    3  Car      0.60      31  59..90",
        told[-1],
    ]
    assert told[-1].startswith("1 and 3 may be the same object: 3 begins 9 frames after 1 ends")
    assert told[-1].endswith("If so: merge 1,3")


def test_a_change_is_told_and_made_only_when_it_is_said_so(file: Path, capsys) -> None:
    before = file.read_text()
    assert tracks(file, "merge", "1,3") == 2  # nobody is at the terminal
    assert file.read_text() == before
    said = capsys.readouterr()
    assert "  track 3, frames 60 to 90 → a part of track 1" in said.out
    assert "add --yes" in said.err
    assert tracks(file, "merge", "1,3", "--yes") == 0
    assert len(results(file)) == 3
    assert tracks(file, "undo", "--yes") == 0
    assert json.loads(file.read_text()) == json.loads(before)


def test_a_person_at_the_terminal_is_asked(file: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    for answer, count in (("", 4), ("n", 4), ("y", 3)):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert tracks(file, "delete", "1") == 0
        assert len(results(file)) == count
    assert capsys.readouterr().out.count("nothing changed") == 2


def test_frames_count_from_0_and_a_span_does_not_hold_its_end(file: Path) -> None:
    assert tracks(file, "rename", "Person", "Car", "--span", "19..30", "--yes") == 0
    part = next(one for one in results(file) if (one.get("meta") or {}).get("track_id") == 4)
    assert [keyframe["frame"] for keyframe in part["value"]["sequence"]] == [20, 30]
    assert tracks(file, "split", 3, 69, "--yes") == 0
    assert tracks(file, "renumber", "all", 1, "--span", "0..100", "--yes") == 0
    assert tracks(file, "delete", "1", "--span", "101..200", "--yes") == 2


def test_a_task_of_label_studio_counts_the_frames_of_its_video(studio: Studio, tmp_path: Path, capsys) -> None:
    # 50 pictures a second, and a page that counts 25: source frame 20 is LS frame 11.
    clip = write_clip(tmp_path / "clip.mp4", frames=200, rate=50).path
    video = studio.keep("clip.mp4", clip.read_bytes())
    studio.places[video] = (200, clip.read_bytes())
    studio.add_task({"video": video, "fps": 25}, annotations=[{"id": 12, "result": crossing()}], drafts=[])
    assert tracks("--task", 1, "split", 2, 20, "--yes") == 0
    said = capsys.readouterr().out
    assert "  track 2, frames 11 to 100 → track 4, Person" in said
    assert "annotation 12 changed: reload the task's page" in said
    assert tracks("list", "--task", 1) == 0
    assert "    2  Person             19  0..19" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["list"], "no task given: add --task N"),
        (["tasks.json"], "no action given: use one of list, rename"),
        (["tasks.json", "paint"], "no action given: use one of list, rename"),
        (["tasks.json", "renam", "1", "Car"], "unknown action renam: did you mean rename?"),
        (["lst", "--task", "7"], "unknown action lst: did you mean list?"),
        (["tasks.json", "rename", "1"], "write it as: rename TRACKS LABEL"),
        (["tasks.json", "merge", "1,3", "--span", "1..2"], "--span works only with rename"),
        (["tasks.json", "delete", "1", "--into", "1"], "--into works only with merge"),
        (["none.json", "list"], "none.json cannot be read"),
        (["tasks.json", "renumber", "1", "x"], "x is not a number"),
        (["tasks.json", "undo"], "no change to take back"),
    ],
)
def test_what_is_wrong_is_said(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys, words: list[str], says: str
) -> None:
    monkeypatch.chdir(file.parent)
    assert tracks(*words) == 2
    assert says in capsys.readouterr().err
