"""What the pages share: their files, headers that close them to others, and no change on another site's behalf."""

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
    "icon.svg": "image/svg+xml",
    "status.css": "text/css",
    "status.js": "text/javascript",
    "tracks.css": "text/css",
    "tracks.js": "text/javascript",
}
_CLOSED = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""No other page may show, frame or guess at anything of here, and these pages ask nobody else."""


def add_static_routes(app: Flask) -> None:
    """The files that the pages name."""

    @app.get("/web/<path:name>")
    def web(name: str) -> ResponseReturnValue:
        if name not in _FILES:
            return error_response(404, "there is no such file: the status page is at /")
        return _file(name, _FILES[name])


def wants_page() -> bool:
    """Whether this request comes from somebody who would rather read than parse; `*/*` would parse."""
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


def page_response(name: str) -> Response:
    """A page. Its addresses are relative, so that it also works below a proxy's path."""
    return _file(name, "text/html")


def json_body() -> Mapping[str, Any]:
    """The request's JSON object; BadRequest where it is none."""
    try:
        found = request.get_json(silent=True)
    except RecursionError:
        found = None
    if not isinstance(found, Mapping):
        raise BadRequest("the body must be a JSON object, with Content-Type: application/json")
    return found


def uncached(answer: Response) -> Response:
    """An answer that nobody keeps."""
    answer.headers["Cache-Control"] = "no-store"
    return _closed(answer)


def error_response(status: int, sentence: str) -> Response:
    """An error, as JSON."""
    answer = uncached(jsonify({"error": sentence}))
    answer.status_code = status
    return answer


def refuse_cross_site() -> Response | None:
    """The 403 for a change that another site's page may have made a browser ask for; None where it may be made."""
    if request.headers.get("X-Sam3-Backend") != "1":
        return error_response(403, "this changes something: send the header X-Sam3-Backend: 1 with it")
    if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
        return error_response(403, "another site's page asked for this: use the pages of this server")
    origin = request.headers.get("Origin")
    if origin is not None and not _is_ours(origin):
        return error_response(
            403, "another page asked for this: where a proxy is between, let it pass on Host, port included"
        )
    return None


def _is_ours(origin: str) -> bool:
    """Whether a page of this origin came from here.

    X-Forwarded-Host is believed from anybody: a page elsewhere could only send it after a preflight, which is never
    answered here, and a person at a command line sends no Origin.
    """
    scheme, _, place = origin.lower().partition("://")
    forwarded = request.headers.get("X-Forwarded-Host", "").partition(",")[0].strip()
    known = {request.headers.get("Host", ""), forwarded} - {""}
    # Proxies often add the scheme's own port, which browsers leave out of Origin.
    port = {"http": ":80", "https": ":443"}.get(scheme, "")
    return place.removesuffix(port) in {host.lower().removesuffix(port) for host in known}


def _file(name: str, mimetype: str) -> Response:
    content, tag = _read(name)
    answer = _closed(Response(content, mimetype=mimetype))
    answer.headers["Cache-Control"] = "no-cache"
    answer.set_etag(tag)
    answer.make_conditional(request)
    return answer


@cache
def _read(name: str) -> tuple[bytes, str]:
    """A file of the package and its digest."""
    content = resources.files("backend.http").joinpath("static", name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:16]


def _closed(answer: Response) -> Response:
    answer.headers.update(_CLOSED)
    return answer
