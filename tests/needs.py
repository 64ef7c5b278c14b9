"""What some tests need of the machine: without it they are skipped, or fail where E2E=required."""

import os
from pathlib import Path

import pytest


def missing(path: Path, what: str) -> None:
    """Skip the test plainly where `path` is not there; with E2E=required, fail it."""
    if not path.exists():
        reason = f"{what} is not installed here"
        if os.environ.get("E2E") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
