"""Who runs when: one worker thread for the device, a bounded queue, jobs to be joined, replaced and waited for."""

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, Literal, Protocol, TypeVar

from backend.errors import BackendError, Busy, where

log = logging.getLogger(__name__)

_PATIENCE = 10.0

State = Literal["queued", "running", "done", "failed", "cancelled"]


class Work(Protocol):
    """What a job does. It keeps its own results, whole or partial, in every state."""

    def run(self, cancelled: Callable[[], bool]) -> None:
        """Do it, asking `cancelled` often; return early where it says so."""
        ...


W = TypeVar("W", bound=Work)


class Job(Generic[W]):
    """One piece of work and how far it is."""

    def __init__(self, work: W) -> None:
        self.work = work
        self.state: State = "queued"
        self.error: BackendError | None = None
        self._cancelled = threading.Event()
        self._ended = threading.Event()

    def cancel(self) -> None:
        """Stop soon; what is computed stays."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """It was told to stop."""
        return self._cancelled.is_set()

    def drop(self) -> None:
        """End it before it began; called by the runner alone."""
        self._cancelled.set()
        self.state = "cancelled"
        self._ended.set()

    def wait(self, seconds: float) -> bool:
        """Wait for the end; False where it is still to come."""
        return self._ended.wait(max(seconds, 0.0))

    def run(self) -> None:
        """Run the work to its end; called by the runner alone."""
        self.state = "running"
        try:
            if not self._cancelled.is_set():
                self.work.run(self._cancelled.is_set)
            self.state = "cancelled" if self._cancelled.is_set() else "done"
        except BackendError as error:
            self.error, self.state = error, "failed"
        except Exception as error:
            log.error("a job failed: %s", where(error))
            self.error, self.state = BackendError("the engine failed on this video: see the server's log"), "failed"
        finally:
            self._ended.set()


class Runner(Generic[W]):
    """Runs jobs one at a time, first come first served.

    Args:
        queue: how many jobs may wait.
        kept: how many jobs are kept to be joined, ended ones included.
    """

    def __init__(self, queue: int, kept: int = 512) -> None:
        self._queue_limit = queue
        self._kept = kept
        # One lock for all that follows; no work runs and nobody waits for a job's end under it.
        self._changed = threading.Condition()
        self._waiting: deque[Job[W]] = deque()
        self._jobs: OrderedDict[tuple[Hashable, str], Job[W]] = OrderedDict()
        self._running: Job[W] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="device", daemon=True)
        self._thread.start()

    def submit(self, key: Hashable, digest: str, make: Callable[[], W]) -> Job[W]:
        """The job for `digest`: the one that is there, or a new one that replaces what still runs under `key`.

        Raises:
            Busy: too many jobs are waiting.
        """
        with self._changed:
            job = self._jobs.get((key, digest))
            if job and job.state not in ("failed", "cancelled") and not job.is_cancelled:
                self._jobs.move_to_end((key, digest))
                return job
            replaced = [old for (other, _), old in self._jobs.items() if other == key and not old.wait(0)]
            waiting = [job for job in self._waiting if job not in replaced]
            if len(waiting) >= self._queue_limit:
                raise Busy(f"{len(waiting)} tracks are waiting for the device: ask again in a little while")
            for old in replaced:
                old.cancel()
                if old in self._waiting:
                    old.drop()
            self._waiting = deque(waiting)
            job = Job(make())
            self._jobs[key, digest] = job
            self._waiting.append(job)
            self._forget()
            self._changed.notify()
            return job

    def newest(self, key: Hashable) -> Job[W] | None:
        """The job that was last submitted under `key`, as far as it is kept."""
        with self._changed:
            return next((job for (other, _), job in reversed(self._jobs.items()) if other == key), None)

    def forget(self, key: Hashable) -> None:
        """Join none of the jobs under `key` that have ended."""
        with self._changed:
            for name in [name for name, job in self._jobs.items() if name[0] == key and job.wait(0)]:
                del self._jobs[name]

    def wait(self, jobs: Iterable[Job[W]], seconds: float) -> None:
        """Wait until all of them have ended, at most so long."""
        deadline = time.monotonic() + seconds
        for job in jobs:
            if not job.wait(deadline - time.monotonic()):
                return

    def counts(self) -> dict[str, int]:
        """How many jobs wait and run."""
        with self._changed:
            return {"waiting": len(self._waiting), "running": int(self._running is not None)}

    def close(self) -> None:
        """Cancel everything and end the worker; one that does not come back from a library call is left behind."""
        with self._changed:
            self._closed = True
            for job in (*self._waiting, *([self._running] if self._running else [])):
                job.cancel()
            self._changed.notify()
        self._thread.join(_PATIENCE)

    def _forget(self) -> None:
        ended = [name for name, job in self._jobs.items() if job.wait(0)]
        for name in ended[: max(len(self._jobs) - self._kept, 0)]:
            del self._jobs[name]

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                self._running = job = self._waiting.popleft()
            job.run()
