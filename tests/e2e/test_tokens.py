"""A video of Label Studio with each kind of token, uploaded and as a file of Label Studio's machine."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from backend.demo.labelstudio import LabelStudio
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.videos import TaskVideos
from backend.settings import Settings
from tests.clips import write_clip
from tests.e2e.conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(studio: LabelStudio) -> int:
    return studio.create_project("tokens", (ROOT / "label_config.xml").read_text())


@pytest.fixture(scope="module", params=["upload", "local file"])
def url(
    request: pytest.FixtureRequest, studio: LabelStudio, local_files: Path, project: int, tmp_path_factory: Any
) -> str:
    video = write_clip(tmp_path_factory.mktemp("made") / "clip.mp4", frames=30).path
    if request.param == "upload":
        studio.call("POST", f"/api/projects/{project}/import", files={"file": (video.name, video.read_bytes())})
        (task,) = LabelStudioClient(studio.url, studio.token).tasks(project)
        return str(task["data"]["video"])
    folder = local_files / "day 1"
    folder.mkdir()
    (folder / video.name).write_bytes(video.read_bytes())
    studio.call("POST", "/api/storages/localfiles", json={"project": project, "path": str(folder)})
    return f"/data/local-files/?d=day 1/{video.name}"


def legacy(studio: LabelStudio, _project: int) -> str:
    return studio.token


def personal(studio: LabelStudio, _project: int) -> str:
    settings = {"api_tokens_enabled": True, "legacy_api_tokens_enabled": True}
    studio.call("POST", "/api/jwt/settings", json=settings)
    for token in studio.call("GET", "/api/token/"):
        studio.call("POST", "/api/token/blacklist/", json={"refresh": token["token"]})
    return str(studio.call("POST", "/api/token/", json={})["token"])


def handed_over(studio: LabelStudio, project: int) -> str:
    """The token that Label Studio sends when a backend is connected."""
    with recorded_requests() as (address, bodies):
        studio.connect_backend(project, address)
    (token,) = {body["access_token"] for body in bodies if "access_token" in body}
    return str(token)


@pytest.mark.parametrize("find_token", [legacy, personal, handed_over])
def test_a_video_arrives(studio: LabelStudio, project: int, url: str, find_token: Any, tmp_path: Path) -> None:
    client = LabelStudioClient(studio.url, find_token(studio, project))
    with TaskVideos(Settings(data_dir=tmp_path, label_studio_url=studio.url)).open(url, client) as opened:
        assert len(opened) == 30


def test_without_a_token_the_error_says_what_to_do(studio: LabelStudio, url: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="LABEL_STUDIO_API_KEY"):
        TaskVideos(Settings(data_dir=tmp_path)).open(url, LabelStudioClient(studio.url, ""))


@contextmanager
def recorded_requests() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a backend that accepts everything, and the bodies that are sent there."""
    bodies: list[dict[str, Any]] = []

    class Backend(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}"))
            self.do_GET()

        def do_GET(self) -> None:
            answer = b'{"status": "UP", "model_class": "Backend", "model_version": "1"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        server.server_close()
