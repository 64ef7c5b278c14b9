"""Trouble of a server's disk and clock, on demand: a file says which."""

import json
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict


class Faults(TypedDict, total=False):
    """What is wrong.

    Attributes:
        full: the database cannot grow, which is what SQLite says of a full disk.
        slow: seconds that every change of the database takes.
        clock: seconds that the clock was moved by.
    """

    full: bool
    slow: float
    clock: float


def set_faults(folder: Path, faults: Faults) -> None:
    """Tell the server of a folder what is wrong from now on."""
    part = folder / "faults.part"
    part.write_text(json.dumps(faults))
    part.rename(folder / "faults")


def install_faults(folder: Path) -> None:
    """Let this process obey what `set_faults` says of a folder."""
    real = time.time

    def read() -> Faults:
        with suppress(OSError):
            faults: Faults = json.loads((folder / "faults").read_text())
            return faults
        return {}

    class FaultyConnection(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if sql == "BEGIN IMMEDIATE":
                faults = read()
                super().execute(f"PRAGMA max_page_count = {1 if faults.get('full') else 2**32 - 2}").close()
                time.sleep(faults.get("slow", 0.0))
            return super().execute(sql, *values)

    connect: Any = sqlite3.connect
    setattr(sqlite3, "connect", lambda *args, **more: connect(*args, factory=FaultyConnection, **more))  # noqa: B010
    setattr(time, "time", lambda: real() + read().get("clock", 0.0))  # noqa: B010
