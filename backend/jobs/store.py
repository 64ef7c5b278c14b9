"""Jobs and their results on disk, in a SQLite file that survives a killed server; `schema` describes its tables."""

import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from backend.errors import StoreError
from backend.jobs.database import Database
from backend.jobs.records import Records
from backend.jobs.retention import Retention
from backend.jobs.rows import (
    BLOCK_COLUMNS,
    JOB_COLUMNS,
    JobRow,
    State,
    block_row,
    join_blocks,
    parse_blocks,
    parse_job,
)
from backend.jobs.schedule import Progress
from backend.jobs.spec import JobSpec
from backend.jobs.state_files import StateFiles
from backend.jobs.store_clock import StoreClock
from backend.tracks.track import ResultBlock

log = logging.getLogger(__name__)


class Store:
    """The jobs of one process; safe between threads. Every method may raise StoreError.

    Attributes:
        states: the engine's states of jobs that have not ended.
        records: what is known of videos, clicks and projects.

    Args:
        path: of the SQLite file, which is created if it does not exist.
        max_bytes: of the file and the states together; beyond that the oldest go.
        retention_days: ended jobs are deleted after this time.

    Raises:
        SettingsError: a newer version wrote the file, another process uses it, or it cannot be written.
    """

    def __init__(self, path: Path, max_bytes: int, retention_days: float) -> None:
        self.states = StateFiles(path.parent / "states", max_bytes)
        self._unreadable: set[int] = set()  # numbers of jobs
        self._database = Database(path, self.states.save)
        last = self._database.fetch_one("SELECT now FROM clock")
        self._clock = StoreClock(last[0] if last else None)
        self.records = Records(self._database, self._clock)
        self._retention = Retention(self._database, self.states, self._clock, max_bytes, retention_days)
        self.states.delete_parts()
        with suppress(StoreError):  # the scheduler tries again; it is logged and told in /health
            self.prune()

    @property
    def repaired(self) -> str | None:
        """What became of a file that was damaged when it was opened; None: it was whole."""
        return self._database.repaired

    @property
    def trouble(self) -> StoreError | None:
        """Why the last change could not be saved; None: it was saved."""
        return self._database.trouble

    def close(self) -> None:
        """Close the file and release its lock."""
        self._database.close()

    def copy(self, path: Path) -> None:
        """Make a consistent copy of the file, while jobs run."""
        self._database.copy(path)

    def check(self) -> None:
        """Save something, to see whether that is possible again."""
        with self._database.transaction() as database:
            database.execute("UPDATE sqlite_sequence SET seq = seq WHERE name = 'jobs'")

    # Jobs

    def add(self, key: str, digest: str, spec: JobSpec, model: str, *, batch: bool, post: str | None) -> JobRow:
        """Add a job, queued."""
        with self._database.transaction() as database:
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

    def newest_under(self, prefix: str, limit: int) -> list[JobRow]:
        """The newest jobs whose keys begin so, newest first."""
        return self._jobs("key >= ? AND key < ? ORDER BY number DESC LIMIT ?", prefix, f"{prefix}\U0010ffff", limit)

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

    def requeue(self, number: int) -> None:
        """Record that a job that has ended waits again."""
        with self._database.transaction() as database:
            database.execute(
                "UPDATE jobs SET state = 'queued', error = NULL, ended = NULL, aged = NULL WHERE number = ?", (number,)
            )

    def set_ended(self, ends: Iterable[tuple[int, State, str | None, float | None]]) -> None:
        """Record the ends of jobs; the states of those that are done are deleted.

        Args:
            ends: number, state, error and time of each.
        """
        ends = list(ends)
        with self._database.transaction() as database:
            for number, state, error, ended_at in ends:
                database.execute(
                    "UPDATE jobs SET state = ?, error = ?, ended = ?, aged = ? WHERE number = ?",
                    (state, error, ended_at, self._clock.now(), number),
                )
        for number, state, *_ in ends:
            if state == "done":
                self.states.delete(number)

    def set_posted(self, number: int) -> None:
        """Record that a job's result is in Label Studio."""
        with self._database.transaction() as database:
            database.execute("UPDATE jobs SET posted = 1 WHERE number = ?", (number,))

    def set_unposted(self, number: int) -> None:
        """Record that a job's result is not in Label Studio any more."""
        with self._database.transaction() as database:
            database.execute("UPDATE jobs SET posted = 0 WHERE number = ?", (number,))

    def set_fetched(self, numbers: Iterable[int]) -> None:
        """Record that the whole results of jobs have been sent to somebody."""
        with self._database.transaction() as database:
            database.executemany("UPDATE jobs SET fetched = 1 WHERE number = ?", [(number,) for number in numbers])

    def forget(self, key: str) -> None:
        """Make `find` ignore the ended jobs under a key."""
        with self._database.transaction() as database:
            database.execute("UPDATE jobs SET digest = '' WHERE key = ? AND state NOT IN ('queued', 'running')", (key,))

    # Results

    def save(
        self,
        number: int,
        initial_tracks: Iterable[str],
        blocks: Sequence[tuple[int, ResultBlock]],
        progress: Progress,
        counts: tuple[int, int, int],
    ) -> None:
        """Save a job's new blocks and its progress, in one transaction.

        Args:
            initial_tracks: names of the tracks that phrases found on their first frame.
            blocks: since the last call, each with the index of its pass.
            counts: frames done, frames in total, and tracks.
        """
        rows = [(number, *block_row(pass_index, block)) for pass_index, block in join_blocks(blocks)]
        done = (progress.pass_index, progress.done, *counts, json.dumps(list(initial_tracks)), number)
        with self._database.transaction() as database:
            database.executemany(f"INSERT INTO blocks (job, {BLOCK_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", rows)  # noqa: S608
            database.execute(
                "UPDATE jobs SET way = ?, done = ?, frames = ?, total = ?, tracks = ?, names = ? WHERE number = ?", done
            )

    def blocks(self, number: int) -> Iterator[tuple[int, ResultBlock]]:
        """The blocks of a job, in order, each with the index of its pass; up to the first one that is damaged."""
        sql = f"SELECT {BLOCK_COLUMNS} FROM blocks WHERE job = ? ORDER BY number"  # noqa: S608
        return join_blocks(parse_blocks(self._database.fetch_apart(sql, number)))

    def cut(self, number: int, progress: Progress, kept: range) -> None:
        """Delete a job's blocks beyond the first damaged one, which are of no use without it.

        Args:
            progress: where that is.
            kept: the source frames of that pass that are kept.
        """
        is_beyond = "way > ? OR (way = ? AND NOT (start >= ? AND stop <= ?))"
        span = progress.pass_index, progress.pass_index, kept.start, kept.stop
        with self._database.transaction() as database:
            database.execute(f"DELETE FROM blocks WHERE job = ? AND ({is_beyond})", (number, *span))  # noqa: S608
            done = progress.pass_index, progress.done, number
            database.execute("UPDATE jobs SET way = ?, done = ? WHERE number = ?", done)

    def memo(self, number: int) -> bytes | None:
        """The choices of keyframes for a job's tracks."""
        row = self._database.fetch_one("SELECT content FROM memos WHERE job = ?", number)
        return row[0] if row else None

    def set_memo(self, number: int, content: bytes) -> None:
        """Save the choices of keyframes for a job's tracks, if the job is still there."""
        with self._database.transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO memos SELECT number, ? FROM jobs WHERE number = ?", (content, number)
            )

    def prune(self) -> None:
        """Delete what is too old, and the oldest of what takes too much room."""
        self._retention.prune()

    def _jobs(self, where: str, *values: object) -> list[JobRow]:
        """The jobs that can be read; one that cannot costs no other."""
        rows = self._database.fetch(f"SELECT {JOB_COLUMNS} FROM jobs WHERE {where}", *values)  # noqa: S608
        jobs = []
        for row in rows:
            try:
                jobs.append(parse_job(row))
            except (ValueError, TypeError, AttributeError) as error:
                if row[0] not in self._unreadable:
                    self._unreadable.add(row[0])
                    log.error("job %s is set aside, because its row cannot be read: %s", row[0], type(error).__name__)
        return jobs
