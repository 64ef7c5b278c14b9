"""Label Studio in a virtual environment of its own, made by Python's venv and pip."""

import math
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from backend.demo.processes import DemoError, Process
from backend.settings_loader import program_environment

NAME = "label-studio-venv"
RELEASE = "1.23.2"
CONSTRAINTS = Path(__file__).with_name("constraints-labelstudio.txt")
ANNOUNCEMENT = f"""Label Studio {RELEASE} is installed once, for the demo alone, in
    {{venv}}
It comes from PyPI, or the index that pip is set to: 0.3 GB, and 1.0 GB on the disk."""
_COMPLETE = "installed.txt"
"""In the environment when all is installed; holds the versions."""


def require(venv: Path) -> Path:
    """The environment, if it has Label Studio.

    Raises:
        DemoError: it has not.
    """
    if not _program(venv).exists():
        raise DemoError(
            f"{venv.name} has no Label Studio: run {venv.name}/bin/pip install label-studio=={RELEASE}, or leave out "
            "--label-studio-venv"
        )
    return venv


def is_complete(venv: Path) -> bool:
    """Whether `install_label_studio` has run to its end there, with the versions that this package names."""
    complete = venv / _COMPLETE
    return complete.exists() and complete.read_bytes() == CONSTRAINTS.read_bytes()


def install_label_studio(venv: Path) -> None:
    """Install Label Studio; one that was interrupted begins anew, with the files that are in pip's cache.

    Raises:
        DemoError: Python cannot make environments, or pip fails; its output is beside the environment.
    """
    if find_spec("ensurepip") is None:
        raise DemoError(
            f"{sys.executable} cannot make virtual environments: apt-get install python3-venv (Debian, Ubuntu), or "
            "give an environment that has Label Studio with --label-studio-venv"
        )
    # What is on PYTHONPATH would count as installed.
    log, variables = venv.with_suffix(".log"), program_environment(without=("PYTHONPATH",))
    with Process("python -m venv", log) as process:
        process.start([sys.executable, "-P", "-m", "venv", "--clear", venv], variables)
        process.wait(600)
    install = ["-m", "pip", "install", "--disable-pip-version-check", f"label-studio=={RELEASE}"]
    with Process("pip", log) as process:
        process.start([venv / "bin" / "python", *install, "--constraint", CONSTRAINTS], variables)
        try:
            process.wait(math.inf)
        except DemoError:
            raise DemoError(
                f"Label Studio could not be installed ({_cause(log)}): see that this machine reaches PyPI, or set "
                f"PIP_INDEX_URL to an index that it reaches, and try again. Pip's output is in {log}"
            ) from None
    (venv / _COMPLETE).write_bytes(CONSTRAINTS.read_bytes())


def _program(venv: Path) -> Path:
    return venv / "bin" / "label-studio"


def _cause(log: Path) -> str:
    """What went wrong, by pip's output."""
    output = log.read_text(errors="replace")
    if broken := re.search(r"connection broken by '?(\w+)", output):
        return broken[1]
    errors: list[str] = re.findall(r"^ERROR: (.*)", output, re.MULTILINE)
    if not errors:
        return "pip ended"
    if "conflicting dependencies" in errors[0]:  # so pip says that the one version it may take is not there
        return "the index does not have the versions that are needed"
    return errors[0]
