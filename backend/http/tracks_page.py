"""The page of a task's tracks and its JSON: what there is, what an edit would change, the edit, its undoing."""

from collections.abc import Mapping
from typing import Any, Protocol

from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue

from backend.errors import BadRequest
from backend.http.serving import json_body, page_response, refuse_cross_site, uncached, wants_page
from backend.track_editor.edits import Edit


class TracksView(Protocol):
    """What the routes need of the one that edits tracks; `static/tracks.js` reads its dicts.

    Frames are Label Studio's: they count from 1, and both ends of a span belong to it. A `version` says which state of
    the annotation somebody looked at. All of it raises BackendError.
    """

    def overview(self, task: int, project: str) -> dict[str, Any]:
        """The state: the video, its tracks, what may belong together, and the edit that can be undone."""

    def preview(self, task: int, project: str, edit: Edit) -> dict[str, Any]:
        """What an edit would do: `changes` in sentences, `tracks` as they would be, `version`."""

    def apply(self, task: int, project: str, edit: Edit, version: str) -> dict[str, Any]:
        """Make an edit; the new state."""

    def undo(self, task: int, project: str, version: str) -> dict[str, Any]:
        """Take the newest edit back; the new state."""

    def picture(self, task: int, project: str, frame: int) -> bytes:
        """A frame with its boxes and the tracks' numbers, as JPEG."""


def add_tracks_routes(app: Flask, manager: TracksView) -> None:
    """The page and all that it asks for."""

    @app.get("/tasks/<int:task>")
    def task_page(task: int) -> ResponseReturnValue:
        answer = page_response("tracks.html") if wants_page() else state(task)
        answer.headers["Vary"] = "Accept"
        return answer

    @app.get("/tasks/<int:task>/tracks")
    def task_tracks(task: int) -> ResponseReturnValue:
        return state(task)

    def state(task: int) -> Response:
        return uncached(jsonify(manager.overview(task, _project())))

    @app.post("/tasks/<int:task>/tracks")
    def edit_tracks(task: int) -> ResponseReturnValue:
        if no := refuse_cross_site():
            return no
        asked = json_body()
        edit, version = Edit.parse(asked.get("edit")), _version(asked)
        match asked.get("apply"):
            case True:
                return uncached(jsonify(manager.apply(task, _project(), edit, version)))
            case False:
                return uncached(jsonify(manager.preview(task, _project(), edit)))
        raise BadRequest("apply must be true, or false for a preview")

    @app.post("/tasks/<int:task>/tracks/undo")
    def undo_tracks(task: int) -> ResponseReturnValue:
        return refuse_cross_site() or uncached(jsonify(manager.undo(task, _project(), _version(json_body()))))

    @app.get("/tasks/<int:task>/picture.jpg")
    def task_picture(task: int) -> ResponseReturnValue:
        try:
            number = int(request.args.get("frame", ""))
        except ValueError:
            raise BadRequest("which frame: add ?frame=1, the number that Label Studio shows") from None
        return uncached(Response(manager.picture(task, _project(), number), mimetype="image/jpeg"))


def _project() -> str:
    return request.args.get("project", "")


def _version(asked: Mapping[str, Any]) -> str:
    if not isinstance(version := asked.get("version"), str):
        raise BadRequest("version must be the text that GET …/tracks gave")
    return version
