"""Takes a run's results into its job, and saves them."""

import time
from collections.abc import Callable, Iterable

from backend.jobs.job import Job
from backend.jobs.job_line import rank_of
from backend.jobs.messages import Chunk
from backend.jobs.propagation import PropagationRun
from backend.jobs.schedule import Progress
from backend.jobs.store import Store
from backend.tracks.track import ResultBlock

_SAVE_SECONDS = 1.0
"""Results are saved at least this often, with a state or without."""


class JobRecorder:
    """Adds a run's results to a job, and saves them: what is missing, because kept frames stay as they are.

    Attributes:
        place: how far the session is.
        priority: that the worker knows of.

    Args:
        retry: reads or writes the store until that works.
    """

    def __init__(
        self, job: Job, propagation: PropagationRun, store: Store, retry: Callable[[Callable[[], None]], None]
    ) -> None:
        self.job, self.propagation = job, propagation
        self._store, self._retry = store, retry
        self._unsaved: list[tuple[int, ResultBlock]] = []
        self._saved_at = time.monotonic()
        self.place = Progress()
        self.priority = rank_of(job)

    def add_initial_tracks(self, names: Iterable[str]) -> None:
        """Tracks that phrases found on their first frame; once known, they stay."""
        if self.job.initial_tracks is None:
            self.job.initial_tracks = tuple(names)
            self.propagation.add_initial_tracks(names)

    def add(self, chunk: Chunk) -> None:
        """Add results; save them if that is due, and the session's state if it came along."""
        propagation, job = self.propagation, self.job
        job.note_progress()
        for block in chunk.blocks:
            self.place = propagation.schedule.place_after(chunk.pass_index, block.frames)
            if new := propagation.missing_part(chunk.pass_index, block):
                propagation.add(chunk.pass_index, new)
                self._unsaved.append((chunk.pass_index, new))
        job.throughput.update(propagation.done)
        if chunk.state or time.monotonic() - self._saved_at > _SAVE_SECONDS:
            self.save()
        if chunk.state:
            job.keeps_state = self._store.states.keep(job.number, self.place, chunk.state)
            if job.keeps_state:
                job.forget_worker_deaths()

    def save(self) -> None:
        """Save the results that are not saved yet."""
        propagation, job = self.propagation, self.job
        counts, progress = (*propagation.frame_counts(), propagation.track_count), propagation.progress
        tracks = job.initial_tracks or ()
        self._retry(lambda: self._store.save(job.number, tracks, self._unsaved, progress, counts))
        job.saved_progress = progress
        if self._unsaved:
            job.forget_worker_deaths()
        self._unsaved.clear()
        self._saved_at = time.monotonic()
