"""The parts of the README that are made from the code: `make readme` writes them, a test holds them to it.

`README.md` has the usage of every command between two comments, `docs/commands.md` the whole help. In the table of
settings the defaults are made; what a setting means is written there by hand, and every setting has to be there once.
"""

import argparse
import os
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
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
    parser = parser or cli._parser()
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


def with_defaults(text: str) -> str:
    """The README with the defaults in its table of settings made anew.

    Raises:
        ValueError: a setting is missing there, is there twice, or is none.
    """
    given, listed = dict(_settings(Settings())), list[str]()

    def row(match: re.Match[str]) -> str:
        keys = re.findall(r"`([^`]+)`", match[1])
        keys = [keys[0].rpartition(".")[0] + key if key.startswith(".") else key for key in keys]
        listed.extend(keys)
        shown = [_shown(key, given[key]) if key in given else f"{key} is no setting" for key in keys]
        return f"|{match[1]}| {shown[0] if len(set(shown)) == 1 else ', '.join(shown)} |"

    before, heading, rest = text.partition(TABLE)
    table, end, after = rest.partition("\n\n")
    table = re.sub(r"^\|([^|]*)\|([^|]*)\|", row, table, flags=re.MULTILINE)
    if sorted(listed) != sorted(given):
        odd = set(listed) ^ set(given) or {key for key in listed if listed.count(key) > 1}
        raise ValueError(f"the README's table of settings has one row for each, but not for {', '.join(sorted(odd))}")
    return f"{before}{heading}{table}{end}{after}"


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
    README.write_text(with_defaults(with_usage(README.read_text(encoding="utf-8"))), encoding="utf-8")
