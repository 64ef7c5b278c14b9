"""Runs the jobs of one video on a worker and saves their results; continues what was interrupted."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from backend.errors import BackendError, StateRefused, StoreDamaged, StoreError
from backend.jobs.job import Job, Throughput, restore
from backend.jobs.job_line import rank_of
from backend.jobs.job_recorder import JobRecorder
from backend.jobs.messages import Chunk, Failure, InitialTracks, RunEnd, RunReply, SavedState, StartRun
from backend.jobs.metrics import Metrics
from backend.jobs.propagation import PropagationRun
from backend.jobs.schedule import Progress
from backend.jobs.spec import ResolvedJob
from backend.jobs.store import Store
from backend.jobs.worker_client import WorkerClient, WorkerDied
from backend.video import VideoInfo, VideoLimits

T = TypeVar("T")

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
"""How often something that cannot be saved is tried again."""


EndedRun = tuple[Job, bool | Exception]
"""A job that does not run any more: whether it is complete (False: it was stopped), or what went wrong."""


class JobExecutor:
    """Runs jobs of one video at a time, from one thread.

    Args:
        worker: used by no other executor.
        limits: for videos.
        masks: keep the masks of all jobs.
    """

    def __init__(
        self, worker: WorkerClient, store: Store, limits: VideoLimits, metrics: Metrics, *, masks: bool
    ) -> None:
        self._worker, self._store, self._limits = worker, store, limits
        self._metrics, self._masks = metrics, masks
        self._closing = threading.Event()
        self._runs: dict[int, JobRecorder] = {}
        self._video: VideoInfo | None = None

    def close(self) -> None:
        """Give up what cannot be saved now, which ends `start` and `advance`."""
        self._closing.set()

    def start(self, job: Job) -> list[EndedRun]:
        """Let a job run from where it is, under its `run_id`, together with those that run; all have the same video.

        Returns:
            The jobs that do not run any more, as `advance` does.
        """
        try:
            video = self._video if self._runs and self._video else self._open_video(job)
            if video is None:
                return [(job, False)]
            job.damage = video.damage
            propagation = self._resolve(job, video).propagation
            if job.initial_tracks is not None and propagation.done == propagation.total:
                return [(job, True)]
            if job.is_cancelled:  # while the video was opened
                return [(job, False)]
            place, state = self._store.states.newest(job.number, job.saved_progress) or (Progress(), None)
            self._start_run(job, propagation, place, state)
        except WorkerDied as error:
            return [(job, error), *self._end_all(error)]
        except Exception as error:
            return [(job, error)]
        return []

    def advance(self, on_results: Callable[[Job, int], None]) -> list[EndedRun]:
        """Handle what comes next from the worker, or return after `WorkerClient.wake`.

        While nothing can be saved, this waits. The worker's death is an error of every job that ran.

        Args:
            on_results: called with a job and a number of frames when their results have come.

        Returns:
            The jobs that do not run any more. Their errors: BackendError, the engine failed; StoreError, nothing can
            be saved, and this is closed; or the job's results are damaged; WorkerDied.
        """
        try:
            reply = self._worker.next_reply()
        except (BackendError, WorkerDied) as error:
            return self._end_all(error)
        if reply is None:
            return []
        self._update_priorities()
        if isinstance(reply, Failure) and reply.run_id is None:
            return self._end_all(reply.error)
        recorder = self._runs.get(reply.run_id or 0)
        if recorder is None:  # what comes of a run that was given up
            return []
        try:
            outcome = self._handle(recorder, reply, on_results)
        except Exception as error:
            self._worker.stop_run(recorder.job.run_id)
            outcome = error
        return [] if outcome is None else [self._end(recorder.job, outcome)]

    def _handle(
        self, recorder: JobRecorder, reply: RunReply, on_results: Callable[[Job, int], None]
    ) -> bool | Exception | None:
        """Handle a reply; returns how the run ended, None: it goes on."""
        job = recorder.job
        match reply:
            case InitialTracks(_, names):
                recorder.add_initial_tracks(names)
            case Chunk():
                job.enter_phase("tracking")
                others = (self._runs[run_id].job.number for run_id in reply.companions if run_id in self._runs)
                job.companions = sorted(number for number in others if number != job.number)
                frames = sum(len(block.frames) for block in reply.blocks)
                self._metrics.frames.inc(frames)
                recorder.add(reply)
                if reply.state:
                    self._worker.acknowledge(job.run_id)
                on_results(job, frames)
            case RunEnd(_, is_complete, damage):
                job.damage = damage
                recorder.save()
                return is_complete
            case Failure(_, StateRefused()):
                log.warning("job %d: the engine refuses its saved state; it starts at its prompts again", job.number)
                self._store.states.delete(job.number)
                self._start_run(job, recorder.propagation, Progress(), None)
            case Failure(_, error):
                return error
        return None

    def _open_video(self, job: Job) -> VideoInfo | None:
        """Open a job's video when the model is ready; None: the job was stopped before, or the worker died."""

        def is_stopped() -> bool:
            job.enter_phase(self._worker.status)
            return job.is_stopping

        try:
            if not self._worker.wait_until_ready(is_stopped):
                return None
        except WorkerDied:  # of its model, not of this job: the client says when there were too many such deaths
            self._metrics.worker_deaths.inc(not self._closing.is_set())
            return None
        job.enter_phase("decoding")
        self._video = self._worker.open(job.video_path or Path(), self._limits)
        return self._video

    def _resolve(self, job: Job, video: VideoInfo) -> ResolvedJob:
        """The job on its video, with the results that are on disk."""
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
        return resolved

    def _start_run(self, job: Job, propagation: PropagationRun, place: Progress, state: SavedState | None) -> None:
        """Continue the session from a place, which may lie before the frames that are kept."""
        job.enter_phase("hot start" if job.row.spec.phrases else "tracking")
        job.throughput = Throughput()
        recorder = JobRecorder(job, propagation, self._store, self._retry)
        recorder.place = place
        request = StartRun(
            run_id=job.run_id,
            schedule=propagation.schedule,
            progress=place,
            state=state,
            new_states=self._store.states.new_path(job.number),
            masks=self._masks or job.row.spec.masks,
            priority=recorder.priority,
            is_retry=job.worker_deaths > 0,
        )
        self._worker.start_run(request)
        self._runs[job.run_id] = recorder

    def _update_priorities(self) -> None:
        """Tell the worker which priorities have changed; only after a reply, so that a hung worker blocks nobody."""
        for run_id, recorder in self._runs.items():
            if recorder.priority != (rank := rank_of(recorder.job)):
                recorder.priority = rank
                self._worker.set_priority(run_id, rank)

    def _end(self, job: Job, outcome: bool | Exception) -> EndedRun:
        self._runs.pop(job.run_id, None)
        return job, outcome

    def _end_all(self, error: Exception) -> list[EndedRun]:
        if isinstance(error, WorkerDied):
            self._metrics.worker_deaths.inc(not self._closing.is_set())
        return [self._end(recorder.job, error) for recorder in list(self._runs.values())]

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
