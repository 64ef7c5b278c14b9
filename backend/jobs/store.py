"""Jobs and their results on disk, in a SQLite file that survives a killed server; `schema` describes its tables."""

import json
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from backend.errors import SettingsError
from backend.jobs.rows import (
    BLOCK_COLUMNS,
    JOB_COLUMNS,
    UNFINISHED,
    JobRow,
    State,
    block_row,
    join_blocks,
    parse_block,
    parse_job,
)
from backend.jobs.schedule import Progress
from backend.jobs.schema import migrate, sql_text
from backend.jobs.spec import JobSpec
from backend.tracks.track import ResultBlock
from backend.video import VideoInfo

_DAY = 86400.0
_PRUNE_STEP = 16
"""How many jobs are deleted at once while the file is too large."""


class Store:
    """One file; safe between threads, and used by one process at a time.

    Args:
        path: created if it does not exist.
        max_bytes: when the file is larger, the oldest ended jobs are deleted.
        retention_days: ended jobs are deleted after this time.

    Raises:
        SettingsError: a newer version wrote the file, another process uses it, or it cannot be written.
    """

    def __init__(self, path: Path, max_bytes: int, retention_days: float) -> None:
        self._path, self._max_bytes, self._retention_days = path, max_bytes, retention_days
        # The only lock here; no other lock is taken under it.
        self._lock = threading.Lock()
        with ExitStack() as resources:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                # Not bound to a thread: any thread may close the store.
                resources.enter_context(FileLock(path.with_suffix(".lock"), timeout=0, thread_local=False))
                database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
                self._database = resources.enter_context(closing(database))
                for pragma in ("auto_vacuum = FULL", "journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
                    self._database.execute(f"PRAGMA {pragma}").close()
                migrate(self._database)
            except Timeout:
                raise SettingsError(
                    "another sam3-backend uses this data_dir: stop it, or give this one another with --data-dir"
                ) from None
            except (OSError, sqlite3.Error) as error:
                raise SettingsError(
                    f"jobs cannot be saved in data_dir ({type(error).__name__}): set data_dir to a folder that the "
                    "backend may write to, on a disk with free space"
                ) from error
            self._resources = resources.pop_all()
        self.prune()

    def close(self) -> None:
        """Close the file and release its lock."""
        with self._lock:
            self._resources.close()

    def copy(self, path: Path) -> None:
        """Make a consistent copy of the file, while jobs run."""
        with self._lock, closing(sqlite3.connect(path)) as target:
            self._database.backup(target)

    # Jobs

    def add(self, key: str, digest: str, spec: JobSpec, model: str, *, batch: bool, post: str | None) -> JobRow:
        """Add a job, queued."""
        with self._transaction() as database:
            number = database.execute(
                "INSERT INTO jobs (key, digest, recipe, model, batch, post, state, asked) VALUES (?,?,?,?,?,?,?,?)",
                (key, digest, spec.to_json(), model, batch, post, "queued", time.time()),
            ).lastrowid
            (row,) = database.execute(f"SELECT {JOB_COLUMNS} FROM jobs WHERE number = ?", (number,))  # noqa: S608
        return parse_job(row)

    def find(self, key: str, digest: str) -> JobRow | None:
        """The newest job with this digest."""
        return next(iter(self._jobs("key = ? AND digest = ? ORDER BY number DESC LIMIT 1", key, digest)), None)

    def newest(self, key: str) -> JobRow | None:
        """The newest job under a key."""
        return next(iter(self._jobs("key = ? ORDER BY number DESC LIMIT 1", key)), None)

    def job(self, number: int) -> JobRow | None:
        """One job."""
        return next(iter(self._jobs("number = ?", number)), None)

    def unfinished(self) -> list[JobRow]:
        """Jobs that are queued or were running, oldest first."""
        return self._jobs("state IN ('queued', 'running') ORDER BY number")

    def unposted(self) -> list[JobRow]:
        """Jobs that are done and whose results are not posted to Label Studio yet."""
        return self._jobs("state = 'done' AND post IS NOT NULL AND NOT posted ORDER BY number")

    def latest(self, limit: int) -> list[JobRow]:
        """The newest jobs, newest first."""
        return self._jobs("1 ORDER BY number DESC LIMIT ?", limit)

    def set_state(self, number: int, state: State, error: str | None = None) -> None:
        """Set a job's state; the engine's state of a job that is done is deleted."""
        ended_at = None if state in UNFINISHED else time.time()
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET state = ?, error = ?, ended = ? WHERE number = ?", (state, error, ended_at, number)
            )
            if state == "done":
                database.execute("DELETE FROM states WHERE job = ?", (number,))

    def set_posted(self, number: int) -> None:
        """Record that a job's result is in Label Studio."""
        with self._transaction() as database:
            database.execute("UPDATE jobs SET posted = 1 WHERE number = ?", (number,))

    def set_unposted(self, number: int) -> None:
        """Record that a job's result is not in Label Studio any more."""
        with self._transaction() as database:
            database.execute("UPDATE jobs SET posted = 0 WHERE number = ?", (number,))

    def reset(self, number: int) -> None:
        """Delete a job's results; it starts over."""
        with self._transaction() as database:
            database.execute("DELETE FROM blocks WHERE job = ?", (number,))
            database.execute("DELETE FROM states WHERE job = ?", (number,))
            database.execute("UPDATE jobs SET way = 0, done = 0, frames = 0, names = NULL WHERE number = ?", (number,))

    def forget(self, key: str) -> None:
        """Make `find` ignore the ended jobs under a key."""
        with self._transaction() as database:
            database.execute("UPDATE jobs SET digest = '' WHERE key = ? AND state NOT IN ('queued', 'running')", (key,))

    # Results

    def save(
        self,
        number: int,
        initial_tracks: Iterable[str],
        blocks: Sequence[tuple[int, ResultBlock]],
        progress: Progress,
        counts: tuple[int, int, int],
        state: bytes | None,
    ) -> None:
        """Save a job's new blocks, its progress and the engine's state there, in one transaction.

        Args:
            initial_tracks: names of the tracks that phrases found on their first frame.
            blocks: since the last call, each with the index of its pass.
            counts: frames done, frames in total, and tracks.
        """
        rows = [(number, *block_row(pass_index, block)) for pass_index, block in join_blocks(blocks)]
        done = (progress.pass_index, progress.done, *counts, json.dumps(list(initial_tracks)), number)
        with self._transaction() as database:
            database.executemany(f"INSERT INTO blocks (job, {BLOCK_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", rows)  # noqa: S608
            database.execute(
                "UPDATE jobs SET way = ?, done = ?, frames = ?, total = ?, tracks = ?, names = ? WHERE number = ?", done
            )
            # A state of an earlier frame would be wrong for these blocks.
            database.execute("DELETE FROM states WHERE job = ?", (number,))
            if state is not None:
                database.execute("INSERT INTO states VALUES (?, ?)", (number, state))

    def blocks(self, number: int) -> Iterator[tuple[int, ResultBlock]]:
        """All blocks of a job, in order, each with the index of its pass."""
        sql = f"SELECT {BLOCK_COLUMNS} FROM blocks WHERE job = ? ORDER BY number"  # noqa: S608
        # On a connection of its own: reading a long video's rows takes a while, and others should not wait.
        with closing(sqlite3.connect(self._path, timeout=30)) as database:
            rows = database.execute(sql, (number,)).fetchall()
        return join_blocks(map(parse_block, rows))

    def state(self, number: int) -> bytes | None:
        """The engine's state at the end of a job's last block."""
        row = self._fetch_one("SELECT state FROM states WHERE job = ?", number)
        return row[0] if row else None

    # Videos, clicks, connections

    def put_video(self, url: str, video: VideoInfo) -> None:
        """Save what is known of a video."""
        times = zlib.compress(video.times.tobytes(), 1)
        values = (sql_text(url), times, video.end, *video.size)
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO videos VALUES (?, ?, ?, ?, ?)", values)

    def video(self, url: str) -> VideoInfo | None:
        """What is known of a video."""
        row = self._fetch_one("SELECT times, ends, width, height FROM videos WHERE url = ?", sql_text(url))
        if row is None:
            return None
        packed, end, width, height = row
        times = np.frombuffer(zlib.decompress(packed))
        # The container's own duration and rate are not stored; jobs do not need them.
        return VideoInfo(times, end, end, len(times) / (end - float(times[0])), (width, height))

    def put_click(self, task: str, point: str, positive: bool) -> None:
        """Save whether a click is positive."""
        values = (sql_text(task), sql_text(point), positive, time.time())
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?)", values)

    def is_click_positive(self, task: str, point: str) -> bool | None:
        """Whether a click is positive; None: it was never saved."""
        sql = "SELECT positive FROM points WHERE task = ? AND point = ?"
        row = self._fetch_one(sql, sql_text(task), sql_text(point))
        return None if row is None else bool(row[0])

    def put_connection(self, project: str, url: str, token: str) -> None:
        """Save the address and the token of a project's Label Studio."""
        values = (sql_text(project), sql_text(url), sql_text(token))
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO studios VALUES (?, ?, ?)", values)

    def connection(self, project: str) -> tuple[str, str] | None:
        """The address and the token of a project's Label Studio."""
        row = self._fetch_one("SELECT url, token FROM studios WHERE project = ?", sql_text(project))
        return row and (str(row[0]), str(row[1]))

    # Retention

    def prune(self) -> None:
        """Delete what is older than `retention_days`, then the oldest ended jobs until the file is small enough."""
        before = time.time() - self._retention_days * _DAY
        with self._transaction() as database:
            database.execute("DELETE FROM jobs WHERE ended < ?", (before,))
            database.execute("DELETE FROM points WHERE seen < ?", (before,))
            database.execute("DELETE FROM videos WHERE url NOT IN (SELECT json_extract(recipe, '$.url') FROM jobs)")
        while self._used_bytes() > self._max_bytes:
            with self._transaction() as database:
                deleted = database.execute(
                    "DELETE FROM jobs WHERE number IN (SELECT number FROM jobs WHERE ended IS NOT NULL "
                    "AND (posted OR post IS NULL OR state != 'done') ORDER BY ended LIMIT ?)",
                    (_PRUNE_STEP,),
                ).rowcount
            if not deleted:
                return

    def _used_bytes(self) -> int:
        with self._lock:
            (pages,), (size,), (free,) = (
                self._database.execute(f"PRAGMA {name}").fetchone()
                for name in ("page_count", "page_size", "freelist_count")
            )
        return int((pages - free) * size)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _fetch_one(self, sql: str, *values: object) -> Any:
        with self._lock:
            return self._database.execute(sql, values).fetchone()

    def _jobs(self, where: str, *values: object) -> list[JobRow]:
        with self._lock:
            rows = self._database.execute(f"SELECT {JOB_COLUMNS} FROM jobs WHERE {where}", values).fetchall()  # noqa: S608
        return [parse_job(row) for row in rows]
