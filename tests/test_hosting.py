"""The class hosted by label-studio-ml 1.0.9 for real, in .venv-lsml, asked over HTTP."""

import subprocess
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import requests

from backend.video import write_video
from tests.labelstudio.bodies import CONFIG, body, drawn, keyframe
from tests.needs import missing

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv-lsml/bin/python"
HOST = """
from label_studio_ml.api import init_app
from werkzeug.serving import make_server
from backend.model import Sam3Backend
server = make_server("127.0.0.1", 0, init_app(Sam3Backend), threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""

pytestmark = pytest.mark.slow


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def files(tmp_path: Path) -> Iterator[str]:
    """The address of a server that has clip.mp4: a textured square that moves 2 pixels a frame."""
    rng = np.random.default_rng(1)
    ground, square = (rng.integers(0, 255, (*size, 3), np.uint8) for size in ((180, 320), (40, 40)))
    pictures = []
    for index in range(20):
        picture = ground // 4
        picture[60:100, 20 + 2 * index : 60 + 2 * index] = square
        pictures.append(picture)
    write_video(tmp_path / "clip.mp4", pictures, 25)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """The address at which label-studio-ml serves the class."""
    missing(PYTHON, "label-studio-ml in .venv-lsml")
    environment = {"SAM3_BACKEND_ENGINE": "opencv", "SAM3_BACKEND_DATA_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen([PYTHON, "-c", HOST], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    with process.stdout:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()
        process.wait()


def test_label_studio_ml_1x_hosts_the_class(host: str, files: str) -> None:
    setup = {"project": "3.1795331021", "schema": CONFIG, "hostname": files, "access_token": "t0ken"}
    assert requests.post(f"{host}/setup", json=setup, timeout=30).status_code == 200
    prompt = drawn(keyframe(1, x=6.25, y=100 / 3, width=12.5, height=200 / 9))
    # A path of Label Studio's own: only the address that came with /setup makes it one that can be fetched.
    request = body(prompt, data={"video": "/clip.mp4", "fps": 25})
    answer = requests.post(f"{host}/predict", json=request, timeout=30).json()
    (prediction,) = answer["results"]
    (region,) = prediction["result"]
    assert region["id"] == prompt["id"]
    last = region["value"]["sequence"][-1]
    assert (last["frame"], last["enabled"]) == (20, False)
    assert last["x"] == pytest.approx(6.25 + 19 * 2 / 3.2, abs=1)
    empty = requests.post(f"{host}/predict", json=request | {"params": {"context": None}}, timeout=30).json()
    assert empty["results"] == []
