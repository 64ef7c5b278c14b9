"""What no linter says of `backend/`: short files, public names with one meaning, a package that is quick to import."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "backend").rglob("*.py"))
MAX_LINES = 400
SHARED_NAMES = {"main"}
"""Every module that is started has one."""
COMMAND_NAMES = {"add_parser", "run"}
"""What each module of `commands/` has."""
FAMILY_NAMES = {"convert_checkpoint", "engine_version", "load_model", "rename_tensor"}
"""What each family of models has, in `engines/edgetam/`, `engines/sam2/` and `engines/sam3/`."""
SHARED_IN_FOLDER = {"commands": COMMAND_NAMES, **dict.fromkeys(("edgetam", "sam2", "sam3"), FAMILY_NAMES)}
LONG_FILES: set[str] = set()
"""Files that are still too long. Add none."""


def public_names(path: Path) -> set[str]:
    """The classes and functions of a module that other modules may import."""
    definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        node.name
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, definitions) and not node.name.startswith("_")
    }


def test_a_public_name_has_one_meaning() -> None:
    places = defaultdict(list)
    for path in MODULES:
        for name in public_names(path):
            if name not in SHARED_IN_FOLDER.get(path.parent.name, ()):
                places[name].append(str(path.relative_to(ROOT)))
    shared = {name: where for name, where in places.items() if len(where) > 1}
    assert not shared.keys() - SHARED_NAMES, {name: shared[name] for name in shared.keys() - SHARED_NAMES}


def test_files_are_short() -> None:
    long = {str(path.relative_to(ROOT)) for path in MODULES if len(path.read_text().splitlines()) > MAX_LINES}
    assert not long - LONG_FILES


def test_importing_the_package_brings_nothing_heavy() -> None:
    code = "import sys, backend; print(*sorted({'numpy', 'cv2', 'av', 'flask', 'torch'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
