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
    "base.css": "text/css",
    "base.js": "text/javascript",
    "export.css": "text/css",
    "export.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "status.css": "text/css",
    "status.js": "text/javascript",
    "tracks.css": "text/css",
    "tracks.js": "text/javascript",
}


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
    try:
        body = request.get_json(silent=True)
    except RecursionError:
        body = None
    if not isinstance(body, Mapping):
        raise BadRequest("the body must be a JSON object, with Content-Type: application/json")
    return body


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
