"""The export page over HTTP: a plan, the zip of what the command writes, progress, and an end with the browser."""

import io
import shlex
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask
from flask.testing import FlaskClient
from waitress.server import create_server

from backend.cli import main
from backend.datasets.downloads import DatasetDownloads
from backend.http.app import create_app
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.videos import TaskVideos
from backend.settings import Settings
from tests.clips import CLIPS, write_clip
from tests.datasets.made import MOVING, ROTATED, contents
from tests.http.test_jobs_page import BROWSER, OURS, FakeBoard
from tests.labelstudio.bodies import CONFIG
from tests.labelstudio.studio import PROJECT, TOKEN, Studio

PLAN = f"/projects/{PROJECT}/export"


@pytest.fixture
def studio() -> Iterator[Studio]:
    with Studio(CONFIG) as studio:
        yield studio


def make_app(studio: Studio, folder: Path, **settings: Any) -> Flask:
    client = LabelStudioClient(studio.url, TOKEN)
    videos = TaskVideos(Settings(data_dir=folder, label_studio_url=studio.url))
    downloads = DatasetDownloads(lambda project: client, videos, folder)
    known: Any = SimpleNamespace(
        settings=Settings(**settings),
        track_editor=None,
        job_status=FakeBoard(),
        downloads=downloads,
        prompting=Mock(),
        signer=Mock(),
    )
    return create_app(known)


@pytest.fixture
def client(studio: Studio, tmp_path: Path) -> FlaskClient:
    return make_app(studio, tmp_path / "data").test_client()


def add_tasks(studio: Studio, folder: Path, *kinds: str) -> None:
    """A task with two regions for each clip, and one that nobody submitted."""
    for kind in kinds:
        name, options = CLIPS[kind]
        path = write_clip(folder / name, **options).path
        data = {"video": studio.keep(name, path.read_bytes()), "fps": 25}
        studio.add_task(data, annotations=[{"id": 1, "result": [MOVING, ROTATED]}])
    studio.add_task({"video": "/none.mp4", "fps": 25})


def unzipped(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as read:
        assert read.testzip() is None
        return {name: read.read(name) for name in read.namelist()}


def download(client: FlaskClient, key: str) -> dict[str, bytes]:
    return unzipped(client.get(f"/exports/{key}.zip").data)


def plan(client: FlaskClient, form: str = "yolo", status: int = 200, **options: Any) -> dict[str, Any]:
    answer = client.post(PLAN, json={"format": form, "options": options}, headers=OURS)
    assert answer.status_code == status, answer.json
    return dict(answer.json)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["yolo", "coco", "xanylabeling"])
def test_the_zip_holds_what_the_command_writes(
    studio: Studio, client: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    add_tasks(studio, tmp_path, "constant", "ntsc")
    planned = plan(client, form, every=2, split=[50, 50, 0])
    assert (planned["state"], planned["videos"], planned["pictures"]) == ("planned", 2, 60)
    assert planned["splits"]["train"] == planned["splits"]["val"] == {"videos": 1, "pictures": 30}
    assert planned["bytes"] > 10_000
    assert planned["remarks"] == ["1 tasks have no submitted annotation and are left out"]
    answer = client.get(f"/exports/{planned['key']}.zip")
    assert (answer.status_code, answer.mimetype) == (200, "application/zip")
    assert answer.headers["Content-Disposition"] == f'attachment; filename="project-{PROJECT}-{form}.zip"'
    assert (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    found = unzipped(answer.data)
    monkeypatch.setenv("LABEL_STUDIO_URL", studio.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    words = [
        "--project",
        str(PROJECT),
        "--format",
        form,
        "--every",
        "2",
        "--split",
        "50,50",
        "-o",
        str(tmp_path / "out"),
    ]
    assert main(["project", "export", *words, "--data-dir", str(tmp_path / "data")]) == 0
    expected = contents(tmp_path / "out")
    assert set(found) == set(expected)
    assert {name for name in found if found[name] != expected[name]} <= {"export.json"}
    progress = client.get(f"/exports/{planned['key']}").json
    assert (progress["state"], progress["done"]) == ("done", 60)
    assert progress["summary"].startswith("2 videos, 60 pictures, ")
    again = client.get(f"/exports/{planned['key']}.zip")
    assert (again.status_code, again.json["error"]) == (400, "this download was started before: plan it again")


@pytest.mark.parametrize(
    ("form", "pictures", "flags", "files"),
    [
        ("mot", "all", ["--pictures", "all"], 128),
        ("coco-vid", "all", ["--pictures", "all"], 121),
        ("cvat", "none", [], 2),
    ],
)
def test_tracks_are_exported_as_the_command_writes_them(
    studio: Studio,
    client: FlaskClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    pictures: str,
    flags: list[str],
    files: int,
) -> None:
    add_tasks(studio, tmp_path, "constant", "ntsc")
    planned = plan(client, form, pictures=pictures)
    assert (planned["pictures"], planned["splits"]) == (120, {})
    assert planned["command"].endswith(shlex.join(["--format", form, *flags, "-o", "dataset"]))
    found = download(client, planned["key"])
    monkeypatch.setenv("LABEL_STUDIO_URL", studio.url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    words = ["--project", str(PROJECT), "--format", form, *flags, "-o", str(tmp_path / "out")]
    assert main(["project", "export", *words, "--data-dir", str(tmp_path / "data")]) == 0
    assert found == contents(tmp_path / "out")
    assert len(found) == files
    progress = client.get(f"/exports/{planned['key']}").json
    assert (progress["state"], progress["done"], progress["summary"]) == ("done", 120, "2 tasks, 4 tracks")
    assert f"{form} does not hold" in progress["remarks"][0]


def test_a_file_of_tracks_has_its_name_in_the_zip(studio: Studio, client: FlaskClient, tmp_path: Path) -> None:
    add_tasks(studio, tmp_path, "constant")
    found = download(client, plan(client, "csv", pictures="none")["key"])
    assert list(found) == ["tracks.csv"]
    assert len(found["tracks.csv"].splitlines()) > 3


def test_a_video_that_is_gone_costs_no_other_and_is_named(studio: Studio, client: FlaskClient, tmp_path: Path) -> None:
    add_tasks(studio, tmp_path, "constant")
    studio.add_task({"video": "/gone.mp4", "fps": 25}, annotations=[{"id": 1, "result": [MOVING]}])
    planned = plan(client)
    assert planned["videos"] == 1
    assert planned["remarks"][1].startswith("task 3: ")
    # The page has no flags.
    assert planned["remarks"][2] == "1 videos cannot be opened: without pictures, their labels are exported"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "format must be one of yolo"),
        ({"format": "labelstudio", "options": {}}, "format must be one of yolo"),
        ({"format": "cvat", "options": {}}, "pictures of cvat must be none"),
        ({"format": "mot", "options": {"pictures": "annotated"}}, "pictures of mot must be all or none"),
        ({"format": "mot", "options": {"pictures": "all", "every": 2}}, "--every is for the datasets yolo"),
        ({"format": "yolo"}, "options must be an object"),
        ({"format": "yolo", "options": {"evry": 2}}, "there is no option evry"),
        ({"format": "yolo", "options": {"every": 0}}, "every must be a whole number from 1"),
        ({"format": "yolo", "options": {"every": True}}, "every must be a whole number from 1"),
        ({"format": "yolo", "options": {"split": [0, 1, 0]}}, "split must be the shares"),
        ({"format": "yolo", "options": {"task": "cut"}}, "task must be one of detect, segment, obb"),
        ({"format": "voc", "options": {"task": "obb"}}, "voc has no --task obb"),
        ({"format": "yolo", "options": {"labels": ["Dog"]}}, "there is no label Dog"),
        ({"format": "yolo", "options": {"checked": 1, "min_size": 5000}}, "nothing can be exported"),
    ],
)
def test_what_cannot_be_planned_is_told(
    studio: Studio, client: FlaskClient, tmp_path: Path, body: dict[str, Any], says: str
) -> None:
    if "labels" in str(body) or "checked" in str(body):
        add_tasks(studio, tmp_path, "constant")
    answer = client.post(PLAN, json=body, headers=OURS)
    assert (answer.status_code, says in answer.json["error"]) == (400, True), answer.json


def test_only_our_page_may_plan_and_only_who_logs_in(studio: Studio, tmp_path: Path) -> None:
    app = make_app(studio, tmp_path, basic_auth_user="ann", basic_auth_pass="right")
    client = app.test_client()
    for path in ("/export", "/exports/x", "/exports/x.zip"):
        assert client.get(path).status_code == 401
    assert client.post(PLAN, json={}, headers=OURS).status_code == 401
    login = {"auth": ("ann", "right")}
    assert client.get("/export", headers={"Accept": BROWSER}, **login).mimetype == "text/html"
    assert client.get("/export", **login).json["formats"]["yolo"]["tasks"] == ["detect", "segment", "obb"]
    assert client.post(PLAN, json={}, **login).status_code == 403
    assert client.get("/exports/x.zip", **login).status_code == 400


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_it_stops_when_the_browser_goes_away_and_lets_the_next_one_in(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than fits into the buffers between here and there.
    monkeypatch.setattr("backend.datasets.picture_cutter.encode_picture", lambda *_: bytes(4 << 20))
    add_tasks(studio, tmp_path, "constant")
    app = make_app(studio, tmp_path / "data")
    client, sockets = app.test_client(), dict[int, Any]()
    server = create_server(app, map=sockets, host="127.0.0.1", port=0, threads=4)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    keys = [plan(client, pictures="all")["key"] for _ in range(3)]
    browsers = [open_download(int(server.effective_port), key) for key in keys[:2]]
    until(lambda: all(client.get(f"/exports/{key}").json["done"] > 1 for key in keys[:2]))
    busy = client.get(f"/exports/{keys[2]}.zip")
    assert (busy.status_code, busy.headers["Retry-After"]) == (503, "10")
    for browser in browsers:
        browser.close()
    until(lambda: all(client.get(f"/exports/{key}").json["state"] == "stopped" for key in keys[:2]))
    until(lambda: not [one for one in threading.enumerate() if one.name == "dataset"])
    assert client.get(f"/exports/{keys[2]}.zip").status_code == 200
    server.close()


def open_download(port: int, key: str) -> socket.socket:
    """A browser that reads the beginning, and then nothing more."""
    browser = socket.socket()
    browser.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    browser.settimeout(10)
    browser.connect(("127.0.0.1", port))
    browser.sendall(f"GET /exports/{key}.zip HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert browser.recv(64).startswith(b"HTTP/1.1 200")
    return browser
