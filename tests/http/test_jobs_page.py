"""The status page's routes: JSON, pictures, files, headers, and no change on another site's behalf."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, jsonify
from flask.testing import FlaskClient

from backend.http import serving
from backend.http.jobs_page import add_jobs_routes, page
from backend.http.security import protect
from backend.settings import Settings

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
OURS = {"X-Sam3-Backend": "1"}
JPEG = b"\xff\xd8 a picture \xff\xd9"


def job(number: int, **changes: Any) -> dict[str, Any]:
    """A job as GET /jobs tells it."""
    known = {
        "id": number,
        "state": "queued",
        "phase": "",
        "kind": "words",
        "what": "circle, star",
        "clip": "shapes.mp4",
        "user": "ann@example.com",
        "resumable": changes.get("state") in ("cancelled", "failed"),
        "task": "12",
        "project": "1",
        "task_url": "http://studio.example/tasks/12",
        "done": 0,
        "total": 300,
        "tracks": 0,
        "together": [],
        "worker": None,
        "fps": None,
        "left_s": None,
        "error": None,
        "batch": False,
        "asked": 1_790_000_000 + number,
        "ended": None,
        "picture": None,
    }
    assert set(changes) <= set(known)
    return known | changes


def worker(device: str, **changes: Any) -> dict[str, Any]:
    """One worker as the status page gets it."""
    return {"device": device, "status": "ready", "memory": None, "cache": None, "jobs": []} | changes


class FakeBoard:
    """Jobs that are what a test says they are; the last is the newest."""

    def __init__(self, *jobs: dict[str, Any], image: bytes = JPEG) -> None:
        self.jobs = {job["id"]: job for job in jobs}
        self.image = image
        self.asked: list[tuple[str, int]] = []
        self.engine: dict[str, Any] = {"status": "ready", "workers": [worker("cpu")]}

    def overview(self) -> dict[str, Any]:
        newest = sorted(self.jobs.values(), key=lambda job: -job["id"])
        counts = {
            name: sum(job["state"] == state for job in newest)
            for name, state in (("waiting", "queued"), ("running", "running"))
        }
        about = {"version": "0.1.0", "engine": "sam3", "model": "sam3-shapes-ab12cd"}
        return about | self.engine | counts | {"jobs": newest}

    def job(self, number: int) -> dict[str, Any] | None:
        found = self.jobs.get(number)
        return found and found | {"log": [f"12:00:00 info: job {number} of task {found['task']}"]}

    def cancel(self, number: int) -> bool:
        return self._change("cancel", number, state="cancelled", ended=1_790_001_000, resumable=True)

    def resume(self, number: int) -> bool:
        return self._change("resume", number, state="queued", ended=None, error=None, resumable=False)

    def picture(self, number: int) -> bytes | None:
        found = self.jobs.get(number)
        return self.image if found and found["picture"] is not None else None

    def metrics(self) -> bytes:
        return b"sam3_jobs 1\n"

    def _change(self, verb: str, number: int, **changes: Any) -> bool:
        self.asked.append((verb, number))
        if number in self.jobs:
            self.jobs[number] |= changes
        return number in self.jobs


def make_app(board: FakeBoard) -> Flask:
    """A bare app whose `/` is shared as `backend.http.app` shares it."""
    app = Flask("status")
    protect(app, Settings(allowed_hosts=("*",)))  # other tests are about names
    serving.add_static_routes(app)
    add_jobs_routes(app, board)
    app.get("/")(lambda: page() if serving.wants_page() else jsonify({"status": "UP"}))
    return app


@pytest.fixture
def board() -> FakeBoard:
    return FakeBoard(job(1, state="running", picture=120), job(2))


@pytest.fixture
def client(board: FakeBoard) -> FlaskClient:
    return make_app(board).test_client()


@pytest.mark.parametrize(
    ("accept", "is_page"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("*/*", False),
        ("application/json", False),
        ("application/json, text/html;q=0.9", False),
        (None, False),
    ],
)
def test_browsers_get_the_page_and_programs_the_health(client: FlaskClient, accept: str | None, is_page: bool) -> None:
    answer = client.get("/", headers={"Accept": accept} if accept else {})
    assert answer.status_code == 200
    assert answer.mimetype == ("text/html" if is_page else "application/json")


def test_the_page_is_closed_to_other_pages_and_asks_none(client: FlaskClient) -> None:
    answer = client.get("/", headers={"Accept": BROWSER})
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("name", "mimetype"),
    [("base.css", "text/css"), ("status.js", "text/javascript"), ("icon.svg", "image/svg+xml")],
)
def test_a_file_is_asked_for_anew_but_sent_once(client: FlaskClient, name: str, mimetype: str) -> None:
    answer = client.get(f"/web/{name}")
    assert (answer.status_code, answer.mimetype) == (200, mimetype)
    assert answer.data
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    again = client.get(f"/web/{name}", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize(
    "name",
    [
        "__init__.py",
        "index.html",
        "x.js",
        "../status.py",
        "..%2fstatus.py",
        "%2e%2e/app.py",
        "/etc/passwd",
        "STATUS.JS",
    ],
)
def test_no_other_file_is_served(client: FlaskClient, name: str) -> None:
    assert client.get(f"/web/{name}", follow_redirects=True).status_code == 404


def test_a_file_that_is_not_there_is_said_to_be(client: FlaskClient) -> None:
    answer = client.get("/web/x.js")
    assert (answer.status_code, answer.json) == (404, {"error": "there is no such file: the status page is at /"})


def test_the_page_names_only_files_that_are_served(client: FlaskClient) -> None:
    text = client.get("/", headers={"Accept": BROWSER}).text
    named = {part.partition('"')[0] for part in text.split('"web/')[1:]}
    assert named == {"base.css", "status.css", "status.js", "icon.svg"}
    assert "http" not in text
    assert "style=" not in text
    assert "onclick" not in text


def test_the_jobs(client: FlaskClient, board: FakeBoard) -> None:
    answer = client.get("/jobs")
    assert (answer.status_code, answer.json) == (200, board.overview())
    assert [job["id"] for job in answer.json["jobs"]] == [2, 1]
    assert answer.headers["Cache-Control"] == "no-store"


def test_one_job(client: FlaskClient, board: FakeBoard) -> None:
    assert client.get("/jobs/1").json == {"job": board.jobs[1] | {"log": ["12:00:00 info: job 1 of task 12"]}}


def test_a_picture_is_never_kept(client: FlaskClient) -> None:
    answer = client.get("/jobs/1/picture.jpg?frame=120")
    assert (answer.status_code, answer.mimetype, answer.data) == (200, "image/jpeg", JPEG)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_metrics_are_in_prometheus_format(client: FlaskClient) -> None:
    answer = client.get("/metrics")
    assert (answer.status_code, answer.data) == (200, b"sam3_jobs 1\n")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")


def test_a_job_is_cancelled_and_goes_on(client: FlaskClient, board: FakeBoard) -> None:
    answer = client.delete("/jobs/1", headers=OURS)
    assert (answer.status_code, answer.json["job"]["state"]) == (200, "cancelled")
    answer = client.post("/jobs/1/resume", headers=OURS)
    assert (answer.status_code, answer.json["job"]["state"]) == (200, "queued")
    assert board.asked == [("cancel", 1), ("resume", 1)]


@pytest.mark.parametrize("number", [3, 10**30])
@pytest.mark.parametrize(
    "ask",
    [
        lambda client, number: client.get(f"/jobs/{number}"),
        lambda client, number: client.delete(f"/jobs/{number}", headers=OURS),
        lambda client, number: client.post(f"/jobs/{number}/resume", headers=OURS),
    ],
    ids=["job", "cancel", "resume"],
)
def test_a_job_that_is_not_there_is_said_to_be(client: FlaskClient, ask: Callable, number: int) -> None:
    answer = ask(client, number)
    assert (answer.status_code, answer.json["error"]) == (
        404,
        f"there is no job {number}: GET /jobs lists those that are kept",
    )


@pytest.mark.parametrize("number", [2, 3])
def test_a_picture_that_is_not_there_is_said_to_be(client: FlaskClient, number: int) -> None:
    answer = client.get(f"/jobs/{number}/picture.jpg")
    assert (answer.status_code, answer.mimetype) == (404, "application/json")
    assert f"no picture of job {number}" in answer.json["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://here.example:9090", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "HTTP://Here.Example:9090"},
        {"Origin": "https://out.example", "X-Forwarded-Host": "out.example"},
        {"Origin": "https://out.example", "X-Forwarded-Host": "out.example:443, inner.example"},
        {"Origin": "https://out.example", "Host": "out.example"},
        {"Origin": "https://out.example", "Host": "out.example:443"},
        {"Origin": "http://[::1]:9090", "Host": "[::1]:9090"},
    ],
)
def test_the_page_itself_may_change_jobs(client: FlaskClient, board: FakeBoard, headers: dict[str, str]) -> None:
    asked = {"Host": "here.example:9090"} | OURS | headers
    assert client.delete("/jobs/1", headers=asked).status_code == 200
    assert client.post("/jobs/1/resume", headers=asked).status_code == 200
    assert len(board.asked) == 2


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ({"X-Sam3-Backend": ""}, "send the header X-Sam3-Backend: 1"),
        ({"X-Sam3-Backend": "2"}, "send the header X-Sam3-Backend: 1"),
        ({"Sec-Fetch-Site": "cross-site"}, "another site"),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://here.example:9090"}, "another site"),
        ({"Origin": "http://evil.example"}, "another page"),
        ({"Origin": "http://here.example:8080"}, "another page"),
        ({"Origin": "http://here.example"}, "another page"),
        ({"Origin": "https://here.example", "Host": "here.example:80"}, "another page"),
        ({"Origin": "http://here.example:9090.evil.example"}, "another page"),
        ({"Origin": "null"}, "another page"),
        ({"Origin": "null", "Host": "null"}, "another page"),
        ({"Origin": ""}, "another page"),
        ({"Origin": "http://"}, "another page"),
        ({"Origin": "http://["}, "another page"),
        ({"Origin": "file://"}, "another page"),
        ({"Origin": "https://out.example", "X-Forwarded-Host": "inner.example, out.example"}, "another page"),
    ],
)
def test_other_pages_may_not(client: FlaskClient, board: FakeBoard, headers: dict[str, str], sentence: str) -> None:
    asked = {"Host": "here.example:9090"} | OURS | headers
    for answer in (client.delete("/jobs/1", headers=asked), client.post("/jobs/1/resume", headers=asked)):
        assert answer.status_code == 403
        assert sentence in answer.json["error"]
    assert board.asked == []


def test_a_preflight_is_never_answered(client: FlaskClient) -> None:
    for path in ("/jobs", "/jobs/1", "/jobs/1/resume"):
        asked = {"Origin": "http://evil.example", "Access-Control-Request-Headers": "X-Sam3-Backend"}
        answer = client.options(path, headers=asked)
        assert not any(name.startswith("Access-Control") for name in answer.headers.keys())  # noqa: SIM118


def test_nothing_is_changed_by_looking(client: FlaskClient, board: FakeBoard) -> None:
    assert client.get("/jobs/1/resume", headers=OURS).status_code == 405
    assert client.post("/jobs/1", headers=OURS).status_code == 405
    assert board.asked == []
