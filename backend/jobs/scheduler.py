"""Who runs when: one worker, and jobs that are joined, replaced, interrupted, resumed and waited for; none is lost.

Threads: those that ask; a few that fetch files; `runner`, which alone drives the device. Locks, in the
only order in which one is taken under another: `Runner._changed`, then the device's, then the store's.
"""

import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from backend.engines.base import FAILED
from backend.errors import BackendError, BadVideo, Busy, MediaError, SettingsError, Unsupported, where
from backend.jobs.job import Job, restore
from backend.jobs.metrics import Metrics
from backend.jobs.propagation import Progress
from backend.jobs.spec import JobSpec, ResolvedJob
from backend.jobs.store import JobRow, State, Store
from backend.jobs.worker import Chunk, InitialTracks, RunEnd
from backend.jobs.worker_client import WorkerClient, WorkerDied
from backend.table import Table
from backend.tracks.track import Block
from backend.video import VideoLimits

log = logging.getLogger(__name__)

_PATIENCE = 6.0
"""Seconds that closing waits for a session's state."""
_IDLE = 1.0
"""Seconds between two looks at a worker that has nothing to do."""
_LOSSES = 3
"""So often in a row may the worker end over a job before that is taken for the job's fault."""
_FETCHES = 4
"""Files that are fetched at once."""
_BATCHES = 10_000
"""So many jobs may wait that nobody looks at."""
_PLANS = 8
"""Jobs that have ended and whose tracks are kept in memory; those of others are read from disk."""
_PRUNED = 64
"""Jobs that end between two looks at how much is kept."""

Fetch = Callable[[JobSpec, Callable[[], bool]], Path]
"""A job's file, fetched unless it is here; the second argument says whether nobody wants it any more."""


class Scheduler:
    """Runs jobs one at a time: those first that somebody waits for, batches last.

    Args:
        device, store: this runner's alone.
        fetch: gets a job's file.
        forget: drops a file that is no video.
        limits: of videos.
        queue: how many jobs may wait.
        metrics: is told of what happens.
        masks: keep them.
        remembered: how many jobs are kept in memory to be joined.
    """

    def __init__(
        self,
        worker: WorkerClient,
        store: Store,
        fetch: Fetch,
        forget: Callable[[Path], None],
        limits: VideoLimits,
        *,
        queue: int,
        metrics: Metrics,
        masks: bool = False,
        remembered: int = 512,
    ) -> None:
        self._worker, self._store = worker, store
        self._fetch, self._forget_file, self._limits = fetch, forget, limits
        self._metrics, self._queue, self._masks, self._remembered = metrics, queue, masks, remembered
        self._model = f"{worker.name}-{worker.version}"
        self.on_done: Callable[[Job], None] = lambda job: None
        """Is told of every job that is done."""
        self._changed = threading.Condition()
        self._waiting: list[Job] = []
        self._running: Job | None = None
        self._is_stopping = False
        self._closed = False
        self._jobs: OrderedDict[tuple[str, str], Job] = OrderedDict()
        self._resolved: Table[ResolvedJob] = Table(_PLANS)
        self._fetching: set[int] = set()
        self._count = 0
        self._is_pruning_due = False
        self._thread = threading.Thread(target=self._loop, name="runner", daemon=True)
        with self._changed:
            for kept in store.unfinished():
                self._take_up(kept)
        self._thread.start()
        for _ in range(_FETCHES):
            threading.Thread(target=self._fetch_loop, name="fetch", daemon=True).start()

    # Asking

    def submit(
        self, key: Sequence[str], digest: str, spec: JobSpec, *, batch: bool = False, post: str | None = None
    ) -> Job:
        """The job for `digest`: the one that is there, or a new one that replaces what still runs under `key`.

        Raises:
            Busy: too many jobs are waiting.
        """
        name = _name(key)
        with self._changed:
            job = self._jobs.get((name, digest))
            others = [old for (of, _), old in self._jobs.items() if of == name and old is not job and not old.has_ended]
            kept = self._store.find(name, digest)
            if job and job.state == "done" and kept:
                self._jobs.move_to_end((name, digest))
            elif job and not job.has_ended:
                job.uncancel()
            elif kept and kept.state == "done":
                job = self._remember(Job(kept, self._load))
            else:
                # One may run, whether it has begun yet or not.
                alike = [one for one in self._waiting if one not in others and one.row.batch == batch]
                waiting = len(alike) + (self._running is not None) - 1
                if waiting >= (_BATCHES if batch else self._queue):
                    raise Busy(f"{waiting} tracks are waiting for the device: ask again in a little while")
                if kept:  # what was cancelled or has failed goes on from where it was
                    self._store.set_state(kept.number, "queued")
                    kept = self._store.job(kept.number)
                job = self._take_up(kept or self._store.add(name, digest, spec, self._model, batch=batch, post=post))
            for old in others:
                self._cancel(old)
            return job

    def newest(self, key: Sequence[str]) -> Job | None:
        """The job that was last submitted under `key`, as far as it is kept."""
        name = _name(key)
        with self._changed:
            found = next((job for (other, _), job in reversed(self._jobs.items()) if other == name), None)
            kept = None if found else self._store.newest(name)
            return Job(kept, self._load) if kept else found

    def forget(self, key: Sequence[str]) -> None:
        """Join none of the jobs under `key` that have ended."""
        name = _name(key)
        with self._changed:
            for one in [one for one, job in self._jobs.items() if one[0] == name and job.has_ended]:
                del self._jobs[one]
            self._store.forget(name)

    def wait(self, jobs: Iterable[Job], seconds: float) -> None:
        """Wait until all of them have ended, at most so long; meanwhile they go before others."""
        waited, deadline = list(jobs), time.monotonic() + seconds
        self._watch(waited, 1)
        try:
            for job in waited:
                if not job.wait(deadline - time.monotonic()):
                    return
        finally:
            self._watch(waited, -1)

    def _watch(self, jobs: Iterable[Job], change: int) -> None:
        with self._changed:
            for job in jobs:
                job.waiters += change
            self._interrupt()

    def cancel(self, number: int) -> bool:
        """Stop a job; what it has computed stays. False: there is no such job."""
        with self._changed:
            job = self._find(number)
            if job:
                self._cancel(job)
            return job is not None or self._store.job(number) is not None

    def resume(self, number: int) -> bool:
        """Let a job that was cancelled or has failed go on. False: there is no such job."""
        with self._changed:
            kept = self._store.job(number)
            if kept and kept.state in ("cancelled", "failed"):
                self._store.set_state(number, "queued")
                self._take_up(self._store.job(number) or kept)
            return kept is not None

    def jobs(self, most: int) -> list[Job]:
        """The newest jobs, newest first."""
        with self._changed:
            return [self._find(kept.number) or Job(kept, self._load) for kept in self._store.latest(most)]

    def job(self, number: int) -> Job | None:
        """One job."""
        with self._changed:
            kept = self._store.job(number)
            return self._find(number) or (Job(kept, self._load) if kept else None)

    def counts(self) -> dict[str, int]:
        """How many jobs wait and run."""
        with self._changed:
            return {"waiting": len(self._waiting), "running": int(self._running is not None)}

    def close(self) -> None:
        """Take no more, save what runs, and end the worker. What was accepted goes on when the store is next opened."""
        with self._changed:
            self._closed = True
            self._interrupt()
            self._changed.notify_all()
        if self._worker.status == "ready":
            self._thread.join(_PATIENCE)
        self._worker.close()
        self._thread.join(_PATIENCE / 8)
        self._store.close()

    # All below are called with `_changed` held

    def _find(self, number: int) -> Job | None:
        held = [*self._waiting, *([self._running] if self._running else [])]
        return next((job for job in held if job.number == number), None)

    def _remember(self, job: Job) -> Job:
        name = job.row.key, job.row.digest
        self._jobs[name] = job
        self._jobs.move_to_end(name)
        if len(self._jobs) > self._remembered:
            ended = [one for one, other in self._jobs.items() if other.has_ended]
            for one in ended[: len(self._jobs) - self._remembered]:
                del self._jobs[one]
        return job

    def _take_up(self, kept: JobRow) -> Job:
        """A job that is to run; its file is fetched first."""
        job = self._remember(Job(kept, self._load))
        if kept.model != self._model:
            self._end(job, "failed", BackendError("it was for another model than the one that runs: ask again"))
        else:
            job.enter_phase("waiting")
            self._waiting.append(job)
            self._changed.notify_all()
        return job

    def _cancel(self, job: Job) -> None:
        job.cancel()
        if job in self._waiting:
            self._waiting.remove(job)
            self._end(job, "cancelled")
            self._changed.notify_all()
        self._interrupt()

    def _interrupt(self) -> None:
        """Stop what runs where it was cancelled, or where another job goes before it."""
        running = self._running
        if running is None or self._is_stopping:
            return
        following = self._next()
        is_overtaken = following is not None and _rank(following) < _rank(running)
        if self._closed or running.is_cancelled or is_overtaken:
            self._is_stopping = True
            self._worker.stop()

    def _next(self) -> Job | None:
        # Where the engine does not work, only those that somebody waits for are told so; the others go on when it does.
        is_down = self._worker.status.startswith(FAILED)
        ready = [job for job in self._waiting if job.video_path and (job.waiters or not is_down)]
        return min(ready, key=lambda job: (_rank(job), job.number), default=None)

    def _end(self, job: Job, state: State, error: BackendError | None = None) -> None:
        try:
            self._store.set_state(job.number, state, str(error) if error else None)
        except Exception as failure:  # a full disk: it ends all the same, and after a restart it goes on once more
            log.error("the end of job %d could not be kept: %s", job.number, where(failure))
        job.end(state, error)
        self._metrics.ended.labels(state).inc()
        for phase, seconds in job.phase_seconds.items():
            self._metrics.phase_seconds.labels(phase).observe(seconds)
        _log_end(job)
        self._count += 1
        if self._count % _PRUNED == 0:
            self._is_pruning_due = True

    # Threads

    def _fetch_loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._next_file())
                job = self._next_file()
                if self._closed or job is None:
                    return
                self._fetching.add(job.number)
                job.enter_phase("fetching")
            self._fetch_video(job)

    def _next_file(self) -> Job | None:
        """Of batches only the next few: their files are not to fill the disk long before they are wanted."""
        ahead = sum(job.row.batch for job in self._waiting if job.video_path)
        # One at a time, so that what somebody waits for always finds a thread.
        is_free = ahead < _FETCHES and not any(job.row.batch for job in self._waiting if job.number in self._fetching)
        missing = [
            job
            for job in self._waiting
            if not job.video_path and job.number not in self._fetching and (is_free or not job.row.batch)
        ]
        return min(missing, key=lambda job: (_rank(job), job.number), default=None)

    def _fetch_video(self, job: Job) -> None:
        """Fetch a job's file."""
        error: BackendError | None = None
        try:
            path = self._fetch(job.row.spec, lambda: job.is_cancelled or self._closed)
        except BackendError as raised:
            error = raised
        except Exception as raised:
            log.error("a file could not be fetched: %s", where(raised))
            error = MediaError("the video could not be fetched: see the server's log")
        with self._changed:
            self._fetching.discard(job.number)
            if self._closed or job not in self._waiting:
                return
            if error:
                self._waiting.remove(job)
                self._end(job, "failed", error)
                return
            job.enter_phase("waiting")
            job.video_path = path
            self._interrupt()
            self._changed.notify_all()

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._changed.wait_for(lambda: self._closed or self._next(), _IDLE)
                job = self._next()
                if self._closed:
                    return
            if job is None:
                self._idle()
                continue
            with self._changed:
                if self._closed or job not in self._waiting:
                    continue
                self._waiting.remove(job)
                self._running, self._is_stopping = job, False
                self._worker.next_run()
                job.state = "running"
                self._changed.notify_all()  # there is room for another batch's file
            self._run_to_end(job)

    def _idle(self) -> None:
        """What is done while there is nothing to do."""
        try:
            with suppress(SettingsError):  # health tells
                self._worker.start()  # for one that ended meanwhile: nobody is to wait for a model to load
            if self._is_pruning_due:
                self._is_pruning_due = False
                self._store.prune()
        except Exception as error:
            log.error("the device or the store is in trouble: %s", where(error))

    def _run_to_end(self, job: Job) -> None:
        """Run a job until it ends or is interrupted, and put it where it belongs then."""
        state: State | None = None
        error: BackendError | None = None
        try:
            state = "done" if self._run(job) else "cancelled" if job.is_cancelled else None
        except WorkerDied:
            job.worker_deaths += 1
            self._metrics.worker_deaths.inc(not self._closed)
            if job.is_cancelled:
                state = "cancelled"
            elif job.worker_deaths >= _LOSSES and not self._closed:
                at = job.resolved.propagation.done if job.resolved else 0
                state, error = (
                    "failed",
                    BackendError(
                        f"the engine's process ended {_LOSSES} times over this video, after {at} frames: the log may "
                        "say why; what was computed is kept"
                    ),
                )
        except BackendError as raised:
            state, error = "failed", raised.with_traceback(None)  # its frames would keep the run's memory alive
            if isinstance(raised, BadVideo) and job.video_path:
                self._forget_file(job.video_path)
        except Exception as raised:
            log.error("a job failed: %s", where(raised))
            state, error = "failed", BackendError("the job could not go on: see the server's log")
        with self._changed:
            if state in (None, "cancelled"):  # it may have been cancelled, or asked for again, just now
                state = "cancelled" if job.is_cancelled else None
            if state:
                if job.resolved:
                    self._resolved.put(job.number, job.resolved)
                self._end(job, state, error)
                job.resolved = None
            elif not self._closed:
                job.state = "queued"
                job.enter_phase("waiting")
                self._waiting.append(job)
        if state == "done":
            self.on_done(job)

    def _run(self, job: Job) -> bool:
        """False: it was interrupted."""
        status = self._worker.status
        job.enter_phase("decoding" if status == "ready" or status.startswith(FAILED) else status)
        footage = self._worker.open(job.video_path or Path(), self._limits)
        plan = job.resolved
        # What a worker that was lost had said since the last time is said once more: so that begins anew.
        if plan is None or plan.propagation.progress != job.saved_progress:
            self._store.put_video(job.row.spec.url, footage)
            plan = job.row.spec.resolve(footage)
            if job.initial_tracks is not None:
                restore(plan, job.initial_tracks, self._store.blocks(job.number))
            job.resolved = plan
        if job.initial_tracks is not None and plan.propagation.done == plan.propagation.total:
            return True
        state = self._store.state(job.number)
        if state is None and job.saved_progress != Progress():
            return self._run_from_start(job)
        before = job.saved_progress
        try:
            return self._propagate(job, plan, state)
        except Unsupported:
            # In the middle it says something else: that the device has no room.
            if state is None or plan.propagation.progress != before:
                raise
            log.warning("job %d begins anew: its engine has changed", job.number)
            return self._run_from_start(job)

    def _run_from_start(self, job: Job) -> bool:
        """From the start."""
        self._store.reset(job.number)
        job.initial_tracks, job.saved_progress, job.resolved = None, Progress(), None
        return self._run(job)

    def _propagate(self, job: Job, plan: ResolvedJob, state: bytes | None) -> bool:
        propagations, pending = plan.propagation, list[tuple[int, Block]]()

        def save(state: bytes | None) -> None:
            counts = propagations.done, propagations.total, propagations.track_count
            self._store.save(job.number, job.initial_tracks or (), pending, propagations.progress, counts, state)
            job.saved_progress, job.worker_deaths = propagations.progress, 0
            pending.clear()

        job.enter_phase("hot start" if job.row.spec.phrases else "tracking")
        for reply in self._worker.run(
            propagations.schedule, job.saved_progress, state, self._masks, job.worker_deaths > 0
        ):
            match reply:
                case InitialTracks(names):
                    job.initial_tracks = tuple(names)
                    propagations.add_initial_tracks(names)
                case Chunk(way, blocks, state):
                    if job.phase != "tracking":
                        job.enter_phase("tracking")
                    self._metrics.frames.inc(sum(len(block.frames) for block in blocks))
                    for block in blocks:
                        propagations.add(way, block)
                        pending.append((way, block))
                    job.throughput.update(propagations.done)
                    if state is not None:
                        save(state)
                        self._worker.ack()
                case RunEnd(is_whole):
                    if is_whole:
                        save(None)
                    return is_whole
        return False

    def _load(self, job: Job) -> ResolvedJob | None:
        """The plan of a job that has ended, with what has come of it."""
        plan = self._resolved.get(job.number)
        if plan is None and (footage := self._store.video(job.row.spec.url)):
            plan = job.row.spec.resolve(footage)
            restore(plan, job.initial_tracks or (), self._store.blocks(job.number))
            self._resolved.put(job.number, plan)
        return plan


def _name(key: Sequence[str]) -> str:
    return json.dumps(list(key))


def _rank(job: Job) -> int:
    """Those go first that somebody waits for, then those that somebody has asked for, then batches."""
    return 0 if job.waiters else 2 if job.row.batch else 1


def _log_end(job: Job) -> None:
    """One line for the log."""
    recipe, (done, total) = job.row.spec, job.progress()
    spent = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in job.phase_seconds.items() if seconds >= 0.05)
    why = f": {' '.join(str(job.error).split())}" if job.error else ""
    log.info(
        "job %d of task %s, %s: %s, %d of %d frames (%s)%s",
        *(job.number, recipe.task, recipe.kind, job.state, done, total, spent or "at once", why),
    )
