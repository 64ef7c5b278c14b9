"""Masks in a job database, read while a server may be writing to it."""

import sqlite3
from collections.abc import Container, Iterator
from contextlib import closing
from pathlib import Path

from backend.errors import SettingsError
from backend.jobs.rows import BLOCK_COLUMNS, parse_block
from backend.jobs.schema import schema_version, sql_text
from backend.tracks.track import ResultBlock


def read_mask_blocks(
    path: Path, task: str, project: str, url: str, masks: Container[int]
) -> Iterator[tuple[int, int, ResultBlock]]:
    """Job number, pass and block, in order, of all blocks with masks of a task's video; none if there is no file.

    Args:
        path: the job database.
        task, project, url: of the jobs to read.
        masks: numbers of jobs whose masks are decoded, which is slow; blocks of other jobs come without masks.

    Raises:
        SettingsError: the file cannot be read, or a newer version wrote it.
    """
    if not path.is_file():
        return
    is_asked = " AND ".join(f"json_extract(recipe, '$.{name}') = ?" for name in ("task", "project", "url"))
    # CASE, because the order in which AND is evaluated is not defined, and a damaged recipe is an error.
    jobs = f"SELECT number FROM jobs WHERE CASE WHEN json_valid(recipe) THEN {is_asked} END"  # noqa: S608
    sql = f"SELECT job, {BLOCK_COLUMNS} FROM blocks WHERE masks IS NOT NULL AND job IN ({jobs}) ORDER BY job, number"  # noqa: S608
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as database:
            if not schema_version(database):  # a server is creating it
                return
            for job, *row, packed in database.execute(sql, tuple(map(sql_text, (task, project, url)))):
                yield job, *parse_block((*row, packed if job in masks else None))
    except sqlite3.Error as error:
        raise SettingsError(
            f"masks cannot be read from data_dir ({type(error).__name__}): set --data-dir to the one that `serve` "
            "uses, and run as the same user"
        ) from error
