"""Runs one job on the worker and saves its results; continues what was interrupted."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar, cast

from backend.engines.base import FAILED_PREFIX
from backend.errors import BackendError, StateRefused, StoreDamaged, StoreError
from backend.jobs.job import Job, restore
from backend.jobs.messages import Chunk, InitialTracks, RunEnd, SavedState
from backend.jobs.metrics import Metrics
from backend.jobs.propagation import PropagationRun
from backend.jobs.schedule import Progress
from backend.jobs.spec import ResolvedJob
from backend.jobs.store import Store
from backend.jobs.worker_client import WorkerClient
from backend.recent_values import RecentValues
from backend.tracks.track import ResultBlock
from backend.video import VideoLimits

T = TypeVar("T")

log = logging.getLogger(__name__)

_SAVE_SECONDS = 1.0
"""Results are saved at least this often, with a state or without."""
_RETRY_SECONDS = 1.0
"""How often something that cannot be saved is tried again."""
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
        self._closing = threading.Event()
        self._results: RecentValues[ResolvedJob] = RecentValues(_MAX_RESULTS)

    def close(self) -> None:
        """Give up what cannot be saved now, which ends `run`."""
        self._closing.set()

    def run(self, job: Job, on_results: Callable[[int], None]) -> bool:
        """Run a job from where it is; False: it was stopped. While nothing can be saved, this waits.

        Args:
            on_results: called with a number of frames when their results have come.

        Raises:
            BackendError: the video cannot be decoded, or the engine failed.
            StoreError: nothing can be saved, and this is closed; or the job's results are damaged.
            WorkerDied: the worker died in it.
        """
        status = self._worker.status
        job.enter_phase("decoding" if status == "ready" or status.startswith(FAILED_PREFIX) else status)
        video = self._worker.open(job.video_path or Path(), self._limits)
        resolved = job.resolved
        # A worker that died may have sent results that were not saved; they will be sent again, so they are dropped.
        if resolved is None or resolved.propagation.progress != job.saved_progress:
            self._retry(lambda: self._store.records.put_video(job.row.spec.url, video))
            resolved = job.row.spec.resolve(video)
            if job.initial_tracks is not None:
                blocks = self._retry(lambda: list(self._store.blocks(job.number)), StoreDamaged)
                restore(resolved, job.initial_tracks, blocks)
                self._cut_damaged(job, resolved.propagation)
            job.resolved = resolved
        if job.initial_tracks is not None and resolved.propagation.done == resolved.propagation.total:
            return True
        recorder = _Recorder(job, resolved.propagation, self._store, self._retry)
        place, state = self._store.states.newest(job.number, job.saved_progress) or (Progress(), None)
        try:
            return self._propagate(recorder, place, state, on_results)
        except StateRefused:
            log.warning("job %d: the engine refuses its saved state; it starts at its prompts once more", job.number)
            self._store.states.delete(job.number)
            return self._propagate(recorder, Progress(), None, on_results)

    def _propagate(
        self, recorder: "_Recorder", place: Progress, state: SavedState | None, on_results: Callable[[int], None]
    ) -> bool:
        """Continue the session from a place, which may lie before the frames that are kept."""
        job, schedule = recorder.job, recorder.propagation.schedule
        recorder.place = place
        job.enter_phase("hot start" if job.row.spec.phrases else "tracking")
        new_states, is_retry = self._store.states.new_path(job.number), job.worker_deaths > 0
        for reply in self._worker.run(schedule, place, state, new_states, self._masks, is_retry):
            match reply:
                case InitialTracks(names):
                    recorder.add_initial_tracks(names)
                case Chunk():
                    job.enter_phase("tracking")
                    frames = sum(len(block.frames) for block in reply.blocks)
                    self._metrics.frames.inc(frames)
                    recorder.add(reply)
                    if reply.state:
                        self._worker.ack()
                    on_results(frames)
                case RunEnd(is_complete):
                    recorder.save()
                    return is_complete
        return False

    def _retry(self, action: Callable[[], T], *hopeless: type[StoreError]) -> T:
        """Read or write the store; while that fails, try again: the worker keeps its session meanwhile.

        Args:
            hopeless: errors that are raised at once.

        Raises:
            StoreError: it failed hopelessly, or this is closed.
        """
        while True:
            try:
                return action()
            except hopeless:
                raise
            except StoreError:
                if self._closing.wait(_RETRY_SECONDS):
                    raise

    def _cut_damaged(self, job: Job, propagation: PropagationRun) -> None:
        """Compute what lies beyond damaged results once more."""
        progress, schedule = propagation.progress, propagation.schedule
        if schedule.count_done(progress) < schedule.count_done(job.saved_progress):
            log.error("job %d: %d frames are kept, the results of later ones are damaged", job.number, propagation.done)
            kept = schedule.passes[progress.pass_index].completed_part(progress.done)
            self._retry(lambda: self._store.cut(job.number, progress, kept))
        job.saved_progress = progress

    def keep_results(self, job: Job) -> None:
        """Keep the results of a job that has ended in memory for a while."""
        if job.resolved:
            self._results.put(job.number, job.resolved)

    def save_memos(self) -> None:
        """Save the choices of keyframes that were made for jobs that have ended.

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


class _Recorder:
    """Adds a run's results to a job, and saves them: what is missing, because kept frames stay as they are.

    Attributes:
        place: how far the session is.

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

    def add_initial_tracks(self, names: Iterable[str]) -> None:
        """Tracks that phrases found on their first frame; once known, they stay."""
        if self.job.initial_tracks is None:
            self.job.initial_tracks = tuple(names)
            self.propagation.add_initial_tracks(names)

    def add(self, chunk: Chunk) -> None:
        """Add results; save them if that is due, and the session's state if it came along."""
        propagation, job = self.propagation, self.job
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
            job.worker_deaths = 0 if job.keeps_state else job.worker_deaths

    def save(self) -> None:
        """Save the results that are not saved yet."""
        propagation, job = self.propagation, self.job
        counts, progress = (*propagation.frame_counts(), propagation.track_count), propagation.progress
        tracks = job.initial_tracks or ()
        self._retry(lambda: self._store.save(job.number, tracks, self._unsaved, progress, counts))
        job.saved_progress = progress
        job.worker_deaths = 0 if self._unsaved else job.worker_deaths
        self._unsaved.clear()
        self._saved_at = time.monotonic()
