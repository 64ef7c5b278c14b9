"""One job: what it is to do, how far it is, and what has come of it; threads may look at it while it runs."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from backend.errors import BackendError
from backend.jobs.spec import ResolvedJob
from backend.jobs.store import UNFINISHED, JobRow, State
from backend.tracks.track import Block


@dataclass(slots=True)
class Throughput:
    """Frames per second of the last few seconds, and the seconds that each phase took."""

    fps: float = 0.0
    _at: float = 0.0
    _done: int = 0

    def update(self, done: int) -> None:
        """So many frames are done now."""
        now = time.monotonic()
        if not self._at or done < self._done:
            self._at, self._done = now, done
        elif now - self._at >= 1.0:
            self.fps = (done - self._done) / (now - self._at)
            self._at, self._done = now, done


class Job:
    """One piece of work.

    Attributes:
        kept: as it was accepted; what changes is told by the other attributes.
        state: queued, running, done, failed or cancelled.
        phase: what it is at: fetching, waiting, decoding, loading, warming up, hot start, tracking, or nothing.
        error: why it failed.
        watchers: how many requests wait for it at this moment.
        path: its video's file, once it is here.
        saved: how far what is on disk reaches.
        names: what phrases found at once; None: nothing was prompted yet.
        losses: how often in a row the worker ended over it.
        seconds: spent in each phase.

    Args:
        load: finds the plan again of a job that has ended.
    """

    def __init__(self, row: JobRow, load: "Callable[[Job], ResolvedJob | None]") -> None:
        self.row = row
        self._load = load
        self._resolved: ResolvedJob | None = None
        self.state: State = row.state
        self.phase = ""
        self.error: BackendError | None = BackendError(row.error) if row.error else None
        self.waiters = 0
        self.video_path: Path | None = None
        self.saved_progress = row.progress
        self.initial_tracks = row.initial_tracks
        self.worker_deaths = 0
        self.throughput = Throughput()
        self.phase_seconds: dict[str, float] = {}
        self.ended_at = row.ended_at
        self._phase_at = time.monotonic()
        self._reached = row.frames
        self._cancelled = threading.Event()
        self._ended = threading.Event()
        if row.state not in UNFINISHED:
            self._ended.set()

    @property
    def number(self) -> int:
        """Its number, which people see."""
        return self.row.number

    @property
    def resolved(self) -> ResolvedJob | None:
        """What it does and what has come of it; None before its file is open."""
        return self._resolved or (self._load(self) if self.has_ended else None)

    @resolved.setter
    def resolved(self, plan: ResolvedJob | None) -> None:
        self._resolved = plan

    def enter_phase(self, phase: str) -> None:
        """Begin another phase."""
        now = time.monotonic()
        if self.phase:
            self.phase_seconds[self.phase] = self.phase_seconds.get(self.phase, 0.0) + now - self._phase_at
        self.phase, self._phase_at = phase, now

    def cancel(self) -> None:
        """Stop soon; what is computed stays."""
        self._cancelled.set()

    def uncancel(self) -> None:
        """Go on after all."""
        self._cancelled.clear()

    @property
    def is_cancelled(self) -> bool:
        """It was told to stop."""
        return self._cancelled.is_set()

    @property
    def has_ended(self) -> bool:
        """It is done, has failed or was cancelled."""
        return self._ended.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for the end; False where it is still to come."""
        return self._ended.wait(max(seconds, 0.0))

    def end(self, state: State, error: BackendError | None = None) -> None:
        """It has ended; called by the runner alone."""
        self.enter_phase("")
        self._reached = self.progress()
        self.state, self.error, self.ended_at = state, error, time.time()
        self._ended.set()

    @property
    def box_count(self) -> int:
        """How many its tracks may have in all, as far as they are known."""
        plan = self._resolved
        return plan.propagation.track_count * plan.propagation.total if plan else 0

    def progress(self) -> tuple[int, int]:
        """Frames done and to do; (0, 0) before its file is open."""
        plan = self._resolved
        return (plan.propagation.done, plan.propagation.total) if plan else self._reached


def restore(resolved: ResolvedJob, initial_tracks: Iterable[str], blocks: Iterable[tuple[int, Block]]) -> None:
    """Give a new plan what was said before."""
    resolved.propagation.add_initial_tracks(initial_tracks)
    for way, block in blocks:
        resolved.propagation.add(way, block)
