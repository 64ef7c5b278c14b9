"""Generates parts of the documentation from the code: `make docs` writes them, a test checks that they are current.

`docs/commands.md` has the help of every command, and `docs/settings.md` a table of all settings.
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints
from unittest.mock import patch

from backend import cli
from backend.settings import Settings

ROOT = Path(__file__).parent.parent
COMMANDS, SETTINGS = ROOT / "docs" / "commands.md", ROOT / "docs" / "settings.md"
TABLE = "| key | default | meaning |\n|---|---|---|\n"
_HEAD = """# Commands

The output of `--help` of every command.
"""


def parsers(parser: argparse.ArgumentParser | None = None) -> Iterator[argparse.ArgumentParser]:
    """The parsers of all commands, the main parser first."""
    parser = parser or cli.build_parser()
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from parsers(command)


def commands() -> str:
    """The help of every command, as a page."""
    with patch.dict(os.environ, COLUMNS="100"):
        parts = [f"\n## {parser.prog}\n\n```text\n{parser.format_help()}```\n" for parser in parsers()]
    return _HEAD + "".join(parts)


def meanings(kind: Any = Settings, group: str = "") -> Iterator[tuple[str, str]]:
    """The key and the meaning of each setting that has a description."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if hasattr(hint, "__metadata__"):
            yield group + name, hint.__metadata__[0]
        elif hasattr(hint, "__dataclass_fields__"):
            yield from meanings(hint, f"{name}.")


def with_table(text: str) -> str:
    """The page of settings with a new table."""
    descriptions = dict(meanings())
    rows = [f"| `{key}` | {_shown(key, value)} | {descriptions[key]} |\n" for key, value in _settings(Settings())]
    before, heading, rest = text.partition(TABLE)
    if not heading:
        raise ValueError("docs/settings.md has no table of settings")
    return before + heading + "".join(rows) + "\n" + rest.partition("\n\n")[2]


def _settings(values: Any, group: str = "") -> Iterator[tuple[str, Any]]:
    """The key and default of every setting; settings in groups as `limits.bytes`."""
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


if __name__ == "__main__":
    COMMANDS.write_text(commands(), encoding="utf-8")
    SETTINGS.write_text(with_table(SETTINGS.read_text(encoding="utf-8")), encoding="utf-8")
