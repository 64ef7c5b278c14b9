"""The results of jobs that have ended: a few in memory, the others read from disk."""

from typing import cast

from backend.errors import BackendError, StoreError
from backend.jobs.job import Job, restore
from backend.jobs.spec import ResolvedJob
from backend.jobs.store import Store
from backend.recent_values import RecentValues

_MAX_RESULTS = 8
"""How many ended jobs have their tracks in memory."""


class EndedResults:
    """Any thread may use it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._results: RecentValues[ResolvedJob] = RecentValues(_MAX_RESULTS)

    def keep(self, job: Job) -> None:
        """Keep the results of a job that has just ended in memory for a while."""
        if job.resolved:
            self._results.put(job.number, job.resolved)

    def load(self, job: Job) -> ResolvedJob | None:
        """The results of a job that has ended; None if its video was never opened.

        If some are damaged, the job has failed: asked for again, it computes them once more.
        """
        resolved = self._results.get(job.number)
        if resolved is None and (video := self._store.records.video(job.row.spec.url)):
            resolved = job.row.spec.resolve(video)
            restore(resolved, job.initial_tracks or (), self._store.blocks(job.number))
            resolved.memo.load(self._store.memo(job.number) or b"")
            schedule = resolved.propagation.schedule
            if job.state == "done" and resolved.propagation.done < schedule.count_done(job.saved_progress):
                error = BackendError("a part of the results is damaged: ask for it again, the rest is kept")
                job.end("failed", error)
                self._store.set_ended([(job.number, "failed", str(error), job.ended_at)])
            self._results.put(job.number, resolved)
        return resolved

    def check(self, job: Job) -> bool:
        """Read the results of a job that is done; False: some are damaged, and now it has failed."""
        self.load(job)
        return job.state == "done"

    def save_memos(self) -> None:
        """Save the choices of keyframes that were made for these jobs.

        Raises:
            StoreError: they cannot be saved now.
        """
        for number, resolved in self._results.items():
            if resolved.memo.is_changed:
                resolved.memo.is_changed = False
                try:
                    self._store.set_memo(cast(int, number), resolved.memo.to_bytes())
                except StoreError:
                    resolved.memo.is_changed = True
                    raise
