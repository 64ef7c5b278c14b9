"""The status page, and what it shows as JSON: what runs, what waits and what came of it; cancel, go on, metrics."""

import hashlib
from functools import cache
from importlib import resources
from typing import Any, Protocol

from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue

_FILES = {"status.css": "text/css", "status.js": "text/javascript", "icon.svg": "image/svg+xml"}
_CLOSED = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""No other page may show, frame or guess at anything of here, and this page asks nobody else."""


class Board(Protocol):
    """What the routes need of the one that knows the jobs; `web/status.js` reads its dicts."""

    def overview(self) -> dict[str, Any]:
        """The engine, its memory, and the newest jobs, the newest first."""

    def job(self, number: int) -> dict[str, Any] | None:
        """One job; None: there is none of this number."""

    def cancel(self, number: int) -> bool:
        """Stop a job and keep what it has computed; False: there is none of this number."""

    def resume(self, number: int) -> bool:
        """Let a job go on where it stopped; False: there is none of this number."""

    def picture(self, number: int) -> bytes | None:
        """A job's newest frame with its boxes, as JPEG; None: there is no job or no picture."""

    def metrics(self) -> bytes:
        """Prometheus' text format, version 0.0.4."""


def add_routes(app: Flask, board: Board) -> None:
    """Everything but the page's own address, which it shares with the health JSON: see `wants_page`."""

    @app.get("/web/<path:name>")
    def web(name: str) -> ResponseReturnValue:
        if name not in _FILES:
            return _said(404, "there is no such file: the status page is at /")
        return _file(name, _FILES[name])

    @app.get("/jobs")
    def jobs() -> ResponseReturnValue:
        return _fresh(jsonify(board.overview()))

    @app.get("/jobs/<int:number>")
    def job(number: int) -> ResponseReturnValue:
        found = board.job(number)
        return _no_job(number) if found is None else _fresh(jsonify({"job": found}))

    @app.delete("/jobs/<int:number>")
    def cancel(number: int) -> ResponseReturnValue:
        return _refused() or (job(number) if board.cancel(number) else _no_job(number))

    @app.post("/jobs/<int:number>/resume")
    def resume(number: int) -> ResponseReturnValue:
        return _refused() or (job(number) if board.resume(number) else _no_job(number))

    @app.get("/jobs/<int:number>/picture.jpg")
    def picture(number: int) -> ResponseReturnValue:
        found = board.picture(number)
        if found is None:
            return _said(404, f"there is no picture of job {number}: GET /jobs says which jobs have one")
        return _fresh(Response(found, mimetype="image/jpeg"))

    @app.get("/metrics")
    def metrics() -> ResponseReturnValue:
        return _fresh(Response(board.metrics(), content_type="text/plain; version=0.0.4; charset=utf-8"))


def wants_page() -> bool:
    """Whether this request comes from somebody who would rather read than parse; `*/*` would parse."""
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


def page() -> Response:
    """The status page. Its addresses are relative, so that it also works below a proxy's path."""
    return _file("index.html", "text/html")


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
    content = resources.files("backend.web").joinpath(name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:16]


def _closed(answer: Response) -> Response:
    answer.headers.update(_CLOSED)
    return answer


def _fresh(answer: Response) -> Response:
    answer.headers["Cache-Control"] = "no-store"
    return _closed(answer)


def _said(status: int, sentence: str) -> Response:
    answer = _fresh(jsonify({"error": sentence}))
    answer.status_code = status
    return answer


def _no_job(number: int) -> Response:
    return _said(404, f"there is no job {number}: GET /jobs lists those that are kept")


def _refused() -> Response | None:
    """The 403 for a change that another site's page may have made a browser ask for; None where it may be made."""
    if request.headers.get("X-Sam3-Backend") != "1":
        return _said(403, "this changes a job: send the header X-Sam3-Backend: 1 with it")
    if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
        return _said(403, "another site's page asked for this: use the status page of this server")
    origin = request.headers.get("Origin")
    if origin is not None and not _is_ours(origin):
        return _said(403, "another page asked for this: where a proxy is between, let it pass on Host, port included")
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
