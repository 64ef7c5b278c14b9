"""The SQLite file of the jobs: one connection that writes, one that reads, and what is wrong with the disk.

Other modules of the store get their rows from here alone, so trouble of the disk is one kind of error everywhere.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from backend.errors import SettingsError, StoreDamaged, StoreError, explain_unwritable, one_line
from backend.jobs.repair import is_damage, mark_damaged, repair_if_damaged
from backend.jobs.schema import KeepState, migrate

log = logging.getLogger(__name__)

_BUSY_SECONDS = 2.0
"""How long to wait for another program that holds the file; a request waits as long at most."""
_PATIENCE = 0.5
"""For so long after a change could not be saved, others are not tried."""
_MAX_LOG_BYTES = 64 << 20
"""The write-ahead log is cut to this size."""
_MENDS = {
    sqlite3.SQLITE_FULL: "the disk of data_dir is full: free some space",
    sqlite3.SQLITE_BUSY: "another program holds the job database in data_dir: close it",
    sqlite3.SQLITE_LOCKED: "another program holds the job database in data_dir: close it",
    sqlite3.SQLITE_READONLY: "the job database in data_dir is read-only: let the backend write to it",
    sqlite3.SQLITE_CANTOPEN: "the job database in data_dir cannot be opened: let the backend write to that folder",
    sqlite3.SQLITE_IOERR: "the disk of data_dir reports errors: check its free space and its health",
    sqlite3.SQLITE_CORRUPT: "the job database in data_dir is damaged: restart the backend, which repairs it",
    sqlite3.SQLITE_NOTADB: "the job database in data_dir is damaged: restart the backend, which repairs it",
}
"""What to do, by SQLite's primary error code. Other codes are mistakes of ours, and stay as they are."""


class Database:
    """One file; safe between threads, and used by one process at a time.

    Two locks, each held while its connection is used; no other lock is taken under them. Reading never waits for
    writing, because the write-ahead log lets both happen at once.

    Attributes:
        trouble: why the last change could not be saved; None: it was saved.
        repaired: what became of a file that was damaged when it was opened; None: it was whole.

    Args:
        path: created if it does not exist.
        keep_state: keeps the states of a file of version 1.

    Raises:
        SettingsError: a newer version wrote the file, another process uses it, or it cannot be written.
    """

    def __init__(self, path: Path, keep_state: KeepState) -> None:
        self.path = path
        self.trouble: StoreError | None = None
        self._failed_at = 0.0
        self._writing, self._reading = threading.Lock(), threading.Lock()
        with ExitStack() as resources:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                # Not bound to a thread: any thread may close the store.
                resources.enter_context(FileLock(path.with_suffix(".lock"), timeout=0, thread_local=False))
                self.repaired = repair_if_damaged(path, keep_state)
                self._writer = resources.enter_context(closing(_connect(path)))
                self._reader = resources.enter_context(closing(_connect(path)))
                for pragma in (
                    "auto_vacuum = FULL",
                    "journal_mode = WAL",
                    "synchronous = NORMAL",
                    "foreign_keys = ON",
                    f"journal_size_limit = {_MAX_LOG_BYTES}",
                ):
                    self._writer.execute(f"PRAGMA {pragma}").close()
                migrate(self._writer, keep_state)
            except Timeout:
                raise SettingsError(
                    "another sam3-backend uses this data_dir: stop it, or give this one another with --data-dir"
                ) from None
            except (OSError, sqlite3.Error) as error:
                raise SettingsError(f"data_dir is {explain_unwritable(path.parent, error)}") from error
            self._resources = resources.pop_all()

    def close(self) -> None:
        """Close the file and release its lock."""
        with self._writing, self._reading:
            self._resources.close()

    def copy(self, path: Path) -> None:
        """Make a consistent copy of the file, while others use it."""
        with self._reading, closing(sqlite3.connect(path)) as target:
            self._reader.backup(target)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A change that is made whole or not at all.

        Raises:
            StoreError: it cannot be saved; nothing has changed.
        """
        with self._writing:
            if self.trouble and time.monotonic() - self._failed_at < _PATIENCE:
                # Or all who want to save something would wait one after the other.
                raise type(self.trouble)(str(self.trouble))
            try:
                with self._sentences():
                    self._writer.execute("BEGIN IMMEDIATE")
                    try:
                        yield self._writer
                        self._writer.execute("COMMIT")
                    except BaseException:
                        if self._writer.in_transaction:
                            self._writer.execute("ROLLBACK")
                        raise
            except StoreError as error:
                if self.trouble is None:
                    log.error("jobs cannot be saved: %s", one_line(error))
                self.trouble, self._failed_at = error, time.monotonic()
                raise
            if self.trouble is not None:
                log.warning("jobs can be saved again")
            self.trouble = None

    def fetch(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows of a query.

        Raises:
            StoreError: they cannot be read.
        """
        with self._reading, self._sentences():
            return self._reader.execute(sql, values).fetchall()

    def fetch_one(self, sql: str, *values: object) -> tuple[Any, ...] | None:
        """The first row of a query; None: there is none."""
        return next(iter(self.fetch(sql, *values)), None)

    def fetch_apart(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """As `fetch`, on a connection of its own, so that nobody waits while many rows are read."""
        with self._sentences(), closing(_connect(self.path)) as connection:
            return connection.execute(sql, values).fetchall()

    def used_bytes(self) -> int:
        """Size of the file without its free pages, and without the log, which deleting makes longer."""
        pages, size, free = (
            self.fetch(f"PRAGMA {name}")[0][0] for name in ("page_count", "page_size", "freelist_count")
        )
        return int((pages - free) * size)

    def shrink_log(self) -> None:
        """Move the write-ahead log into the file, and cut it, unless somebody reads it just now."""
        with self._writing, self._sentences():
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """SQLite's errors about the disk and the file as sentences that name the mend."""
        try:
            yield
        except sqlite3.Error as error:
            mend = _MENDS.get((getattr(error, "sqlite_errorcode", None) or 0) & 0xFF)
            if mend is None:
                raise
            if is_damage(error):
                mark_damaged(self.path)
            raise (StoreDamaged if is_damage(error) else StoreError)(f"{mend}. Jobs continue then") from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=_BUSY_SECONDS)
    connection.text_factory = lambda text: text.decode(errors="replace")  # damaged text costs its own row alone
    return connection
