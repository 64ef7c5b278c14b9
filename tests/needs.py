"""What some tests need of the machine: without it they are skipped, or fail where E2E=required; how much is tested."""

import os
from pathlib import Path

import pytest

THOROUGH = os.environ.get("THOROUGH", "0") not in ("", "0")
"""`make test THOROUGH=1`: more examples, and more clips."""


def need(is_there: bool, what: str) -> None:
    """Skip the test plainly unless it is there; with E2E=required, fail it."""
    if not is_there:
        reason = f"{what} is not installed here"
        if os.environ.get("E2E") == "required":
            pytest.fail(reason)
        pytest.skip(reason)


def missing(path: Path, what: str) -> None:
    """As `need`, for a file or a folder."""
    need(path.exists(), what)
