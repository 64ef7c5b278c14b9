"""The export page: what a dataset would contain, its zip while it is made, and how far that is."""

from flask import Flask, Response, jsonify
from flask.typing import ResponseReturnValue

from backend.datasets.downloads import FORMATS, DatasetDownloads
from backend.datasets.options import DatasetOptions
from backend.errors import BadRequest
from backend.http.serving import json_body, page_response, refuse_cross_site, wants_page


def add_export_routes(app: Flask, downloads: DatasetDownloads) -> None:
    """The page and what it requests."""

    @app.get("/export")
    def export() -> ResponseReturnValue:
        response = page_response("export.html") if wants_page() else jsonify({"formats": FORMATS})
        response.headers["Vary"] = "Accept"
        return response

    @app.post("/projects/<int:project>/export")
    def plan_export(project: int) -> ResponseReturnValue:
        if refusal := refuse_cross_site():
            return refusal
        body = json_body()
        name, options, predictions = body.get("format"), body.get("options"), body.get("predictions")
        if name not in FORMATS:
            raise BadRequest(f"format must be one of {', '.join(FORMATS)}")
        if not isinstance(options, dict):
            raise BadRequest("options must be an object")
        given = DatasetOptions.from_json(options)
        return jsonify(downloads.plan(project, str(name), given, predictions is True))

    @app.get("/exports/<key>")
    def export_progress(key: str) -> ResponseReturnValue:
        return jsonify(downloads.progress(key))

    # No other site can start it: the key was given to a page of ours only.
    @app.get("/exports/<key>.zip")
    def download_export(key: str) -> ResponseReturnValue:
        name, content = downloads.open(key)
        response = Response(content, mimetype="application/zip")
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        response.headers["X-Accel-Buffering"] = "no"
        return response
