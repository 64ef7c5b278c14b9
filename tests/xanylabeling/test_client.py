"""X-AnyLabeling 4.2.1's own client class against `sam3-backend serve`: what it writes beside the pictures is right."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from backend.demo import clip
from backend.demo.processes import Process, free_port
from backend.tracks.geometry import box_iou
from tests.e2e.conftest import DEMO, is_ready
from tests.needs import missing

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = ROOT / ".venv-xanylabeling" / "bin" / "python"
FRAMES, SAMPLED = 40, range(3, 40, 4)
TRUTH = clip.truth()
MODEL = "sam3"


class Client:
    """The client in a process of its own; `do` is one step of `drive_client.Annotator`."""

    def __init__(self, url: str) -> None:
        words = [str(PYTHON), str(Path(__file__).with_name("drive_client.py")), url]
        environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def do(self, *step: Any) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(step), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    missing(PYTHON, "X-AnyLabeling (make xanylabeling)")
    folder, port = tmp_path_factory.mktemp("backend"), free_port(0)
    url = f"http://127.0.0.1:{port}"
    with Process("the backend", folder / "log.txt") as process:
        words = [Path(sys.executable).parent / "sam3-backend", "serve", "--port", str(port), "--data-dir", str(folder)]
        settings = {
            "SAM3_BACKEND_DOORS": "x-anylabeling",
            "SAM3_BACKEND_BASIC_AUTH_USER": "ann",
            "SAM3_BACKEND_BASIC_AUTH_PASS": "right",
        }
        process.start(words, {**os.environ, **DEMO, **settings})
        process.wait_until(lambda: is_ready(url, ("ann", "right")), 240)
        yield url


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    found = Client(server)
    assert found.do("log_in", "wrong") == []
    assert MODEL in found.do("log_in", "right")
    yield found
    found.process.kill()
    found.process.communicate()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(FRAMES):
        picture = cv2.cvtColor(clip.CLIP[number].picture, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return folder


@pytest.fixture
def folder(pictures: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pictures, tmp_path / "pictures"))


def shapes(folder: Path, frame: int) -> list[dict[str, Any]]:
    """What is in the file beside a picture."""
    path = folder / f"{frame:05d}.json"
    return list(json.loads(path.read_text())["shapes"]) if path.exists() else []


def overlap(shape: dict[str, Any], label: str, frame: int) -> float:
    points = np.array(shape["points"])
    return float(box_iou(np.hstack([points.min(0), points.max(0)]), TRUTH[label][frame]))


def tracked(folder: Path, label: str) -> float:
    """Mean IoU of one track with the truth on ten frames: the track that is best on the first of them."""
    first = max(shapes(folder, SAMPLED[0]), key=lambda shape: overlap(shape, label, SAMPLED[0]))
    found = []
    for frame in SAMPLED:
        (shape,) = [one for one in shapes(folder, frame) if one["group_id"] == first["group_id"]]
        found.append(overlap(shape, label, frame))
    return float(np.mean(found))


def middle(label: str) -> list[float]:
    x0, y0, x1, y1 = TRUTH[label][0].tolist()
    return [(x0 + x1) / 2, (y0 + y1) / 2, 1]


def test_words_on_three_classes_become_tracks_in_the_files(client: Client, folder: Path) -> None:
    assert client.do("open", str(folder), MODEL) == "video"
    found = client.do("type_words", "circle, square, star", 0)
    assert sorted({label for label, _, _ in found}) == ["circle", "square", "star"]
    assert client.do("run", 0, FRAMES), client.do("told")
    # The small model misses the tips of the star.
    assert np.mean([tracked(folder, label) for label in clip.CLASSES]) >= 0.8
    for label in clip.CLASSES:
        assert {shape["label"] for shape in shapes(folder, 20) if overlap(shape, label, 20) > 0.7} == {label.lower()}


def test_two_objects_are_clicked_one_after_the_other_and_tracked_in_a_range(client: Client, folder: Path) -> None:
    client.do("open", str(folder), MODEL)
    for label in ("Circle", "Square"):
        assert client.do("click", [middle(label)], 0)
        client.do("finish")
    assert client.do("run", 0, 30), client.do("told")
    assert shapes(folder, 29)
    assert not shapes(folder, 30)
    assert client.do("run", 0, FRAMES), client.do("told")
    for label in ("Circle", "Square"):
        assert tracked(folder, label) >= 0.8, label


def test_what_was_cancelled_goes_on_with_the_same_prompt(client: Client, folder: Path) -> None:
    client.do("open", str(folder), MODEL)
    client.do("type_words", "circle", 0)
    assert not client.do("run", 0, FRAMES, 8), "the client ends its session when a run is cancelled"
    assert not shapes(folder, 20)
    client.do("type_words", "circle", 0)
    assert client.do("run", 0, FRAMES), client.do("told")
    assert tracked(folder, "Circle") >= 0.8
    assert len(shapes(folder, 20)) == 1
