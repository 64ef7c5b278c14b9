"""The status page's JSON: what runs, what waits and what came of it; cancel, go on, metrics."""

from typing import Any, Protocol

from flask import Flask, Response, jsonify
from flask.typing import ResponseReturnValue

from backend.http.serving import error_response, refuse_cross_site, uncached
from backend.http.serving import page_response as read_page


class JobsView(Protocol):
    """What the routes need of the one that knows the jobs; `static/status.js` reads its dicts."""

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


def add_jobs_routes(app: Flask, board: JobsView) -> None:
    """Everything but the page's own address, which it shares with the health JSON."""

    @app.get("/jobs")
    def jobs() -> ResponseReturnValue:
        return uncached(jsonify(board.overview()))

    @app.get("/jobs/<int:number>")
    def job(number: int) -> ResponseReturnValue:
        found = board.job(number)
        return _no_job(number) if found is None else uncached(jsonify({"job": found}))

    @app.delete("/jobs/<int:number>")
    def cancel(number: int) -> ResponseReturnValue:
        return refuse_cross_site() or (job(number) if board.cancel(number) else _no_job(number))

    @app.post("/jobs/<int:number>/resume")
    def resume(number: int) -> ResponseReturnValue:
        return refuse_cross_site() or (job(number) if board.resume(number) else _no_job(number))

    @app.get("/jobs/<int:number>/picture.jpg")
    def picture(number: int) -> ResponseReturnValue:
        found = board.picture(number)
        if found is None:
            return error_response(404, f"there is no picture of job {number}: GET /jobs says which jobs have one")
        return uncached(Response(found, mimetype="image/jpeg"))

    @app.get("/metrics")
    def metrics() -> ResponseReturnValue:
        return uncached(Response(board.metrics(), content_type="text/plain; version=0.0.4; charset=utf-8"))


def page() -> Response:
    """The status page."""
    return read_page("index.html")


def _no_job(number: int) -> Response:
    return error_response(404, f"there is no job {number}: GET /jobs lists those that are kept")
