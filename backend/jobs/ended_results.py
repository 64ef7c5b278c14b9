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

        If some are damaged, or what is known of its video is, a job that was done has failed: asked for again, it
        computes once more what is not there.
        """
        if resolved := self._results.get(job.number):
            return resolved
        if video := self._store.records.video(job.row.spec.url):
            resolved = job.row.spec.resolve(video)
            restore(resolved, job.initial_tracks or (), self._store.blocks(job.number))
            resolved.memo.load(self._store.memo(job.number) or b"")
            self._results.put(job.number, resolved)
        if job.state == "done" and not (resolved and _is_whole(resolved, job)):
            error = BackendError("a part of the results is damaged: ask for it again, the rest is kept")
            job.end("failed", error)
            self._store.set_ended([(job.number, "failed", str(error), job.ended_at)])
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


def _is_whole(resolved: ResolvedJob, job: Job) -> bool:
    propagation = resolved.propagation
    return propagation.done >= propagation.schedule.count_done(job.saved_progress)
