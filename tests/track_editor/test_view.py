"""What the page "Tracks of task N" is told."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backend.errors import BadRequest, StudioError
from backend.jobs.store import Store
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.videos import TaskVideos
from backend.predict.connections import Connections
from backend.settings import Settings
from backend.track_editor.edits import Edit
from backend.track_editor.view import TrackEditorView
from tests.clips import write_clip
from tests.labelstudio.studio import PROJECT, TOKEN, Studio
from tests.track_editor.rosters import CONFIG, crossing

RENAME = Edit("rename", frozenset({3}), label="Person")


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames=100)
    with Studio(CONFIG) as studio:
        video = studio.keep("clip.mp4", clip.read_bytes())
        studio.places[video] = (200, clip.read_bytes())
        studio.add_task({"video": video, "fps": 25}, annotations=[{"id": 12, "result": crossing()}], drafts=[])
        yield studio


@pytest.fixture
def manager(studio: Studio, tmp_path: Path) -> TrackEditorView:
    client = LabelStudioClient(studio.url, TOKEN)
    return TrackEditorView(tmp_path, TaskVideos(Settings(data_dir=tmp_path)), lambda project: client)


def test_the_state_is_what_the_page_reads(manager: TrackEditorView, studio: Studio) -> None:
    state = manager.overview(1, "")
    assert state["url"] == f"{studio.url}/projects/{PROJECT}/data?task=1"
    assert (state["of"], state["frames"], state["rate"]) == ("annotation 12", 100, 25)
    assert state["labels"] == ["Car", "Person"]
    assert state["tracks"][1] == {
        "id": 2,
        "label": "Person",
        "score": None,
        "spans": [[1, 100]],
        "keyframes": [[1, True, 10, 60, 12, 16, 0, True], [70, True, 10, 40, 12, 16, 0, True]],
        "frames": 100,
    }
    assert [one["tracks"] for one in state["proposals"]] == [[1, 3]]
    assert state["proposals"][0]["likeness"] is None  # nobody waits for a video


def test_a_change_is_shown_made_and_taken_back(manager: TrackEditorView) -> None:
    preview = manager.preview(1, "", RENAME)
    assert preview["changes"] == ["track 3: Car → Person"]
    assert [one["label"] for one in preview["tracks"]] == ["Car", "Person", "Person"]
    state = manager.apply(1, "", RENAME, preview["version"])
    assert (state["undo"], state["tracks"][2]["label"]) == ("rename 3 to Person", "Person")
    with pytest.raises(BadRequest, match="changed meanwhile"):
        manager.apply(1, "", RENAME, preview["version"])
    assert manager.undo(1, "", state["version"])["undo"] is None


def test_once_the_video_is_here_it_says_how_alike_tracks_look(manager: TrackEditorView, studio: Studio) -> None:
    manager._videos.fetch(studio.tasks[1]["data"]["video"], manager._client(""))
    # Cells that are black here and white there.
    assert all(one["likeness"] is not None for one in manager.overview(1, "")["proposals"])


def test_without_a_label_studio_it_says_what_to_set(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    store = Store(tmp_path / "jobs.sqlite3", settings.limits.store, settings.limits.retention_days)
    with closing(store):
        client = Connections(settings, store).require_client
        manager = TrackEditorView(tmp_path, TaskVideos(settings), client)
        with pytest.raises(StudioError, match="LABEL_STUDIO_URL"):
            manager.overview(1, "")
