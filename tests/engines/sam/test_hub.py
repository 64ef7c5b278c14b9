"""Downloads from a small hub of our own: what is fetched, what it reports, what a cut and a full disk do."""

import hashlib
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from flask import Flask, Response, jsonify, request
from werkzeug.serving import make_server

from backend.cli import main
from backend.engines.sam import hub
from backend.engines.sam3.engine import Sam3Engine
from backend.engines.sam3.weights import FAMILY
from backend.errors import SettingsError

SHA = "a" * 40
WEIGHTS = bytes(range(256)) * 4 * 24_000
"""Longer than the pieces of 10 MB that the library writes."""
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "sam3.pt": b"not fetched"}


class Hub:
    """The hub's routes for one repository, `facebook/sam3`.

    Attributes:
        cut_after: if above 0, the connection ends after so many bytes of a response, once.
        ranges: the Range header of each request for the weights.
    """

    def __init__(self) -> None:
        self.cut_after = 0
        self.ranges: list[str | None] = []
        app = Flask("hub")

        @app.get("/api/models/facebook/sam3/revision/<revision>")
        def revision(revision: str) -> Response:
            return jsonify({"id": "facebook/sam3", "sha": SHA, "siblings": [{"rfilename": name} for name in FILES]})

        @app.get("/api/models/facebook/sam3/tree/<revision>")
        def tree(revision: str) -> Response:
            entries = [
                {"type": "file", "path": name, "size": len(file), "oid": "b" * 40} for name, file in FILES.items()
            ]
            return jsonify(entries)

        @app.get("/facebook/sam3/resolve/<revision>/<name>")
        def resolve(revision: str, name: str) -> Response:
            content, status, headers = FILES[name], 200, {"X-Repo-Commit": SHA, "Accept-Ranges": "bytes"}
            headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
            if request.method == "GET" and name == "model.safetensors":
                self.ranges.append(request.headers.get("Range"))
            if wanted := request.headers.get("Range"):
                start = int(wanted.removeprefix("bytes=").partition("-")[0])
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                content, status = content[start:], 206
            headers["Content-Length"] = str(len(content))
            return Response(self._send(content), status, headers)

        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def _send(self, content: bytes) -> Iterator[bytes]:
        if 0 < self.cut_after < len(content):
            yield content[: self.cut_after]
            self.cut_after = 0
            raise ConnectionError
        yield content

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    one = Hub()
    monkeypatch.setattr(hub, "snapshot_download", partial(huggingface_hub.snapshot_download, endpoint=one.url))
    yield one
    one.close()


def test_the_files_are_fetched_and_progress_is_reported(server: Hub, tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    folder = hub.download("facebook/sam3", "", str(tmp_path), FAMILY, lambda *counts: reports.append(counts))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert not (folder / "sam3.pt").exists()
    whole = len(WEIGHTS) + len(FILES["config.json"])
    assert reports[-1] == (whole, whole)
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    server.ranges.clear()
    assert hub.download("facebook/sam3", "", str(tmp_path), FAMILY) == folder
    assert server.ranges == [], "the second time nothing is fetched"


def test_a_download_goes_on_after_a_cut(server: Hub, tmp_path: Path) -> None:
    server.cut_after = len(WEIGHTS) // 2
    for _ in range(2):  # the hub's library may go on by itself
        try:
            folder = hub.download("facebook/sam3", "", str(tmp_path), FAMILY)
        except SettingsError:
            continue
        break
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert len(server.ranges) == 2
    assert server.ranges[0] is None
    assert (server.ranges[1] or "").startswith("bytes="), "what was there is kept"


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_too_little_room_is_told_before_anything_is_written(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=len(WEIGHTS) // 2))
    with pytest.raises(SettingsError, match=r"GB more, but the disk of model_dir has .* set model_dir"):
        hub.download("facebook/sam3", "", str(tmp_path / "models"), FAMILY)


def test_the_command_downloads_and_says_where_they_lie(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    assert main(["weights", "facebook/sam3"]) == 0
    folder = Path(capsys.readouterr().err.rstrip().rpartition(": in ")[2])
    assert folder.is_relative_to(tmp_path)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert main(["weights", "--engine", "opencv"]) == 2
    assert "engine opencv has no weights" in capsys.readouterr().err


def test_the_status_tells_how_far_a_download_is() -> None:
    engine = object.__new__(Sam3Engine)
    engine._percent = None
    told = []
    for done in (0, 10**9, 10**9 + 1, 17 * 10**8, 34 * 10**8):
        engine._show_download(done, 34 * 10**8)
        told.append(engine.status)
    assert told[0] == "downloading its weights: 0 % of 3.4 GB"
    assert told[1] == told[2]
    assert told[1].startswith("downloading its weights: 29 % of 3.4 GB, ")
    assert told[1].endswith(" left")
    assert told[4] == "downloading its weights: 100 % of 3.4 GB, 0 s left"
