"""Commands of processes that run this package's own code."""

import sys
from pathlib import Path

_LOOKS_HERE = not {"", str(Path.cwd())}.isdisjoint(sys.path)
"""Whether this process finds modules in its working directory."""


def python_command(program: str, *arguments: str) -> list[str]:
    """The command that runs a program's text in another Python, which finds modules where this one does.

    Python by itself would look in the working directory first: a folder named backend there, which `sam3-backend` does
    not see, would be taken for this package.
    """
    return [sys.executable, *([] if _LOOKS_HERE else ["-P"]), "-c", program, *arguments]
