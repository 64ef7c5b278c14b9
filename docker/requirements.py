"""What the image installs, each file with its hashes, out of what `make requirements` pinned.

    python requirements.py pyproject.toml requirements.txt [--cpu] [EXTRA ...]

Prints the lines of the package's dependencies, with those of the extras, and of all that these need in turn; with --cpu
without PyTorch, which is there already, and without the CUDA libraries that its wheel on PyPI asks for.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

CUDA = re.compile(r"torch==|triton==|nvidia-|cuda-")
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def normalized(name: str) -> str:
    """A package's name as indexes compare them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(text: str) -> dict[str, tuple[str, set[str]]]:
    """Of each package in uv's output its line with hashes, and the packages that need it."""
    pins = {}
    for block in re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]:
        lines = [line for line in block.splitlines() if not line.lstrip().startswith("#")]
        owners = {normalized(owner) for owner in re.findall(r"^ +#(?: via)? +([\w.-]+)", block, re.MULTILINE)}
        pins[normalized(_NAME.match(block)[0])] = "\n".join(lines), owners  # type: ignore[index]
    return pins


def select(pins: dict[str, tuple[str, set[str]]], wanted: Iterable[str]) -> list[str]:
    """The lines of these packages and of all that they need, in order."""
    names = {normalized(_NAME.match(one)[0]) for one in wanted}  # type: ignore[index]
    while more := {name for name, (_, owners) in pins.items() if owners & names} - names:
        names |= more
    return [pins[name][0] for name in sorted(names)]


def main(project_file: str, pins_file: str, *words: str) -> None:
    """Print the lines."""
    project = tomllib.loads(Path(project_file).read_text(encoding="utf-8"))["project"]
    extras = [word for word in words if word != "--cpu"]
    wanted = [
        *project["dependencies"],
        *(one for extra in extras for one in project["optional-dependencies"][extra]),
    ]
    lines = select(read_pins(Path(pins_file).read_text(encoding="utf-8")), wanted)
    print("\n".join(line for line in lines if "--cpu" not in words or not CUDA.match(line)))


if __name__ == "__main__":
    main(*sys.argv[1:])
