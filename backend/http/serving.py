"""What all pages share: static files, security headers, and a check that no other site causes changes."""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue

from backend.errors import BadRequest

_FILES = {
    "axis.js": "text/javascript",
    "base.css": "text/css",
    "base.js": "text/javascript",
    "export.css": "text/css",
    "export.js": "text/javascript",
    "frames.js": "text/javascript",
    "painter.js": "text/javascript",
    "player.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "prompting.css": "text/css",
    "prompted_object.js": "text/javascript",
    "prompting.js": "text/javascript",
    "prompting_list.js": "text/javascript",
    "prompting_pointer.js": "text/javascript",
    "prompting_review.js": "text/javascript",
    "prompting_tracks.js": "text/javascript",
    "shortcuts.js": "text/javascript",
    "status.css": "text/css",
    "status.js": "text/javascript",
    "timeline.js": "text/javascript",
    "track_row.js": "text/javascript",
    "tracks.css": "text/css",
    "tracks.js": "text/javascript",
    "zoom.js": "text/javascript",
}

_MAX_ITEMS = 2_500_000
"""Items of a body: 60 MB of nothing but brackets took 1.7 GB. 200,000 keyframes have 2,000,000."""
_MAX_DEPTH = 64


def add_static_routes(app: Flask) -> None:
    """Serve the static files of the pages."""

    @app.get("/web/<path:name>")
    def web(name: str) -> ResponseReturnValue:
        if name not in _FILES:
            return error_response(404, "there is no such file: the status page is at /")
        return _file(name, _FILES[name])


def wants_page() -> bool:
    """Whether the client prefers HTML to JSON; with `Accept: */*` it gets JSON."""
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


def page_response(name: str) -> Response:
    """A page. Its addresses are relative, so that it also works under a path of a proxy."""
    return _file(name, "text/html")


def json_body() -> Mapping[str, Any]:
    """The request's JSON object; raises BadRequest if it has none."""
    # Counted before parsing, because every item takes many times its bytes; those within texts count, too.
    if sum(map(request.get_data().count, (b",", b"[", b"{"))) > _MAX_ITEMS:
        raise BadRequest(f"the body has over {_MAX_ITEMS} items: send fewer tracks or keyframes at once")
    try:
        body = request.get_json(silent=True)
    except RecursionError:
        body = None
    if not isinstance(body, Mapping):
        raise BadRequest("the body must be a JSON object, with Content-Type: application/json")
    if not _is_shallow(body):
        raise BadRequest(f"the body is nested over {_MAX_DEPTH} deep: no request of Label Studio is")
    return body


def _is_shallow(body: Any) -> bool:
    """Whether what is nested in `body` is at most so deep that no code that walks it runs out of stack."""
    level = [body]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return True
    return False


def error_response(status: int, message: str) -> Response:
    """An error as JSON."""
    response = jsonify({"error": message})
    response.status_code = status
    return response


def refuse_cross_site() -> Response | None:
    """Status 403 if a page of another site may have made the browser request this change; None: it is allowed."""
    if request.headers.get("X-Sam3-Backend") != "1":
        return error_response(403, "this changes something: send the header X-Sam3-Backend: 1 with it")
    if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
        return error_response(403, "another site's page requested this: use the pages of this server")
    origin = request.headers.get("Origin")
    if origin is not None and not _is_ours(origin):
        return error_response(
            403, "another page requested this: if a proxy is in between, let it pass on Host with the port"
        )
    return None


def _is_ours(origin: str) -> bool:
    """Whether a page of this origin is one of ours.

    X-Forwarded-Host is trusted from every client: another site could only send it after a preflight request, which is
    never allowed here, and command line tools send no Origin.
    """
    scheme, _, host = origin.lower().partition("://")
    forwarded = request.headers.get("X-Forwarded-Host", "").partition(",")[0].strip()
    ours = {request.headers.get("Host", ""), forwarded} - {""}
    # Proxies often add the scheme's default port, which browsers leave out of Origin.
    port = {"http": ":80", "https": ":443"}.get(scheme, "")
    return host.removesuffix(port) in {name.lower().removesuffix(port) for name in ours}


def _file(name: str, mimetype: str) -> Response:
    content, tag = _read(name)
    response = Response(content, mimetype=mimetype)
    response.headers["Cache-Control"] = "no-cache"
    response.set_etag(tag)
    response.make_conditional(request)
    return response


@cache
def _read(name: str) -> tuple[bytes, str]:
    """A file of the package and its digest."""
    content = resources.files("backend.http").joinpath("static", name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:16]
