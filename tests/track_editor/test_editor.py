"""An annotation changed and that taken back, in a file and in Label Studio; what others did meanwhile is never lost."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.errors import BadRequest, SettingsError, StudioError
from backend.labelstudio.client import LabelStudioClient
from backend.track_editor.annotation import FileTask, LabelStudioTask
from backend.track_editor.editor import Editor
from backend.track_editor.edits import Edit
from tests.formats.made import task
from tests.labelstudio.studio import TOKEN, Studio
from tests.track_editor.rosters import CONFIG, crossing

RENAME = Edit("rename", frozenset({3}), label="Person")
MERGE = Edit("merge", frozenset({1, 3}))


@pytest.fixture
def studio() -> Iterator[Studio]:
    with Studio(CONFIG) as studio:
        told = {"created_username": " anna@x.org, 1", "updated_at": "2026-11-25T21:03:09Z"}
        annotation = {"id": 12, "result": crossing(), **told}
        studio.add_task({"video": "/data/clip.mp4", "fps": 25}, annotations=[annotation], drafts=[], predictions=[])
        yield studio


@pytest.fixture(params=["file", "studio"])
def held(request: pytest.FixtureRequest, tmp_path: Path, studio: Studio) -> tuple[Editor, Callable[[], list[Any]]]:
    """A desk, and what is annotated."""
    if request.param == "studio":
        desk = Editor(LabelStudioTask(LabelStudioClient(studio.url, TOKEN), 1), tmp_path / "versions")
        return desk, lambda: studio.tasks[1]["annotations"][0]["result"]
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps([task(*crossing(), id=4), task(id=9)]))
    return Editor(FileTask(file, 4), tmp_path / "versions"), lambda: json.loads(file.read_text())[0]["annotations"][0][
        "result"
    ]


def test_a_change_is_made_and_taken_back(held: tuple[Editor, Callable[[], list[Any]]]) -> None:
    desk, annotated = held
    before = annotated()
    state = desk.read()
    assert state.undo is None
    state = desk.apply(RENAME, state.version)
    assert state.table.row(3).label == "Person"
    assert state.undo == "rename 3 to Person"
    state = desk.apply(MERGE, state.version)
    assert len(state.table.rows) == 2
    state = desk.undo(state.version)
    assert (len(state.table.rows), state.undo) == (3, "rename 3 to Person")
    state = desk.undo(state.version)
    assert (annotated(), state.undo) == (before, None)
    with pytest.raises(BadRequest, match="no change to take back"):
        desk.undo(state.version)


def test_a_preview_changes_nothing(held: tuple[Editor, Callable[[], list[Any]]]) -> None:
    desk, annotated = held
    before = annotated()
    state, change = desk.preview(MERGE)
    assert change.description == ("track 3, frames 60 to 90 → a part of track 1",)
    assert (annotated(), desk.read().version) == (before, state.version)


def test_what_was_changed_meanwhile_is_looked_at_again_first(held: tuple[Editor, Callable[[], list[Any]]]) -> None:
    desk, annotated = held
    old = desk.read().version
    desk.apply(RENAME, old)
    changed = annotated()
    for act in (lambda: desk.apply(MERGE, old), lambda: desk.undo(old)):
        with pytest.raises(BadRequest, match="changed meanwhile"):
            act()
    assert annotated() == changed


def test_a_change_that_somebody_worked_on_since_is_not_taken_back(studio: Studio, tmp_path: Path) -> None:
    desk = Editor(LabelStudioTask(LabelStudioClient(studio.url, TOKEN), 1), tmp_path)
    desk.apply(RENAME, desk.read().version)
    studio.tasks[1]["annotations"][0]["result"].append({"type": "choices", "id": "n", "value": {}})
    state = desk.read()
    assert state.undo is None
    with pytest.raises(BadRequest, match="by somebody since"):
        desk.undo(state.version)
    # Another change comes on top, and back to theirs.
    assert desk.apply(MERGE, state.version).undo == "merge 1, 3"


def test_a_draft_that_nobody_submitted_stops_it_whoever_has_it(studio: Studio, tmp_path: Path) -> None:
    studio.drafts[1] = [{"id": 1, "annotation": 12, "result": []}]
    desk = Editor(LabelStudioTask(LabelStudioClient(studio.url, TOKEN), 1), tmp_path)
    with pytest.raises(BadRequest, match="annotation 12 has changes that nobody has submitted"):
        desk.apply(RENAME, desk.read().version)
    assert studio.tasks[1]["annotations"][0]["result"] == crossing()


def test_a_change_that_label_studio_did_not_take_never_was(studio: Studio, tmp_path: Path) -> None:
    desk = Editor(LabelStudioTask(LabelStudioClient(studio.url, TOKEN), 1), tmp_path)
    version = desk.apply(RENAME, desk.read().version).version
    studio.failing = lambda: ("no", 500) if studio.seen[-1][0] == "PATCH" else None
    with pytest.raises(StudioError):
        desk.apply(MERGE, version)
    studio.failing = lambda: None
    assert desk.read().undo == "rename 3 to Person"


def test_no_version_no_change(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "versions").write_text("in the way")
    desk = Editor(LabelStudioTask(LabelStudioClient(studio.url, TOKEN), 1), tmp_path / "versions")
    with pytest.raises(SettingsError, match="nothing was changed"):
        desk.apply(RENAME, desk.read().version)
    assert studio.tasks[1]["annotations"][0]["result"] == crossing()


def test_a_prediction_counts_where_nothing_is_submitted(studio: Studio, tmp_path: Path) -> None:
    work = studio.tasks[1]
    work["predictions"] = [{"id": 5, "model_version": "sam3-1", "result": crossing()}]
    work["annotations"] = []
    desk = Editor(LabelStudioTask(LabelStudioClient(studio.url, TOKEN), 1), tmp_path)
    state = desk.apply(RENAME, desk.read().version)
    assert (state.annotation_name, state.author) == ("prediction 5", "sam3-1")
    assert work["predictions"][0]["result"][1]["value"]["labels"] == ["Person"]


def test_it_says_whose_it_is_and_what_to_do_where_there_is_none(studio: Studio, tmp_path: Path) -> None:
    desk = Editor(LabelStudioTask(LabelStudioClient(studio.url, TOKEN), 1), tmp_path)
    assert (desk.read().annotation_name, desk.read().author) == ("annotation 12", "anna@x.org, 2026-11-25 21:03")
    studio.tasks[1]["annotations"] = []
    with pytest.raises(BadRequest, match="press Submit"):
        desk.read()


def test_a_file_of_several_tasks_asks_which(tmp_path: Path) -> None:
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps([task(*crossing(), id=4), task(id=9)]))
    for number in (None, 5):
        with pytest.raises(BadRequest, match="holds the tasks 4, 9"):
            FileTask(file, number).read()


def test_only_so_many_versions_are_kept(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.track_editor.history._MOST", 3)
    desk = Editor(LabelStudioTask(LabelStudioClient(studio.url, TOKEN), 1), tmp_path)
    for number in range(10, 16):
        state = desk.apply(
            Edit("renumber", frozenset({desk.read().table.rows[-1].number}), to=number), desk.read().version
        )
    for _ in range(3):
        state = desk.undo(state.version)
    assert state.undo is None
    assert len([*tmp_path.rglob("*.gz")]) == 0
