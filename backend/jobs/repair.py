"""A damaged job database: it is set aside, and what can be read of it goes into a new one."""

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from backend.jobs.schema import KeepState, migrate, table_columns

log = logging.getLogger(__name__)

_DAMAGES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_TABLES = ("jobs", "videos", "blocks", "memos", "points", "page_tracks", "studios", "clock")
"""In an order in which rows refer to earlier ones only."""
_MAX_STEP = 2**20
"""Rows that are skipped at once where none can be read; after that, the rest of a table counts as lost."""


def is_damage(error: BaseException) -> bool:
    """Whether an error of SQLite says that the file is damaged."""
    return isinstance(error, sqlite3.Error) and (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in _DAMAGES


def mark_damaged(path: Path) -> None:
    """Let the next start repair the file, because a part of it that a start does not read is damaged."""
    with suppress(OSError):
        _mark(path).touch()


def repair_if_damaged(path: Path, keep_state: KeepState) -> str | None:
    """Set a damaged file aside and make a new one of what can be read; returns what has happened, in a sentence.

    Args:
        path: nobody else has it open.
        keep_state: keeps the states of a file of version 1.

    Raises:
        sqlite3.Error: there is other trouble.
        OSError: the file cannot be set aside.
    """
    if not _mark(path).exists() and not _is_damaged(path):
        return None
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_RDWR | os.O_CREAT, 0o600))
    with closing(sqlite3.connect(part, isolation_level=None)) as target:
        target.execute("PRAGMA auto_vacuum = FULL").close()
        migrate(target, keep_state)
        counts = _copy(aside, target)
    part.rename(path)
    _mark(path).unlink(missing_ok=True)
    sentence = (
        f"the job database was damaged: it is kept as {aside.name} in data_dir, and {counts['jobs']} jobs with "
        f"{counts['blocks']} parts of their results were read from it"
    )
    log.error("%s", sentence)
    return sentence


def _mark(path: Path) -> Path:
    return path.with_suffix(".damaged")


def _is_damaged(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA journal_mode").close()
            for name in [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]:
                if name == "jobs":
                    database.execute("SELECT max(length(recipe)) FROM jobs NOT INDEXED").fetchone()
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return True
        raise
    return False


def _copy(path: Path, target: sqlite3.Connection) -> dict[str, int]:
    """Copy all rows that can be read; returns how many of each table."""
    counts = dict.fromkeys(_TABLES, 0)
    target.execute("PRAGMA foreign_keys = ON").close()
    target.execute("BEGIN")
    with closing(sqlite3.connect(path)) as source:
        source.text_factory = lambda text: text.decode(errors="replace")
        for table in _TABLES:
            columns = sorted({*_columns(source, table)} & {*table_columns(target, table)})
            places = ", ".join("?" * len(columns))
            insert = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608
            for row in _rows(source, table, columns) if columns else ():
                with suppress(sqlite3.IntegrityError, sqlite3.InterfaceError):  # of a job that is lost, or half a row
                    target.execute(insert, row)
                    counts[table] += 1
    target.execute("COMMIT")
    return counts


def _columns(database: sqlite3.Connection, table: str) -> list[str]:
    try:
        return table_columns(database, table)
    except sqlite3.DatabaseError:
        return []


def _rows(database: sqlite3.Connection, table: str, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    """The rows of a table that can be read. After one that cannot, further and further ones are tried."""
    names = ", ".join(columns)
    if table in ("points", "page_tracks"):  # they have no numbers to go on from
        with suppress(sqlite3.DatabaseError):
            yield from database.execute(f"SELECT {names} FROM {table}")  # noqa: S608
        return
    last, step = -1, 0
    while step < _MAX_STEP:
        try:
            sql = f"SELECT rowid, {names} FROM {table} NOT INDEXED WHERE rowid > ? ORDER BY rowid"  # noqa: S608
            for number, *row in database.execute(sql, (last + step,)):
                last, step = number, 0
                yield tuple(row)
        except sqlite3.DatabaseError:
            step = 2 * step or 1
        else:
            return
