"""Label Studio's ML backend protocol over HTTP: routes, authentication, errors as status codes. No logic."""

import logging
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from backend.errors import BackendError, BadRequest, Busy, one_line, where
from backend.http import export_page, jobs_page, prompting_page, serving, tracks_page, xanylabeling
from backend.http.panel import OPEN_ENDPOINTS, add_panel_routes
from backend.http.security import is_trusted_client, protect
from backend.http.streams import Streams
from backend.labelstudio.label_config import parse_label_config
from backend.service import Service
from backend.settings import X_ANYLABELING

log = logging.getLogger(__name__)

READY_ENDPOINT = "ready"
_MAX_ID = 64
"""Characters of a project's id."""
_MAX_REASON = 400
"""Characters of a sentence in a status line."""


def create_app(service: Service, streams: Streams | None = None) -> Flask:
    """The Flask application that speaks for `service`.

    Args:
        streams: where live pictures are sent from; close it before the server.
    """
    app = Flask("backend")
    app.config["MAX_CONTENT_LENGTH"] = service.settings.limits.body
    endpoints = ("frame", READY_ENDPOINT, *OPEN_ENDPOINTS, *prompting_page.PROMPTING_ENDPOINTS)
    protect(app, service.settings, endpoints, xanylabeling.BLUEPRINT)
    app.register_error_handler(Exception, _error)
    serving.add_static_routes(app)
    jobs_page.add_jobs_routes(app, service.job_status)
    tracks_page.add_tracks_routes(app, service.track_editor, service.signer)
    export_page.add_export_routes(app, service.downloads)
    _add_health_routes(app, service)
    _add_protocol_routes(app, service)
    _add_frame_route(app, service)
    if X_ANYLABELING in service.settings.doors:
        app.register_blueprint(xanylabeling.create_blueprint(service.uploads, service.settings.limits.upload))
    streams = streams or Streams()
    prompting_page.add_prompting_routes(app, streams, service.prompting, service.signer)
    add_panel_routes(app, streams, lambda key: service.panel(key), service.job_status)
    return app


def _add_health_routes(app: Flask, service: Service) -> None:
    @app.get("/")
    def root() -> ResponseReturnValue:
        response = jobs_page.page() if serving.wants_page() else health()
        response.headers["Vary"] = "Accept"
        return response

    @app.get("/health")
    def health() -> Response:
        return jsonify(service.health())

    @app.get(f"/health/{READY_ENDPOINT}", endpoint=READY_ENDPOINT)
    def ready() -> ResponseReturnValue:
        # No login: what balances load has none. It tells nothing but this.
        status = service.status
        word = status if status in ("ready", "loading", "warming up") else "not ready"
        return jsonify({"status": word}), 200 if status == "ready" else 503


def _add_protocol_routes(app: Flask, service: Service) -> None:
    """What Label Studio asks for, beside /health."""

    @app.post("/setup")
    def setup() -> ResponseReturnValue:
        body = serving.json_body()
        schema, hostname, token = (_text(body, key) for key in ("schema", "hostname", "access_token"))
        if hostname and not is_trusted_client(service.settings):
            # Anyone else could make the server fetch from an address of their choice.
            log.info("the address in /setup is ignored: it counts with a password, or from this machine")
            hostname, token = "", ""
        return jsonify({"model_version": service.setup(_project(body), schema, hostname, token)})

    @app.post("/predict")
    def predict() -> ResponseReturnValue:
        body = serving.json_body()
        tasks, params = body.get("tasks"), body.get("params")
        context = params.get("context") if isinstance(params, Mapping) else None
        if not isinstance(tasks, list):
            raise BadRequest("the request holds no tasks: it needs tasks: [{id, data}]")
        if context is not None and not isinstance(context, Mapping):
            raise BadRequest("params.context must be an object or null")
        results = service.predict(tasks, context, _text(body, "label_config"), _project(body))
        return jsonify({"results": results, "model_version": service.model_version})

    @app.route("/versions", methods=["GET", "POST"])
    def versions() -> ResponseReturnValue:
        return jsonify({"versions": [service.model_version]})

    @app.post("/validate")
    def validate() -> ResponseReturnValue:
        config = parse_label_config(_text(serving.json_body(), "config"))
        return jsonify({"status": "ok", "understood": config.describe()})

    @app.post("/webhook")
    def webhook() -> ResponseReturnValue:
        # The model does not learn from annotations, so other events are only acknowledged.
        body = serving.json_body()
        action, project = _text(body, "action"), body.get("project")
        if action == "START_TRAINING" and isinstance(project, Mapping):
            service.preannotation.train(project)
        return jsonify({"status": "ok", "action": action})


def _add_frame_route(app: Flask, service: Service) -> None:
    @app.get("/frames/<key>/<int:number>.jpg")
    def frame(key: str, number: int) -> ResponseReturnValue:
        # No login: browsers request pictures without one. The signed key is valid for one task's video only.
        response = Response(service.frame(key, number), mimetype="image/jpeg")
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Cache-Control"] = "private, max-age=86400, immutable"
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        return response


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    return value if isinstance(value, str) else ""


def _project(body: Mapping[str, Any]) -> str:
    """The project's id; Label Studio sends `<id>.<time of creation>`."""
    return str(body.get("project") or "")[:_MAX_ID].partition(".")[0]


def _error(error: Exception) -> ResponseReturnValue:
    if isinstance(error, BackendError):
        log.warning("%s %s: %s", request.method, _route(), one_line(error))
        response = _refusal(str(error), error.status)
        if isinstance(error, Busy):
            response.headers["Retry-After"] = str(error.retry_after)
        return response
    if isinstance(error, HTTPException):
        return _refusal(f"{error.name}: {error.description}", error.code or 500)
    log.error("%s %s: %s", request.method, _route(), where(error))
    return _refusal("Internal error; see the server log.", 500)


def _refusal(sentence: str, status: int) -> Response:
    """The sentence stands in the status line, too: of a failed request Label Studio shows that line alone."""
    response: Response = jsonify({"error": sentence})
    response.status = f"{status} {_reason_phrase(sentence)}"
    return response


def _reason_phrase(sentence: str) -> str:
    """One line of the characters that a status line may have."""
    line = " ".join(sentence.encode("latin-1", "replace").decode("latin-1").split())
    return "".join(character if character.isprintable() else "?" for character in line)[:_MAX_REASON]


def _route() -> str:
    """The route of the request, without what is signed or chosen in its address."""
    return request.url_rule.rule if request.url_rule else "an unknown route"
