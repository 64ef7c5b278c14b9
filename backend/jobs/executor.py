"""Runs one job on the worker and saves its results; continues what was interrupted."""

import logging
from pathlib import Path

from backend.engines.base import FAILED_PREFIX
from backend.errors import Unsupported
from backend.jobs.job import Job, restore
from backend.jobs.messages import Chunk, InitialTracks, RunEnd
from backend.jobs.metrics import Metrics
from backend.jobs.schedule import Progress
from backend.jobs.spec import ResolvedJob
from backend.jobs.store import Store
from backend.jobs.worker_client import WorkerClient
from backend.recent_values import RecentValues
from backend.tracks.track import ResultBlock
from backend.video import VideoLimits

log = logging.getLogger(__name__)

_MAX_RESULTS = 8
"""How many ended jobs have their tracks in memory; those of others are read from disk."""


class JobExecutor:
    """Runs jobs, one at a time, from one thread.

    Args:
        worker, store: used by no other executor.
        limits: for videos.
        masks: keep masks.
    """

    def __init__(
        self, worker: WorkerClient, store: Store, limits: VideoLimits, metrics: Metrics, *, masks: bool
    ) -> None:
        self._worker, self._store, self._limits = worker, store, limits
        self._metrics, self._masks = metrics, masks
        self._results: RecentValues[ResolvedJob] = RecentValues(_MAX_RESULTS)

    def run(self, job: Job) -> bool:
        """Run a job from where it is; False: it was stopped.

        Raises:
            BackendError: the video cannot be decoded, or the engine failed.
            WorkerDied: the worker died in it.
        """
        status = self._worker.status
        job.enter_phase("decoding" if status == "ready" or status.startswith(FAILED_PREFIX) else status)
        video = self._worker.open(job.video_path or Path(), self._limits)
        resolved = job.resolved
        # A worker that died may have sent results that were not saved; they will be sent again, so they are dropped.
        if resolved is None or resolved.propagation.progress != job.saved_progress:
            self._store.put_video(job.row.spec.url, video)
            resolved = job.row.spec.resolve(video)
            if job.initial_tracks is not None:
                restore(resolved, job.initial_tracks, self._store.blocks(job.number))
            job.resolved = resolved
        if job.initial_tracks is not None and resolved.propagation.done == resolved.propagation.total:
            return True
        state = self._store.state(job.number)
        if state is None and job.saved_progress != Progress():
            return self._start_over(job)
        before = job.saved_progress
        try:
            return self._propagate(job, resolved, state)
        except Unsupported:
            # The engine refuses the saved state. After some frames the error means that the device's memory is full.
            if state is None or resolved.propagation.progress != before:
                raise
            log.warning("job %d starts over: the engine has changed since its state was saved", job.number)
            return self._start_over(job)

    def _start_over(self, job: Job) -> bool:
        self._store.reset(job.number)
        job.initial_tracks, job.saved_progress, job.resolved = None, Progress(), None
        return self.run(job)

    def _propagate(self, job: Job, resolved: ResolvedJob, state: bytes | None) -> bool:
        propagation, unsaved = resolved.propagation, list[tuple[int, ResultBlock]]()

        def save(state: bytes | None) -> None:
            counts = propagation.done, propagation.total, propagation.track_count
            self._store.save(job.number, job.initial_tracks or (), unsaved, propagation.progress, counts, state)
            job.saved_progress, job.worker_deaths = propagation.progress, 0
            unsaved.clear()

        job.enter_phase("hot start" if job.row.spec.phrases else "tracking")
        is_retry = job.worker_deaths > 0
        for reply in self._worker.run(propagation.schedule, job.saved_progress, state, self._masks, is_retry):
            match reply:
                case InitialTracks(names):
                    job.initial_tracks = tuple(names)
                    propagation.add_initial_tracks(names)
                case Chunk(pass_index, blocks, state):
                    if job.phase != "tracking":
                        job.enter_phase("tracking")
                    self._metrics.frames.inc(sum(len(block.frames) for block in blocks))
                    for block in blocks:
                        propagation.add(pass_index, block)
                        unsaved.append((pass_index, block))
                    job.throughput.update(propagation.done)
                    if state is not None:
                        save(state)
                        self._worker.ack()
                case RunEnd(is_complete):
                    if is_complete:
                        save(None)
                    return is_complete
        return False

    def keep_results(self, job: Job) -> None:
        """Keep the results of a job that has ended in memory for a while."""
        if job.resolved:
            self._results.put(job.number, job.resolved)

    def load(self, job: Job) -> ResolvedJob | None:
        """The results of a job that has ended; None if its video was never opened."""
        resolved = self._results.get(job.number)
        if resolved is None and (video := self._store.video(job.row.spec.url)):
            resolved = job.row.spec.resolve(video)
            restore(resolved, job.initial_tracks or (), self._store.blocks(job.number))
            self._results.put(job.number, resolved)
        return resolved
