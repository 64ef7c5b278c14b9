"""Other processes find the modules that this one finds."""

import subprocess
import sys
from pathlib import Path

import pytest

PARENT = """
import subprocess
from backend.child_process import python_command
print(subprocess.run(python_command("import backend, sys; print(backend.__file__, *sys.argv[1:])", "one", "two"),
                     capture_output=True, text=True).stdout)
"""


@pytest.mark.parametrize("looks_here", [True, False])
def test_a_folder_of_the_same_name_is_found_where_the_parent_finds_it(tmp_path: Path, looks_here: bool) -> None:
    """As in a checkout: what is here is the package; elsewhere a folder named backend is somebody else's."""
    root = Path(__file__).parent.parent
    if not looks_here:
        (tmp_path / "backend").mkdir()
        (tmp_path / "backend/__init__.py").touch()
    option = [] if looks_here else ["-P"]
    told = subprocess.run(
        [sys.executable, *option, "-c", PARENT],
        cwd=root if looks_here else tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    path, *arguments = told.stdout.split()
    assert arguments == ["one", "two"]
    assert tmp_path not in Path(path).parents
    if looks_here:
        assert Path(path) == root / "backend/__init__.py"
