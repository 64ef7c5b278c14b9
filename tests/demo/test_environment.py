"""The environment that the demo makes for Label Studio, with a stand-in for the index that pip asks."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from backend.demo import environment
from backend.demo.processes import DemoError

WHEEL = f"label_studio-{environment.RELEASE}"
PROGRAM = "def main():\n    print('label-studio of the stand-in')\n"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index; empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def publish(index: Path) -> None:
    """Put a stand-in for Label Studio there."""
    info = f"{WHEEL}.dist-info"
    files = {
        "label_studio_stand_in.py": PROGRAM,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: label-studio\nVersion: {environment.RELEASE}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nlabel-studio = label_studio_stand_in:main\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(index / f"{WHEEL}-py3-none-any.whl", "w") as wheel:
        for name, text in (files | {f"{info}/RECORD": record}).items():
            wheel.writestr(name, text)


@pytest.mark.slow
def test_it_is_made_once_and_made_anew_where_it_is_unfinished_or_of_other_versions(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = tmp_path / environment.NAME
    with pytest.raises(DemoError) as refused:
        environment.install_label_studio(venv)
    assert str(refused.value).startswith(
        "Label Studio could not be installed (the index does not have the versions that are needed): see that this "
        "machine reaches PyPI, or set PIP_INDEX_URL"
    )
    assert str(tmp_path / "label-studio-venv.log") in str(refused.value)
    assert "ERROR: Cannot install" in (tmp_path / "label-studio-venv.log").read_text()
    assert not environment.is_complete(venv)
    (venv / "left-over").touch()

    publish(index)
    environment.install_label_studio(venv)
    assert environment.is_complete(venv)
    assert not (venv / "left-over").exists()
    program = environment.require(venv) / "bin" / "label-studio"
    assert subprocess.check_output([program], text=True) == "label-studio of the stand-in\n"

    newer = tmp_path / "newer.txt"
    newer.write_text(environment.CONSTRAINTS.read_text() + "another==1\n")
    monkeypatch.setattr(environment, "CONSTRAINTS", newer)
    assert not environment.is_complete(venv)


def test_a_python_that_cannot_make_one_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "find_spec", lambda name: None)
    with pytest.raises(DemoError, match="cannot make virtual environments: apt-get install python3-venv"):
        environment.install_label_studio(tmp_path / "venv")
    assert not (tmp_path / "venv").exists()


def test_an_environment_without_label_studio_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=f"has no Label Studio: run .*pip install label-studio=={environment.RELEASE}"):
        environment.require(tmp_path)


def test_the_versions_are_those_of_make_demo() -> None:
    root = Path(__file__).parents[2]
    assert environment.CONSTRAINTS.resolve() == root / "constraints-labelstudio.txt"
    assert f"label-studio=={environment.RELEASE} " in (root / "Makefile").read_text()


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError('x')': /\nERROR: Cannot",
            "NewConnectionError",
        ),
        ("ERROR: Could not install packages due to an OSError: No space left", "due to an OSError: No space left"),
        ("Killed", "pip ended"),
    ],
)
def test_the_cause_is_read_from_what_pip_printed(output: str, cause: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(output)
    assert cause in environment._cause(tmp_path / "log")
