"""The tracks page of a task: its tracks as JSON, and requests to preview, apply and undo an edit.

Its pictures are those of the prompting page.
"""

from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue

from backend.errors import BadRequest
from backend.http.serving import json_body, page_response, refuse_cross_site, wants_page
from backend.labelstudio.frame_strip import SignedPage, Signer
from backend.track_editor.edits import Edit
from backend.track_editor.view import TrackEditorView


def add_tracks_routes(app: Flask, editor: TrackEditorView, signer: Signer) -> None:
    """The page and what it requests."""

    def answer(state: Mapping[str, Any]) -> Response:
        key = signer.key(SignedPage(state["project"], str(state["task"])))
        return jsonify({**state, "prompting": f"../prompt/{key}/"})  # as the page sees it

    @app.get("/tasks/<int:task>")
    def task_page(task: int) -> ResponseReturnValue:
        response = page_response("tracks.html") if wants_page() else state(task)
        response.headers["Vary"] = "Accept"
        return response

    @app.get("/tasks/<int:task>/tracks")
    def task_tracks(task: int) -> ResponseReturnValue:
        return state(task)

    def state(task: int) -> Response:
        return answer(editor.overview(task, _project()))

    @app.post("/tasks/<int:task>/tracks")
    def edit_tracks(task: int) -> ResponseReturnValue:
        if refusal := refuse_cross_site():
            return refusal
        body = json_body()
        edit, version = Edit.parse(body.get("edit")), _version(body)
        match body.get("apply"):
            case True:
                return answer(editor.apply(task, _project(), edit, version))
            case False:
                return jsonify(editor.preview(task, _project(), edit))
        raise BadRequest("apply must be true, or false for a preview")

    @app.post("/tasks/<int:task>/tracks/undo")
    def undo_tracks(task: int) -> ResponseReturnValue:
        return refuse_cross_site() or answer(editor.undo(task, _project(), _version(json_body())))


def _project() -> str:
    return request.args.get("project", "")


def _version(body: Mapping[str, Any]) -> str:
    if not isinstance(version := body.get("version"), str):
        raise BadRequest("version must be the text from GET …/tracks")
    return version
