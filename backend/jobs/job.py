"""One job: what it does, how far it is and what it has computed; other threads may read it while it runs."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.errors import BackendError
from backend.jobs.rows import UNFINISHED, JobRow, State
from backend.jobs.spec import ResolvedJob
from backend.tracks.track import ResultBlock

ONE_LOSS_SECONDS = 2.0
"""Deaths of workers that follow each other so closely are one loss."""
STALL_SECONDS = 60.0
"""A job that runs and has made no frame for so long has stalled."""


@dataclass(slots=True)
class Throughput:
    """Frames per second of one run, measured over at least one second; the wait for its first frames does not count."""

    fps: float = 0.0
    _measured_at: float = 0.0
    _done: int = 0

    def update(self, done: int) -> None:
        """Record how many frames are done."""
        now = time.monotonic()
        if not self._measured_at:
            self._measured_at, self._done = now, done
        elif now - self._measured_at >= 1.0:
            self.fps = (done - self._done) / (now - self._measured_at)
            self._measured_at, self._done = now, done


class Job:
    """A job in memory.

    Attributes:
        row: the job as it was read from disk; the other attributes say what has changed since.
        state: queued, running, done, failed or cancelled.
        phase: fetching, waiting, decoding, loading, warming up, hot start, tracking, or empty.
        error: why it failed, or was cancelled.
        cancel_reason: the error of a job that is cancelled; None: a person cancelled it.
        waiters: how many requests wait for it now.
        video_path: its video's file, once it is fetched.
        saved_progress: how far its results are on disk.
        initial_tracks: names of the tracks that phrases found on their first frame; None: no prompt was given yet.
        keeps_state: it can be interrupted; False: its state is too large to save, so it would lose what it computes.
        stop_seconds: how long it took to stop it when it was last interrupted.
        is_fetched: its whole result has been sent to somebody.
        worker_deaths: how many workers in a row died while this job ran; those that died at once, as they do when a
            machine is lost, count once. Until more of it is saved, it runs alone: the next death is its own.
        node_deaths: how many of these were their machines' fault.
        worker: the name of the worker that it runs on, or ran on last; empty: none since the server's start.
        passed_over: how often a worker took a job behind it, whose video it had.
        run_id: of its run on the worker.
        is_stopping: that run was told to stop.
        companions: the numbers of the jobs that run together with it.
        damage: what is wrong with its video, for people; empty: nothing is known to be.
        throughput: of its run, or of its last one.
        phase_seconds: time spent in each phase.

    Args:
        load: reads the results of a job that has ended from disk.
    """

    def __init__(self, row: JobRow, load: "Callable[[Job], ResolvedJob | None]") -> None:
        self.row = row
        self._load = load
        self._resolved: ResolvedJob | None = None
        self.state: State = row.state
        self.phase = ""
        self.error: BackendError | None = BackendError(row.error) if row.error else None
        self.cancel_reason: BackendError | None = None
        self.waiters = 0
        self.video_path: Path | None = None
        self.saved_progress = row.progress
        self.initial_tracks = row.initial_tracks
        self.keeps_state = True
        self.stop_seconds = 0.0
        self.is_fetched = row.is_fetched
        self.worker_deaths = self.node_deaths = 0
        self._worker_died_at = 0.0
        self.worker = ""
        self.passed_over = 0
        self.run_id = 0
        self.is_stopping = False
        self.companions: Sequence[int] = ()
        self.damage = ""
        self.throughput = Throughput()
        self.phase_seconds: dict[str, float] = {}
        self.ended_at = row.ended_at
        self._phase_start = self._moved_at = time.monotonic()
        self._last_progress = row.frames
        self._cancelled = threading.Event()
        self._ended = threading.Event()
        if row.state not in UNFINISHED:
            self._ended.set()

    @property
    def number(self) -> int:
        """The job's number, which people see."""
        return self.row.number

    @property
    def resolved(self) -> ResolvedJob | None:
        """What the job does and has computed; None before its video is open."""
        return self._resolved or (self._load(self) if self.has_ended else None)

    @resolved.setter
    def resolved(self, resolved: ResolvedJob | None) -> None:
        self._resolved = resolved

    def enter_phase(self, phase: str) -> None:
        """Start another phase, unless the job is in it already."""
        if phase == self.phase:
            return
        now = time.monotonic()
        if self.phase:
            self.phase_seconds[self.phase] = self.phase_seconds.get(self.phase, 0.0) + now - self._phase_start
        self.phase, self._phase_start = phase, now
        self.note_progress()

    def note_progress(self) -> None:
        """It has made frames, or has come nearer to that."""
        self._moved_at = time.monotonic()

    @property
    def stall(self) -> str:
        """How long a running job has made no frame, and what may be the cause; empty: it has not stalled.

        A model that loads says itself what it waits for.
        """
        seconds = time.monotonic() - self._moved_at
        if self.state != "running" or ": " in self.phase or seconds < STALL_SECONDS:
            return ""
        return f"no frame for {seconds / 60:.0f} min: memory may be short, or another program may use the device"

    def note_worker_death(self, with_node: bool) -> None:
        """A worker died while this job ran on it, alone or with its machine."""
        now = time.monotonic()
        if not self.worker_deaths or now - self._worker_died_at >= ONE_LOSS_SECONDS:
            self.worker_deaths += 1
            self.node_deaths += with_node
            self._worker_died_at = now

    def forget_worker_deaths(self) -> None:
        """More of the job is saved."""
        self.worker_deaths = self.node_deaths = 0

    def cancel(self, reason: BackendError | None = None) -> None:
        """Stop the job soon; its results are kept.

        Args:
            reason: why, if nobody told it to stop.
        """
        self.cancel_reason = reason
        self._cancelled.set()

    def uncancel(self) -> None:
        """Let the job continue if it has not stopped yet."""
        self.cancel_reason = None
        self._cancelled.clear()

    @property
    def is_cancelled(self) -> bool:
        """Whether it was told to stop."""
        return self._cancelled.is_set()

    @property
    def has_ended(self) -> bool:
        """Whether it is done, failed or cancelled."""
        return self._ended.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for the end; False: it has not ended in this time."""
        return self._ended.wait(max(seconds, 0.0))

    def end(self, state: State, error: BackendError | None = None) -> None:
        """Record the end; only the scheduler calls this."""
        self.enter_phase("")
        self._last_progress = self.progress()
        self.state, self.error, self.ended_at = state, error, time.time()
        self._ended.set()

    @property
    def box_count(self) -> int:
        """How many boxes its tracks may have in total; 0 while that is unknown."""
        resolved = self._resolved
        return resolved.propagation.track_count * resolved.propagation.total if resolved else 0

    def progress(self) -> tuple[int, int]:
        """Frames of the video that are done and in total; (0, 0) before the video is open."""
        resolved = self._resolved
        return resolved.propagation.frame_counts() if resolved else self._last_progress

    @property
    def frames_left(self) -> int:
        """Frames still to process; those that are processed in both directions count twice."""
        resolved = self._resolved
        return resolved.propagation.total - resolved.propagation.done if resolved else 0


def estimate_seconds(jobs: Iterable[Job]) -> float | None:
    """How long these jobs of one video will take together, by the speed of those that run; None if unknown."""
    unfinished = [job for job in jobs if not job.has_ended]
    speeds = [job.throughput.fps for job in unfinished if job.state == "running" and job.throughput.fps]
    return max(job.frames_left for job in unfinished) / min(speeds) if speeds else None


def is_late(jobs: Iterable[Job], seconds: float) -> bool:
    """Whether these jobs are expected to take longer together."""
    return (estimate_seconds(jobs) or 0.0) > seconds


def restore(resolved: ResolvedJob, initial_tracks: Iterable[str], blocks: Iterable[tuple[int, ResultBlock]]) -> None:
    """Add the results that are on disk to a job that was resolved anew, up to the first gap."""
    propagation = resolved.propagation
    propagation.add_initial_tracks(initial_tracks)
    for pass_index, block in blocks:
        if not propagation.schedule.is_next(propagation.progress, pass_index, block.frames):
            return
        propagation.add(pass_index, block)
