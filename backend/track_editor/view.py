"""The tracks page's data and actions, as JSON for `http/static/tracks.js`.

Frames are LS frames; ranges include both ends. A `version` identifies the state of the annotation that was read.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from backend.errors import BackendError
from backend.formats.video_tracks import folder_name
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.keyframe import format_keyframes
from backend.labelstudio.videos import TaskVideos, frame_reader
from backend.track_editor.annotation import LabelStudioTask
from backend.track_editor.editor import VERSIONS, Editor, EditorState
from backend.track_editor.edits import Edit
from backend.track_editor.merge_suggestions import suggest_merges
from backend.track_editor.track_table import TrackRow, TrackTable


class TrackEditorView:
    """One per process.

    Args:
        data_dir: the folder in which versions are stored.
        client: returns the client of a project; raises StudioError if its Label Studio is not known.
    """

    def __init__(self, data_dir: Path, videos: TaskVideos, client: Callable[[str], LabelStudioClient]) -> None:
        self._folder, self._videos, self._client = data_dir / VERSIONS, videos, client

    def overview(self, task: int, project: str) -> dict[str, Any]:
        """The state of a task's annotation.

        Raises:
            BackendError: there is none, or it cannot be read. The other methods raise it, too.
        """
        client, editor = self._open(task, project)
        return self._shown(client, editor.read())

    def preview(self, task: int, project: str, edit: Edit) -> dict[str, Any]:
        """The state after an edit, without making it."""
        _, editor = self._open(task, project)
        state, change = editor.preview(edit)
        return {"changes": [*change.description], "tracks": _tracks(change.table), "version": state.version}

    def apply(self, task: int, project: str, edit: Edit, version: str) -> dict[str, Any]:
        """Make an edit to this version; returns the new state."""
        client, editor = self._open(task, project)
        return self._shown(client, editor.apply(edit, version))

    def undo(self, task: int, project: str, version: str) -> dict[str, Any]:
        """Undo the last edit; returns the new state."""
        client, editor = self._open(task, project)
        return self._shown(client, editor.undo(version))

    def _open(self, task: int, project: str) -> tuple[LabelStudioClient, Editor]:
        client = self._client(project)
        return client, Editor(LabelStudioTask(client, task), self._folder)

    def _shown(self, client: LabelStudioClient, state: EditorState) -> dict[str, Any]:
        """The state as the page reads it."""
        chosen, table = state.chosen, state.table
        project = chosen.task["project"]
        return {
            "task": chosen.number,
            "project": str(project),
            "url": f"{client.url}/projects/{project}/data?task={chosen.number}",
            "video": folder_name(0, state.table.controls.video(state.chosen.data)).partition("-")[2],
            "of": state.annotation_name,
            "by": state.author,
            "version": state.version,
            "frames": table.length,
            "rate": table.rate,
            "labels": [*table.labels],
            "tracks": _tracks(table),
            "proposals": [
                {"tracks": [*one.tracks], "gap": one.gap, "likeness": one.likeness, "why": str(one)}
                for one in self._proposals(client, state)
            ],
            "undo": state.undo,
        }

    def _proposals(self, client: LabelStudioClient, state: EditorState) -> Iterable[Any]:
        """Tracks that may be merged; compared in the video only if it is here, so that nobody waits."""
        try:
            if self._videos.has(_url(state), client):
                with self._videos.look(_url(state), client) as video:
                    return suggest_merges(state.table, frame_reader(video, state.table.rate))
        except BackendError:
            pass
        return suggest_merges(state.table)


def _url(state: EditorState) -> str:
    return state.chosen.url(state.table.controls)


def _tracks(table: TrackTable) -> list[dict[str, Any]]:
    return [_track(entry) for entry in table.rows]


def _track(entry: TrackRow) -> dict[str, Any]:
    return {
        "id": entry.number,
        "label": entry.label,
        "score": entry.region.score,
        "spans": [[*span] for span in entry.spans],
        "keyframes": format_keyframes(entry.items),
        "frames": entry.frames,
    }
