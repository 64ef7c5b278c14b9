"""The threads that fetch the videos of waiting jobs."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from backend.errors import BackendError, MediaError, StoreError, where
from backend.jobs.job import Job
from backend.jobs.job_ends import JobEnds
from backend.jobs.job_queue import JobQueue
from backend.jobs.spec import JobSpec

log = logging.getLogger(__name__)

_THREADS = 16
"""How many videos are fetched at once: a few slow servers must not keep the others waiting."""
_RETRY_SECONDS = 5.0
"""How long a thread waits when the disk has no room for a video."""

FetchVideo = Callable[[JobSpec, Callable[[], bool]], Path]
"""Returns the file of a job's video and fetches it if needed; the second argument says whether to give up."""


class VideoFetcher:
    """Fetches the next videos; a job whose video cannot be fetched fails, unless the disk is full.

    Attributes:
        trouble: why a video could not be saved; None: it could.

    Args:
        on_fetched: called with `JobQueue.changed` locked when a job has its video.
    """

    def __init__(self, queue: JobQueue, ends: JobEnds, fetch: FetchVideo, on_fetched: Callable[[], None]) -> None:
        self._queue, self._ends, self._fetch, self._on_fetched = queue, ends, fetch, on_fetched
        self.trouble: StoreError | None = None
        self._closed = False

    def start(self) -> None:
        """Start the threads."""
        for _ in range(_THREADS):
            threading.Thread(target=self._loop, name="fetch", daemon=True).start()

    def close(self) -> None:
        """End the threads soon; call it with `JobQueue.changed` locked."""
        self._closed = True

    def _loop(self) -> None:
        queue = self._queue
        while True:
            with queue.changed:
                queue.changed.wait_for(lambda: self._closed or queue.next_to_fetch())
                job = queue.next_to_fetch()
                if self._closed or job is None:
                    return
                queue.start_fetch(job)
                job.enter_phase("fetching")
            self._fetch_video(job)

    def _fetch_video(self, job: Job) -> None:
        path, error = None, None
        try:
            path = self._fetch(job.row.spec, lambda: job.is_cancelled or self._closed)
        except BackendError as raised:
            error = raised
        except Exception as raised:
            log.error("a video could not be fetched: %s", where(raised))
            error = MediaError("the video could not be fetched; see the server log")
        queue = self._queue
        with queue.changed:
            self.trouble = error if isinstance(error, StoreError) else None
            if self._closed or not queue.is_waiting(job):
                return
            if error and not self.trouble:
                queue.remove(job)
                self._ends.end(job, "failed", error)
            else:
                job.enter_phase("waiting")
                job.video_path = path
                if self.trouble:
                    queue.changed.wait_for(lambda: self._closed or not queue.is_waiting(job), _RETRY_SECONDS)
                if queue.is_waiting(job):
                    queue.end_fetch(job)
                self._on_fetched()
            queue.changed.notify_all()
        self._ends.try_flush()
