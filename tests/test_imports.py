"""Imports go down, heavy ones stay in their rooms, and importing does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "backend"
FLOORS = [
    ("cli",),
    ("commands",),
    ("http", "model"),
    ("service",),
    ("predict", "track_editor"),
    ("jobs", "formats"),
    ("labelstudio", "engines"),
    ("video",),
    ("tracks", "settings", "table", "concurrency", "errors"),
]
"""From the top down; a room on the same floor may not be imported, but for the lowest."""
ONLY = {
    "av": ["video/"],
    "cv2": ["engines/", "tracks/overlay.py", "cli.py", "video/jpeg.py"],
    "flask": ["http/"],
    "werkzeug": ["http/"],
    "waitress": ["commands/serve.py"],
    "requests": ["labelstudio/"],
    "torch": ["engines/sam3/"],
    "transformers": ["engines/sam3/"],
    "label_studio_ml": ["model.py"],
    "prometheus_client": ["jobs/metrics.py"],
    "pycocotools": ["formats/rle.py"],
    "sqlite3": ["jobs/store.py", "jobs/schema.py", "jobs/saved_masks.py"],
    "numba": ["tracks/_shortest_path.py"],
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def floor(module: str) -> int:
    """How far down a module of ours lives."""
    room = module.split(".")[1] if "." in module else ""
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), -1)


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "backend" else {node.module}
            )
    return names - {"backend.__version__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    here = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    own = here.split(".")[1]
    for name in imports(path):
        if name.startswith("backend.") and here != "backend.__init__":
            room = name.split(".")[1]
            assert floor(here) >= 0, f"{here} lives on no floor"
            lower = floor(name) > floor(here) or (floor(here) == len(FLOORS) - 1 == floor(name))
            assert room == own or lower, f"{here} imports {name}, which is not below it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_imports_stay_in_their_rooms(path: Path) -> None:
    here = str(path.relative_to(PACKAGE))
    for name in imports(path):
        rooms = ONLY.get(name.split(".")[0])
        assert rooms is None or any(here.startswith(room) for room in rooms), f"{here} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_settings_reads_the_environment(path: Path) -> None:
    text = path.read_text()
    assert path.name == "settings.py" or ("os.environ" not in text and "getenv" not in text)


def test_importing_the_package_brings_nothing_heavy() -> None:
    code = "import sys, backend; print(*sorted({'numpy', 'cv2', 'av', 'flask', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
