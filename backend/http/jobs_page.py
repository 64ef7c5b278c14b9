"""The status page: its jobs as JSON, requests to cancel and resume them, and metrics."""

from flask import Flask, Response, jsonify
from flask.typing import ResponseReturnValue

from backend.http.serving import error_response, page_response, refuse_cross_site
from backend.jobs.status import JobStatus


def add_jobs_routes(app: Flask, status: JobStatus) -> None:
    """All routes but the page's own address, which it shares with /health."""

    @app.get("/jobs")
    def jobs() -> ResponseReturnValue:
        return jsonify(status.overview())

    @app.get("/jobs/<int:number>")
    def job(number: int) -> ResponseReturnValue:
        content = status.job(number)
        return _no_job(number) if content is None else jsonify({"job": content})

    @app.delete("/jobs/<int:number>")
    def cancel(number: int) -> ResponseReturnValue:
        return refuse_cross_site() or (job(number) if status.cancel(number) else _no_job(number))

    @app.post("/jobs/<int:number>/resume")
    def resume(number: int) -> ResponseReturnValue:
        return refuse_cross_site() or (job(number) if status.resume(number) else _no_job(number))

    @app.get("/jobs/<int:number>/picture.jpg")
    def picture(number: int) -> ResponseReturnValue:
        content = status.picture(number)
        if content is None:
            return error_response(404, f"there is no picture of job {number}: GET /jobs says which jobs have one")
        return Response(content, mimetype="image/jpeg")

    @app.get("/metrics")
    def metrics() -> ResponseReturnValue:
        return Response(status.metrics(), content_type="text/plain; version=0.0.4; charset=utf-8")


def page() -> Response:
    """The status page's HTML."""
    return page_response("index.html")


def _no_job(number: int) -> Response:
    return error_response(404, f"there is no job {number}: GET /jobs lists those that are kept")
