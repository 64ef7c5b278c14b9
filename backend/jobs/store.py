"""What jobs have come to, on disk: a SQLite file that a killed server, a copy or an old version cannot spoil.

Schema, version 1 (`PRAGMA user_version`; a newer file is refused, an older one is brought up to date on opening):

jobs      one job each: who asked for it, its recipe (prompts, as JSON), its state, how far it is, its error
videos    by address: when each picture appears, and the size; so that answers need no file
blocks    what the engine said of some frames of a job, in order: its tracks' rows as float32, masks as JSON if asked
states    the engine's state at the end of a job's last block; with it another process goes on from there
points    whether a click was positive: Label Studio forgets it when a page is loaded again
studios   by project: the address and the token that Label Studio gave us; the file is readable to its owner alone

The write-ahead log makes every change whole or not at all; `copy` makes a copy while others write.
"""

import json
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from backend.errors import SettingsError
from backend.jobs.propagation import Progress
from backend.jobs.spec import JobSpec, VideoInfo
from backend.tracks.masks import Rle
from backend.tracks.track import Block

State = Literal["queued", "running", "done", "failed", "cancelled"]
UNFINISHED = ("queued", "running")

MIGRATIONS = (
    """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, digest TEXT NOT NULL, recipe TEXT NOT NULL,
        model TEXT NOT NULL, batch INTEGER NOT NULL, post TEXT, posted INTEGER NOT NULL DEFAULT 0,
        state TEXT NOT NULL, error TEXT, way INTEGER NOT NULL DEFAULT 0, done INTEGER NOT NULL DEFAULT 0,
        frames INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL DEFAULT 0,
        tracks INTEGER NOT NULL DEFAULT 0, names TEXT, asked REAL NOT NULL,
        ended REAL);
    CREATE INDEX jobs_by_digest ON jobs (key, digest);
    CREATE TABLE videos (
        url TEXT PRIMARY KEY, times BLOB NOT NULL, ends REAL NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL);
    CREATE TABLE blocks (
        number INTEGER PRIMARY KEY, job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE, way INTEGER NOT NULL,
        start INTEGER NOT NULL, stop INTEGER NOT NULL, reverse INTEGER NOT NULL, tracks TEXT NOT NULL,
        phrases TEXT NOT NULL, rows BLOB NOT NULL, masks BLOB);
    CREATE INDEX blocks_by_job ON blocks (job);
    CREATE TABLE states (job INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE, state BLOB NOT NULL);
    CREATE TABLE points (
        task TEXT NOT NULL, point TEXT NOT NULL, positive INTEGER NOT NULL, seen REAL NOT NULL,
        PRIMARY KEY (task, point)) WITHOUT ROWID;
    CREATE TABLE studios (project TEXT PRIMARY KEY, url TEXT NOT NULL, token TEXT NOT NULL);
    """,
)
_DAY = 86400.0
_JOINED = 128
"""Blocks that are read as one."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as it is on disk.

    Attributes:
        key, digest: of the prompt that it answers.
        model: engine and version.
        batch: nobody looks at it.
        post: what its answer is posted with, JSON; None: it is not.
        place: how far it is.
        frames: done and to do.
        tracks: that are known of.
        names: what phrases found at once; None: nothing was prompted yet.
        asked, ended: seconds since 1970.
    """

    number: int
    key: str
    digest: str
    spec: JobSpec
    model: str
    batch: bool
    post: str | None
    posted: bool
    state: State
    error: str | None
    progress: Progress
    frames: tuple[int, int]
    track_count: int
    initial_tracks: tuple[str, ...] | None
    created_at: float
    ended_at: float | None


def read_mask_blocks(
    path: Path, task: str, project: str, url: str, masks: Container[int]
) -> Iterator[tuple[int, int, Block]]:
    """Job, way and block, in order, of all with masks that the jobs on a task's video have come to.

    Read beside a server that works in the file. Where there is no file nothing is.

    Args:
        masks: jobs; the blocks of others come without the masks themselves, which take most of the time.

    Raises:
        SettingsError: the file is of a newer version, or cannot be read.
    """
    if not path.is_file():
        return
    columns = "job, way, start, stop, reverse, tracks, phrases, rows, masks"
    asked = " AND ".join(f"json_extract(recipe, '$.{name}') = ?" for name in ("task", "project", "url"))
    sql = f"SELECT {columns} FROM blocks WHERE masks IS NOT NULL AND job IN (SELECT number FROM jobs WHERE {asked})"  # noqa: S608
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as file:
            if not schema_version(file):  # it is being made
                return
            for job, *row, packed in file.execute(
                f"{sql} ORDER BY job, number", tuple(map(sql_text, (task, project, url)))
            ):
                yield job, *decode_block((*row, packed if job in masks else None))
    except sqlite3.Error as error:
        raise SettingsError(
            f"masks cannot be read from data_dir ({type(error).__name__}): give the one of serve with --data-dir, as "
            "the user that serve runs as"
        ) from error


class Store:
    """One file; safe between threads, and one process's alone.

    Args:
        path: made when it is not there.
        most_bytes: the oldest ended jobs go where the file outgrows this.
        most_days: ended jobs go after so long.

    Raises:
        SettingsError: the file is of a newer version, another process uses it, or it cannot be written.
    """

    def __init__(self, path: Path, max_bytes: int, retention_days: float) -> None:
        self._path, self._max_bytes, self._retention_days = path, max_bytes, retention_days
        # The only lock here, and a leaf: nothing else is locked while it is held.
        self._lock = threading.Lock()
        with ExitStack() as opened:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                opened.enter_context(_only_one(path.with_suffix(".lock")))
                file = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
                self._file = opened.enter_context(closing(file))
                for pragma in ("auto_vacuum = FULL", "journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
                    self._file.execute(f"PRAGMA {pragma}").close()
                self._migrate()
            except (OSError, sqlite3.Error) as error:
                raise SettingsError(
                    f"jobs cannot be kept in data_dir ({type(error).__name__}): set data_dir to a folder that the "
                    "backend may write to, with room on its disk"
                ) from error
            self._resources = opened.pop_all()
        self.prune()

    def close(self) -> None:
        """Write everything out, and let others in."""
        with self._lock:
            self._resources.close()

    def copy(self, path: Path) -> None:
        """A whole copy of the file as it is now, while jobs go on."""
        with self._lock, closing(sqlite3.connect(path)) as other:
            self._file.backup(other)

    # Jobs

    def add(self, key: str, digest: str, spec: JobSpec, model: str, *, batch: bool, post: str | None) -> JobRow:
        """A new job, queued."""
        now = time.time()
        with self._transaction() as file:
            number = file.execute(
                "INSERT INTO jobs (key, digest, recipe, model, batch, post, state, asked) VALUES (?,?,?,?,?,?,?,?)",
                (key, digest, spec.to_json(), model, batch, post, "queued", now),
            ).lastrowid
        return JobRow(
            number or 0,
            key,
            digest,
            spec,
            model,
            batch,
            post,
            False,
            "queued",
            None,
            Progress(),
            (0, 0),
            0,
            None,
            now,
            None,
        )

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
        """Jobs that were accepted and have not ended, oldest first."""
        return self._jobs("state IN ('queued', 'running') ORDER BY number")

    def unposted(self) -> list[JobRow]:
        """Jobs that are done and whose answers are still to be posted."""
        return self._jobs("state = 'done' AND post IS NOT NULL AND NOT posted ORDER BY number")

    def latest(self, limit: int) -> list[JobRow]:
        """The newest jobs, newest first."""
        return self._jobs("1 ORDER BY number DESC LIMIT ?", limit)

    def set_state(self, number: int, state: State, error: str | None = None) -> None:
        """A job's state; one that has ended as done needs its engine's state no more."""
        ended = None if state in UNFINISHED else time.time()
        with self._transaction() as file:
            file.execute(
                "UPDATE jobs SET state = ?, error = ?, ended = ? WHERE number = ?", (state, error, ended, number)
            )
            if state == "done":
                file.execute("DELETE FROM states WHERE job = ?", (number,))

    def set_posted(self, number: int) -> None:
        """A job's answer is in Label Studio."""
        with self._transaction() as file:
            file.execute("UPDATE jobs SET posted = 1 WHERE number = ?", (number,))

    def set_unposted(self, number: int) -> None:
        """Label Studio has a job's answer no more."""
        with self._transaction() as file:
            file.execute("UPDATE jobs SET posted = 0 WHERE number = ?", (number,))

    def reset(self, number: int) -> None:
        """Forget what a job has come to: it begins anew."""
        with self._transaction() as file:
            file.execute("DELETE FROM blocks WHERE job = ?", (number,))
            file.execute("DELETE FROM states WHERE job = ?", (number,))
            file.execute("UPDATE jobs SET way = 0, done = 0, frames = 0, names = NULL WHERE number = ?", (number,))

    def forget(self, key: str) -> None:
        """Join none of the ended jobs under a key any more."""
        with self._transaction() as file:
            file.execute("UPDATE jobs SET digest = '' WHERE key = ? AND state NOT IN ('queued', 'running')", (key,))

    # What they have come to

    def save(
        self,
        number: int,
        initial_tracks: Iterable[str],
        blocks: Sequence[tuple[int, Block]],
        progress: Progress,
        counts: tuple[int, int, int],
        state: bytes | None,
    ) -> None:
        """All at once: what was said since the last time, how far the job is, and the engine's state there.

        Args:
            names: of what phrases found at once.
            counts: frames done and to do, and tracks.
        """
        rows = [
            (
                number,
                way,
                block.frames.start,
                block.frames.stop,
                block.reverse,
                json.dumps(block.tracks),
                json.dumps(block.phrases),
                block.rows.tobytes(),
                _pack_masks(block.masks),
            )
            for way, block in join_blocks(blocks)
        ]
        with self._transaction() as file:
            file.executemany(
                "INSERT INTO blocks (job, way, start, stop, reverse, tracks, phrases, rows, masks) "
                "VALUES (?,?,?,?,?,?,?,?,?)",
                rows,
            )
            file.execute(
                "UPDATE jobs SET way = ?, done = ?, frames = ?, total = ?, tracks = ?, names = ? WHERE number = ?",
                (progress.pass_index, progress.done, *counts, json.dumps(list(initial_tracks)), number),
            )
            # A state of an earlier place would be worse than none.
            file.execute("DELETE FROM states WHERE job = ?", (number,))
            if state is not None:
                file.execute("INSERT INTO states VALUES (?, ?)", (number, state))

    def blocks(self, number: int) -> Iterator[tuple[int, Block]]:
        """Way and block of all that a job's engine has said, in order."""
        sql = "SELECT way, start, stop, reverse, tracks, phrases, rows, masks FROM blocks WHERE job = ? ORDER BY number"
        # Of its own, for a long video's rows take a while to read, and nobody else is to wait for that.
        with closing(sqlite3.connect(self._path, timeout=30)) as file:
            rows = file.execute(sql, (number,)).fetchall()
        return join_blocks(map(decode_block, rows))

    def state(self, number: int) -> bytes | None:
        """The engine's state at the end of what a job has come to."""
        row = self._fetch_one("SELECT state FROM states WHERE job = ?", number)
        return row[0] if row else None

    # Videos, points, Label Studios

    def put_video(self, url: str, video: VideoInfo) -> None:
        """A video as it was opened."""
        packed = zlib.compress(video.times.tobytes(), 1)
        with self._transaction() as file:
            file.execute(
                "INSERT OR REPLACE INTO videos VALUES (?, ?, ?, ?, ?)",
                (sql_text(url), packed, video.end, video.width, video.height),
            )

    def video(self, url: str) -> VideoInfo | None:
        """A video as it was opened last."""
        row = self._fetch_one("SELECT times, ends, width, height FROM videos WHERE url = ?", sql_text(url))
        return row and VideoInfo(np.frombuffer(zlib.decompress(row[0])), *row[1:])

    def put_click(self, task: str, point: str, positive: bool) -> None:
        """Whether a click is positive."""
        with self._transaction() as file:
            file.execute(
                "INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?)",
                (sql_text(task), sql_text(point), positive, time.time()),
            )

    def is_click_positive(self, task: str, point: str) -> bool | None:
        """Whether a click is positive, where it was ever told."""
        row = self._fetch_one(
            "SELECT positive FROM points WHERE task = ? AND point = ?", sql_text(task), sql_text(point)
        )
        return None if row is None else bool(row[0])

    def put_connection(self, project: str, url: str, token: str) -> None:
        """Where a project's Label Studio is."""
        with self._transaction() as file:
            file.execute(
                "INSERT OR REPLACE INTO studios VALUES (?, ?, ?)", (sql_text(project), sql_text(url), sql_text(token))
            )

    def connection(self, project: str) -> tuple[str, str] | None:
        """Address and token of a project's Label Studio."""
        row = self._fetch_one("SELECT url, token FROM studios WHERE project = ?", sql_text(project))
        return row and (str(row[0]), str(row[1]))

    # Bounds

    def prune(self) -> None:
        """Forget what is too old, then the oldest that has ended until the rest fits."""
        before = time.time() - self._retention_days * _DAY
        with self._transaction() as file:
            file.execute("DELETE FROM jobs WHERE ended < ?", (before,))
            file.execute("DELETE FROM points WHERE seen < ?", (before,))
            file.execute("DELETE FROM videos WHERE url NOT IN (SELECT json_extract(recipe, '$.url') FROM jobs)")
        while self._bytes() > self._max_bytes:
            with self._transaction() as file:
                done = file.execute(
                    "DELETE FROM jobs WHERE number IN (SELECT number FROM jobs WHERE ended IS NOT NULL "
                    "AND (posted OR post IS NULL OR state != 'done') ORDER BY ended LIMIT 16)"
                ).rowcount
            if not done:
                return

    def _bytes(self) -> int:
        with self._lock:
            (pages,), (size,), (free,) = (
                self._file.execute(f"PRAGMA {name}").fetchone()
                for name in ("page_count", "page_size", "freelist_count")
            )
        return int((pages - free) * size)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._file.execute("BEGIN IMMEDIATE")
            try:
                yield self._file
                self._file.execute("COMMIT")
            except BaseException:
                if self._file.in_transaction:
                    self._file.execute("ROLLBACK")
                raise

    def _fetch_one(self, sql: str, *values: object) -> Any:
        with self._lock:
            return self._file.execute(sql, values).fetchone()

    def _jobs(self, where: str, *values: object) -> list[JobRow]:
        columns = "number, key, digest, recipe, model, batch, post, posted, state, error"
        columns += ", way, done, frames, total, tracks, names, asked, ended"
        with self._lock:
            rows = self._file.execute(f"SELECT {columns} FROM jobs WHERE {where}", values).fetchall()  # noqa: S608
        return [parse_row(row) for row in rows]

    def _migrate(self) -> None:
        version = schema_version(self._file)
        for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
            self._file.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


def schema_version(file: sqlite3.Connection) -> int:
    """The file's schema; 0: it has none yet."""
    (version,) = file.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise SettingsError(
            "the jobs in data_dir are of a newer sam3-backend: install that one, or set data_dir to another folder"
        )
    return int(version)


def _only_one(path: Path) -> IO[str]:
    """A lock that ends with the process, however that ends."""
    file = path.open("w")
    try:
        import fcntl
    except ImportError:  # Windows, where SQLite's own locks have to do
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise SettingsError(
            "another sam3-backend works in this data_dir: stop it, or give this one another with --data-dir"
        ) from None
    return file


def sql_text(text: str) -> str:
    """As SQLite takes it: half of a surrogate pair, which JSON may hold, is no text."""
    return text.encode(errors="replace").decode()


def parse_row(row: Sequence[Any]) -> JobRow:
    """Read a row of `jobs`."""
    number, key, digest, recipe, model, batch, post, posted, state, error = row[:10]
    way, done, frames, total, tracks, names, asked, ended = row[10:]
    found = None if names is None else tuple(json.loads(names))
    return JobRow(
        number,
        key,
        digest,
        JobSpec.from_json(recipe),
        model,
        bool(batch),
        post,
        bool(posted),
        state,
        error,
        Progress(way, done),
        (frames, total),
        tracks,
        found,
        asked,
        ended,
    )


def decode_block(row: Sequence[Any]) -> tuple[int, Block]:
    """Read a row of `blocks`: its pass and the block."""
    way, start, stop, reverse, tracks, phrases, values, masks = row
    names = tuple(json.loads(tracks))
    shaped = np.frombuffer(values, np.float32).reshape(len(names), stop - start, 5)
    return way, Block(range(start, stop), bool(reverse), names, shaped, json.loads(phrases), _unpack_masks(masks))


def join_blocks(said: Iterable[tuple[int, Block]]) -> Iterator[tuple[int, Block]]:
    """As few blocks as hold the same, each of so many at most: of few it is quickly known what they add up to."""
    way, fitting = 0, list[Block]()
    for number, block in said:
        if fitting and not (number == way and fitting[-1].fits(block) and len(fitting) < _JOINED):
            yield way, Block.joined(fitting)
            fitting = []
        way = number
        fitting.append(block)
    if fitting:
        yield way, Block.joined(fitting)


def _pack_masks(masks: Mapping[str, Mapping[int, Rle]]) -> bytes | None:
    if not masks:
        return None
    plain = {
        name: {frame: [mask.height, mask.width, mask.counts.tolist()] for frame, mask in some.items()}
        for name, some in masks.items()
    }
    return zlib.compress(json.dumps(plain, separators=(",", ":")).encode())


def _unpack_masks(packed: bytes | None) -> dict[str, dict[int, Rle]]:
    if packed is None:
        return {}
    return {
        name: {
            int(frame): Rle(height, width, np.array(counts, np.uint32))
            for frame, (height, width, counts) in some.items()
        }
        for name, some in json.loads(zlib.decompress(packed)).items()
    }
