"""What is deleted from the job database, and in which order; nothing else deletes a computed frame."""

import time

from backend.jobs.database import Database
from backend.jobs.state_files import StateFiles
from backend.jobs.store_clock import StoreClock

_DAY = 86400.0
_STEP = 4
"""How many jobs are deleted at once while there is too little room."""
_AGE_SECONDS = 600.0
"""How often ages are looked at."""


class Retention:
    """Deletes what is too old, and the oldest of what takes too much room.

    Args:
        clock: ages are counted by it.
        max_bytes: of the database and the states together.
        days: ended jobs are deleted after this time.
    """

    def __init__(self, database: Database, states: StateFiles, clock: StoreClock, max_bytes: int, days: float) -> None:
        self._database, self._states, self._clock = database, states, clock
        self._max_bytes, self._days = max_bytes, days
        self._aged_at: float | None = None

    def prune(self) -> None:
        """Delete what is too old, if it is time to look; then, until the rest is small enough, states and ended jobs.

        Raises:
            StoreError: the database cannot be changed.
        """
        now = time.monotonic()
        if self._aged_at is None or now - self._aged_at >= _AGE_SECONDS:
            self._delete_old()
            self._sweep_states()
            self._aged_at = now
        if not self._is_too_large():
            return
        self._sweep_states()
        self._shrink_states()
        while self._is_too_large() and self._delete_oldest():
            pass
        self._database.shrink_log()

    def _delete_old(self) -> None:
        """Delete old jobs, but no prediction that Label Studio has not got yet; save the time."""
        now = self._clock.now()
        before = now - self._days * _DAY
        with self._database.transaction() as database:
            database.execute("DELETE FROM clock")
            database.execute("INSERT INTO clock VALUES (?)", (now,))
            database.execute(
                "DELETE FROM jobs WHERE aged < ? AND NOT (state = 'done' AND post IS NOT NULL AND NOT posted)",
                (before,),
            )
            database.execute("DELETE FROM points WHERE seen < ?", (before,))
            database.execute("DELETE FROM page_tracks WHERE seen < ?", (before,))
            database.execute(
                "DELETE FROM videos WHERE url NOT IN "
                "(SELECT CASE WHEN json_valid(recipe) THEN json_extract(recipe, '$.url') END AS url FROM jobs "
                "WHERE url NOT NULL)"
            )

    def _delete_oldest(self) -> int:
        """Delete some ended jobs: first those whose results somebody has, last those whose results nobody has."""
        with self._database.transaction() as database:
            return database.execute(
                "DELETE FROM jobs WHERE number IN (SELECT number FROM jobs WHERE ended IS NOT NULL ORDER BY "
                "CASE WHEN fetched OR posted THEN 0 WHEN state = 'done' THEN 2 ELSE 1 END, aged LIMIT ?)",
                (_STEP,),
            ).rowcount

    def _sweep_states(self) -> None:
        """Delete the states of jobs that are done or gone."""
        saved = {*self._states.jobs()}
        needed = {number for (number,) in self._database.fetch("SELECT number FROM jobs WHERE state != 'done'")}
        for job in saved - needed:
            self._states.delete(job)

    def _shrink_states(self) -> None:
        """Delete the oldest states of ended jobs: without one, a job that is resumed computes its frames once more."""
        if not self._is_too_large():
            return
        ended = {number for (number,) in self._database.fetch("SELECT number FROM jobs WHERE ended IS NOT NULL")}
        for job in self._states.jobs():
            if job in ended:
                self._states.delete(job)
                if not self._is_too_large():
                    return

    def _is_too_large(self) -> bool:
        return self._database.used_bytes() + self._states.used_bytes() > self._max_bytes
