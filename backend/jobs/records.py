"""What is known of videos, clicks, projects and the prompting page: small facts that are kept in the job database."""

import zlib

import numpy as np

from backend.jobs.database import Database
from backend.jobs.schema import sql_text
from backend.jobs.store_clock import StoreClock
from backend.video import VideoInfo


class Records:
    """Reads and saves them; safe between threads. Every method may raise StoreError."""

    def __init__(self, database: Database, clock: StoreClock) -> None:
        self._database, self._clock = database, clock

    def put_video(self, url: str, video: VideoInfo) -> None:
        """Save what is known of a video."""
        times = zlib.compress(video.times.tobytes(), 1)
        values = (sql_text(url), times, video.end, *video.size)
        with self._database.transaction() as database:
            database.execute("INSERT OR REPLACE INTO videos VALUES (?, ?, ?, ?, ?)", values)

    def video(self, url: str) -> VideoInfo | None:
        """What is known of a video; of damaged bytes nothing: opening it tells it again."""
        row = self._database.fetch_one("SELECT times, ends, width, height FROM videos WHERE url = ?", sql_text(url))
        if row is None:
            return None
        packed, end, width, height = row
        try:
            times = np.frombuffer(zlib.decompress(packed))
        except (zlib.error, ValueError, TypeError):
            return None
        # The container's own duration and rate are not stored; jobs do not need them.
        return VideoInfo(times, end, end, len(times) / (end - float(times[0])), (width, height))

    def put_click(self, task: str, point: str, positive: bool) -> None:
        """Save whether a click is positive."""
        values = (sql_text(task), sql_text(point), positive, self._clock.now())
        with self._database.transaction() as database:
            database.execute("INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?)", values)

    def is_click_positive(self, task: str, point: str) -> bool | None:
        """Whether a click is positive; None: it was never saved."""
        sql = "SELECT positive FROM points WHERE task = ? AND point = ?"
        row = self._database.fetch_one(sql, sql_text(task), sql_text(point))
        return None if row is None else bool(row[0])

    def put_page_track(self, task: str, region: str, content: str, *, is_offered: bool) -> None:
        """Save a track of the prompting page of a task, and whether it is offered to the task."""
        values = (sql_text(task), sql_text(region), sql_text(task), is_offered, self._clock.now(), sql_text(content))
        sql = (
            "INSERT INTO page_tracks VALUES (?, ?, (SELECT count(*) FROM page_tracks WHERE task = ?), ?, ?, ?) "
            "ON CONFLICT (task, region) DO UPDATE "
            "SET offered = excluded.offered, seen = excluded.seen, content = excluded.content"
        )
        with self._database.transaction() as database:
            database.execute(sql, values)

    def offer_page_track(self, task: str, region: str, *, is_offered: bool) -> None:
        """Save whether a track of the prompting page is offered to its task."""
        sql = "UPDATE page_tracks SET offered = ?, seen = ? WHERE task = ? AND region = ?"
        with self._database.transaction() as database:
            database.execute(sql, (is_offered, self._clock.now(), sql_text(task), sql_text(region)))

    def remove_page_track(self, task: str, region: str) -> None:
        """Forget a track of the prompting page; its job is kept."""
        with self._database.transaction() as database:
            database.execute(
                "DELETE FROM page_tracks WHERE task = ? AND region = ?", (sql_text(task), sql_text(region))
            )

    def page_tracks(self, task: str) -> dict[str, tuple[str, bool]]:
        """The tracks of a task's prompting page by id, in order: what was saved, and whether they are offered."""
        sql = "SELECT region, content, offered FROM page_tracks WHERE task = ? AND content != '' ORDER BY place, seen"
        rows = self._database.fetch(sql, sql_text(task))
        return {region: (content, bool(offered)) for region, content, offered in rows}

    def put_connection(self, project: str, url: str, token: str) -> None:
        """Save the address and the token of a project's Label Studio."""
        values = (sql_text(project), sql_text(url), sql_text(token))
        with self._database.transaction() as database:
            database.execute("INSERT OR REPLACE INTO studios VALUES (?, ?, ?)", values)

    def connection(self, project: str) -> tuple[str, str] | None:
        """The address and the token of a project's Label Studio."""
        row = self._database.fetch_one("SELECT url, token FROM studios WHERE project = ?", sql_text(project))
        return row and (str(row[0]), str(row[1]))
