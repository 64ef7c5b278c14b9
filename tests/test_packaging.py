"""What is built: a wheel that holds everything, installs anywhere, and serves."""

import email
import os
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from backend import __version__
from backend.demo.processes import free_port
from tests.needs import missing

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow
PLAIN = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
"""Without what leads to the checkout."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the archive of sources."""
    out = tmp_path_factory.mktemp("dist")
    words = ["--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run([sys.executable, "-m", "build", *words], check=True, capture_output=True, text=True)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def test_the_index_would_take_it(built: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir())], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_wheel_holds_all_that_the_package_reads(wheel: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "backend"], cwd=ROOT, check=True, capture_output=True, text=True)
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        told = email.message_from_bytes(archive.read(metadata))
    assert names == set(tracked.stdout.splitlines())
    assert {"backend/http/static/tracks.js", "backend/py.typed"} <= names
    assert {"backend/demo/label_config.xml", "backend/demo/constraints-labelstudio.txt"} <= names
    assert "backend/engines/sam3/shapes/model.safetensors" in names
    assert told["Version"] == __version__
    assert sorted(told.get_all("Provides-Extra") or []) == ["dev", "link", "ray", "sam3"]


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sam3-backend` of an environment that has the wheel, and borrows what it depends on from ours."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site = Path(
        subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, env=PLAIN)
    # A folder on the path, not its .pth files: one of them is where the checkout is.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "sam3-backend"


@pytest.fixture
def server(command: Path, tmp_path: Path) -> Iterator[str]:
    port = free_port(0)
    words = [str(command), "serve", "--engine", "opencv", "--port", str(port), "--data-dir", str(tmp_path)]
    with subprocess.Popen(words, cwd=tmp_path, env=PLAIN) as process:
        yield f"http://127.0.0.1:{port}"
        process.terminate()
        assert process.wait(30) in (0, -15)


def test_what_is_installed_serves(server: str, command: Path, tmp_path: Path) -> None:
    where = subprocess.check_output(
        [command.with_name("python"), "-c", "import backend; print(backend.__file__)"], cwd=tmp_path, text=True
    )
    assert str(ROOT) not in where, "the checkout is not what runs"
    assert subprocess.check_output([command, "--version"], cwd=tmp_path, text=True).strip() == __version__
    deadline = time.monotonic() + 60
    while True:
        try:
            health = requests.get(f"{server}/health", timeout=5).json()
        except requests.ConnectionError:
            health = {}
        if health.get("model") == "ready":
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert health["version"] == __version__
    for path in ("/", "/web/tracks.js", "/tasks/7"):
        assert requests.get(server + path, headers={"Accept": "text/html"}, timeout=5).status_code == 200


@pytest.mark.timeout(600)
def test_what_is_installed_runs_the_demo(command: Path, tmp_path: Path) -> None:
    studio = ROOT / ".venv-labelstudio"
    missing(studio / "bin" / "label-studio", "Label Studio in .venv-labelstudio")
    (tmp_path / "backend").mkdir()  # a folder of somebody who develops a web application
    (tmp_path / "backend" / "__init__.py").write_text("raise ImportError('another backend')")
    words = ["demo", "--check", "--folder", "demo", "--label-studio-venv", studio]
    done = subprocess.run([command, *words], cwd=tmp_path, env=PLAIN, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "follows the circle" in done.stdout
    assert done.stdout.endswith("demo: ok\n")
