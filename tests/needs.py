"""What some tests need of the machine: they are skipped without it, or fail where E2E=required."""

import os
from pathlib import Path

import pytest


def needs(path: Path, what: str) -> pytest.MarkDecorator:
    """Skip where `path` is missing, saying so plainly; with E2E=required the tests run and fail instead."""
    missing = not path.exists() and os.environ.get("E2E") != "required"
    return pytest.mark.skipif(missing, reason=f"SKIPPED: {what} is not installed here")
