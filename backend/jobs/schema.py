"""The schema of the job database, a SQLite file.

Version 5 (`PRAGMA user_version`; a newer file is refused, an older one is migrated when it is opened):

jobs      one row per job: key and digest, its spec as JSON (`recipe`), its state, progress and error;
          `fetched`: its whole result has been sent to somebody
videos    by address: the time of each picture, and the size; results can be read without the file
blocks    the results of some frames of a job, in order: the tracks' rows as float32, masks as JSON if kept
clock     the store's time when it was last saved; ages (`aged`, `seen`) are counted by it (`store_clock`)
memos     choices of keyframes for a job's tracks (`keyframe_memo`), which take long to make
points    whether a click was positive: Label Studio forgets it when a page is reloaded
page_tracks  tracks of the prompting page of a task, and whether they are offered to the task
studios   by project: the address and the token that Label Studio sent; only the file's owner may read it

The engines' states are files beside it (`state_files`); version 1 had them in a table.

The write-ahead log makes every change atomic; `Store.copy` makes a consistent copy while others write.
"""

import sqlite3
from collections.abc import Callable

from backend.errors import SettingsError
from backend.jobs.schedule import Progress

KeepState = Callable[[int, Progress, bytes], object]
"""Keeps the state of a job at a place, which version 1 had in a table."""

_MIGRATIONS = (
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
    """
    DROP TABLE states;
    """,
    """
    ALTER TABLE jobs ADD COLUMN aged REAL;
    ALTER TABLE jobs ADD COLUMN fetched INTEGER NOT NULL DEFAULT 0;
    UPDATE jobs SET aged = ended;
    CREATE TABLE clock (now REAL NOT NULL);
    INSERT INTO clock SELECT max(asked, ifnull(ended, 0)) AS newest FROM jobs ORDER BY newest DESC LIMIT 1;
    """,
    """
    CREATE TABLE memos (job INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE, content BLOB NOT NULL);
    """,
    """
    CREATE TABLE page_tracks (
        task TEXT NOT NULL, region TEXT NOT NULL, place INTEGER NOT NULL, offered INTEGER NOT NULL, seen REAL NOT NULL,
        PRIMARY KEY (task, region)) WITHOUT ROWID;
    """,
    """
    ALTER TABLE page_tracks ADD COLUMN content TEXT NOT NULL DEFAULT '';
    """,
)


def schema_version(database: sqlite3.Connection) -> int:
    """The schema of a file; 0: it has none yet.

    Raises:
        SettingsError: it is newer than this version of the backend.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > len(_MIGRATIONS):
        raise SettingsError(
            "the jobs in data_dir were written by a newer sam3-backend: install that version, or set data_dir to "
            "another folder"
        )
    return int(version)


def table_columns(database: sqlite3.Connection, table: str) -> list[str]:
    """The columns of a table; none: there is no such table."""
    return [name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")]


def migrate(database: sqlite3.Connection, keep_state: KeepState) -> None:
    """Bring a file to the current schema, one transaction per version.

    Raises:
        SettingsError: its schema is newer than this version of the backend.
    """
    version = schema_version(database)
    if version == 1:
        states = database.execute("SELECT job, way, done, states.state FROM states JOIN jobs ON job = number")
        for job, pass_index, done, state in states:
            keep_state(job, Progress(pass_index, done), state)
    for number, script in enumerate(_MIGRATIONS[version:], start=version + 1):
        database.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


def sql_text(text: str) -> str:
    """Text that SQLite accepts: half a surrogate pair, which JSON may hold, is replaced."""
    return text.encode(errors="replace").decode()
