"""The parts of the README that are made from the code: `make readme` writes them, a test holds them to it.

`README.md` has the usage of every command between two comments, and a table of all settings; `docs/commands.md` has the
whole help.
"""

import argparse
import os
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints
from unittest.mock import patch

from backend import cli
from backend.settings import Settings

ROOT = Path(__file__).parent.parent
README, COMMANDS = ROOT / "README.md", ROOT / "docs" / "commands.md"
START, END = "<!-- usage: written by make readme -->\n", "<!-- end of usage -->\n"
TABLE = "| key | default | meaning |\n|---|---|---|\n"
_HEAD = """# Commands

What `--help` says; written by `make readme`. [Back to the README](../README.md#commands).
"""


def parsers(parser: argparse.ArgumentParser | None = None) -> Iterator[argparse.ArgumentParser]:
    """The parser of every command, that of the whole first."""
    parser = parser or cli.build_parser()
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


def usage() -> str:
    """How every command that does something is called."""
    with patch.dict(os.environ, COLUMNS="100"):
        # Without the word "usage: ", by which the lines after the first are indented, too.
        shown = [re.sub(r"^.{7}", "", one.format_usage(), flags=re.M) for one in parsers() if one.get_default("run")]
    return f"```text\n{''.join(shown)}```\n"


def commands() -> str:
    """The help of every command, as a page."""
    with patch.dict(os.environ, COLUMNS="100"):
        parts = [f"\n## {one.prog}\n\n```text\n{one.format_help()}```\n" for one in parsers()]
    return _HEAD + "".join(parts)


def meanings(kind: Any = Settings, group: str = "") -> Iterator[tuple[str, str]]:
    """What each setting means, by its key; of those without a word, nothing."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if hasattr(hint, "__metadata__"):
            yield group + name, hint.__metadata__[0]
        elif hasattr(hint, "__dataclass_fields__"):
            yield from meanings(hint, f"{name}.")


def with_table(text: str) -> str:
    """The README with its table of settings made anew."""
    meant = dict(meanings())
    rows = [f"| `{key}` | {_shown(key, value)} | {meant[key]} |\n" for key, value in _settings(Settings())]
    before, heading, rest = text.partition(TABLE)
    if not heading:
        raise ValueError("README.md has lost its table of settings")
    return before + heading + "".join(rows) + "\n" + rest.partition("\n\n")[2]


def _settings(values: Any, group: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting's key and default, those of groups as `limits.bytes`."""
    for field in fields(values):
        value = getattr(values, field.name)
        if is_dataclass(value):
            yield from _settings(value, f"{field.name}.")
        else:
            yield group + field.name, value


def _shown(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if key in ("limits.bytes", "limits.body", "limits.store"):
        return f"{value >> 30} GiB" if value % 2**30 == 0 else f"{value >> 20} MiB"
    if isinstance(value, int | float):
        return f"{value:,}" if value >= 10_000 else f"{value:g}"
    return f"`{value}`" if str(value) else "–"


def with_usage(text: str) -> str:
    """The README with what is between the comments made anew."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"README.md has not both {START.strip()} and {END.strip()}")
    return f"{before}{start}\n{usage()}\n{end}{after}"


if __name__ == "__main__":
    COMMANDS.write_text(commands(), encoding="utf-8")
    README.write_text(with_table(with_usage(README.read_text(encoding="utf-8"))), encoding="utf-8")
