"""The routes of X-AnyLabeling's Remote-Server: errors are sentences with a status, so that the client shows them."""

import json
import logging
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from backend.concurrency import ConcurrencyLimit
from backend.errors import BackendError, BadRequest, one_line, where
from backend.http.serving import json_body
from backend.xanylabeling.upload_reader import UploadReader
from backend.xanylabeling.upload_session import PictureTracks
from backend.xanylabeling.upload_sessions import UploadSessions

log = logging.getLogger(__name__)

BLUEPRINT = "x-anylabeling"
_MAX_UPLOADS, _MAX_STREAMS = 4, 16
_KEEP_ALIVE_SECONDS = 1.0
"""How often a stream sends a line: the client looks only then whether the person has cancelled."""


def create_blueprint(sessions: UploadSessions, max_upload: int) -> Blueprint:
    """All routes of the client.

    Args:
        max_upload: bytes of a folder of pictures.
    """
    blueprint = Blueprint(BLUEPRINT, __name__, url_prefix="/v1")
    blueprint.register_error_handler(Exception, _error)
    blueprint.before_request(_check_origin)
    _add_video_routes(blueprint, sessions, max_upload)
    _add_track_routes(blueprint, sessions)

    @blueprint.get("/models")
    def models() -> ResponseReturnValue:
        return _data(sessions.models())

    @blueprint.get("/models/<model>/info")
    def info(model: str) -> ResponseReturnValue:
        if model not in (known := sessions.models()):
            return _client_error(404, "MODEL_NOT_FOUND", f"there is no such model: choose {', '.join(known)}")
        return _data({"model_id": model, **known[model]})

    return blueprint


def _add_video_routes(blueprint: Blueprint, sessions: UploadSessions, max_upload: int) -> None:
    uploads = ConcurrencyLimit(_MAX_UPLOADS)

    @blueprint.post("/video/init")
    def init() -> ResponseReturnValue:
        if (request.content_length or 0) > max_upload:
            raise BadRequest("the pictures are larger than limits.upload together: send fewer, or raise it")
        # Not through the framework, whose limit is that of all other requests.
        reader = UploadReader(request.environ["wsgi.input"], max_upload)
        with uploads:
            session = sessions.open(reader.read_pictures())
        sessions.check_model(reader.fields.get("model"))
        start = reader.fields.get("start_frame_index", 0)
        return _data({"session_id": session.name, "num_frames": session.length, "start_frame_index": start})

    @blueprint.post("/video/prompt")
    def prompt() -> ResponseReturnValue:
        body = json_body()
        sessions.check_model(body.get("model"))
        frame, shapes = sessions.prompt(body)
        groups = {shape["group_id"] for shape in shapes}
        return _data({"frame_index": frame, "masks": shapes, "num_objects": len(groups)})

    @blueprint.post("/video/cleanup/<session>")
    def cleanup(session: str) -> ResponseReturnValue:
        sessions.close(session)
        return _data({"message": "the session is closed"})


def _add_track_routes(blueprint: Blueprint, sessions: UploadSessions) -> None:
    streams = ConcurrencyLimit(_MAX_STREAMS)

    @blueprint.post("/video/propagate/stream")
    def stream() -> ResponseReturnValue:
        body = json_body()
        sessions.check_model(body.get("model"))
        tracks = sessions.propagate(body)
        total = sessions.find(body.get("session_id")).length
        response = Response(_stream(tracks, total, streams), mimetype="text/event-stream")
        response.headers["X-Accel-Buffering"] = "no"
        return response

    @blueprint.post("/video/propagate")
    def propagate() -> ResponseReturnValue:
        body = json_body()
        sessions.check_model(body.get("model"))
        task = sessions.start_task(body)
        return _data({"task_id": task, "status": "processing", "message": "the tracks are computed"})

    @blueprint.get("/video/status/<task>")
    def status(task: str) -> ResponseReturnValue:
        tracks = sessions.task(task)
        if tracks is None:
            return _client_error(404, "TASK_NOT_FOUND", "there is no such task: start the tracks again")
        return _data(_describe(tracks))

    @blueprint.post("/video/cancel/<task>")
    def cancel(task: str) -> ResponseReturnValue:
        tracks = sessions.task(task)
        if tracks is None:
            return _client_error(404, "TASK_NOT_FOUND", "there is no such task: start the tracks again")
        tracks.cancel()
        return _data({"message": "Task cancelled"})


def _stream(tracks: PictureTracks, total: int, streams: ConcurrencyLimit) -> Iterator[str]:
    """Progress, then the results; what is not complete when the client leaves is cancelled, and kept."""
    try:
        with streams:
            yield _line(type="started", total_frames=total, start_frame_index=tracks.span[0])
            shown = -1.0
            while not tracks.has_ended:
                tracks.wait(_KEEP_ALIVE_SECONDS)
                frame, share = tracks.progress()
                if share > shown:
                    yield _line(type="progress", current_frame=frame, total_frames=total, progress=round(share, 4))
                    shown = share
                else:
                    yield ": working\n\n"
            if error := tracks.error:
                yield _line(type="error", message=str(error))
            else:
                yield _line(type="completed", results=tracks.results())
    except BackendError as error:
        yield _line(type="error", message=str(error))
    except Exception as error:
        log.error("a stream of tracks failed: %s", where(error))
        yield _line(type="error", message="Internal error; see the server log.")
    finally:
        tracks.cancel()


def _describe(tracks: PictureTracks) -> dict[str, Any]:
    frame, share = tracks.progress()
    value: dict[str, Any] = {"progress": round(share, 4), "current_frame": frame, "total_frames": len(tracks.span)}
    if not tracks.has_ended:
        return {"status": "processing", **value}
    if error := tracks.error:
        return {"status": "failed", **value, "error": str(error)}
    state = "cancelled" if tracks.is_cancelled else "completed"
    return {"status": state, **value, "results": tracks.results()}


def _line(**event: Any) -> str:
    return f"data: {json.dumps(event, separators=(',', ':'))}\n\n"


def _data(data: Any) -> Response:
    return jsonify({"success": True, "data": data})


def _client_error(status: int, code: str, message: str) -> Response:
    """An error in the client's form."""
    response = jsonify({"success": False, "error": {"code": code, "message": message}})
    response.status_code = status
    return response


def _check_origin() -> Response | None:
    """The client is a program. A browser says which page it asks for, and no page may."""
    if request.headers.get("Sec-Fetch-Site") not in (None, "none") or request.headers.get("Origin"):
        return _client_error(403, "FORBIDDEN", "this address is for X-AnyLabeling, not for web pages")
    return None


def _error(error: Exception) -> ResponseReturnValue:
    if isinstance(error, BackendError):
        log.warning("%s %s: %s", request.method, request.url_rule, one_line(error))
        return _client_error(error.status, type(error).__name__.upper(), str(error))
    if isinstance(error, HTTPException):
        return _client_error(error.code or 500, error.name.upper(), str(error.description))
    log.error("%s %s: %s", request.method, request.url_rule, where(error))
    return _client_error(500, "INTERNAL_ERROR", "Internal error; see the server log.")
