"""What is deleted from the job database, and in which order; nothing else deletes a computed frame."""

import time

from backend.jobs.database import Database
from backend.jobs.state_files import StateFiles

_DAY = 86400.0
_STEP = 16
"""How many jobs are deleted at once while there is too little room."""


class Retention:
    """Deletes what is too old, and the oldest of what takes too much room.

    Args:
        max_bytes: of the database and the states together.
        days: ended jobs are deleted after this time.
    """

    def __init__(self, database: Database, states: StateFiles, max_bytes: int, days: float) -> None:
        self._database, self._states = database, states
        self._max_bytes, self._days = max_bytes, days

    def prune(self) -> None:
        """Delete what is older than `days`; then, until the rest is small enough, states and jobs that have ended.

        Raises:
            StoreError: the database cannot be changed.
        """
        before = time.time() - self._days * _DAY
        with self._database.transaction() as database:
            database.execute("DELETE FROM jobs WHERE ended < ?", (before,))
            database.execute("DELETE FROM points WHERE seen < ?", (before,))
            database.execute("DELETE FROM videos WHERE url NOT IN (SELECT json_extract(recipe, '$.url') FROM jobs)")
        self._sweep_states()
        self._shrink_states()
        while self._is_too_large():
            with self._database.transaction() as database:
                deleted = database.execute(
                    "DELETE FROM jobs WHERE number IN (SELECT number FROM jobs WHERE ended IS NOT NULL "
                    "AND (posted OR post IS NULL OR state != 'done') ORDER BY ended LIMIT ?)",
                    (_STEP,),
                ).rowcount
            if not deleted:
                break
        self._database.shrink_log()

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
