"""CLIP's vocabulary for the tests: `python -m tests.bpe` takes it out of a wheel that carries it."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

NAME = "bpe_simple_vocab_16e6.txt.gz"
WHEEL = "open_clip_torch==3.3.0"
PATH = Path(__file__).parent.parent / ".venv" / NAME


def path() -> Path:
    """Where the file lies.

    Raises:
        FileNotFoundError: it has not been fetched.
    """
    if not PATH.is_file():
        raise FileNotFoundError(f".venv/{NAME} is missing: run .venv/bin/python -m tests.bpe")
    return PATH


def main() -> None:
    if PATH.is_file():
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", folder, WHEEL]
        subprocess.run(command, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            (name,) = (name for name in files.namelist() if name.endswith(NAME))
            packed = files.read(name)
    # Whole or not at all: another run may be reading it.
    part = PATH.with_suffix(".part")
    part.write_bytes(packed)
    part.replace(PATH)


if __name__ == "__main__":
    main()
