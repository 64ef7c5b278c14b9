"""What every request works with: the process's tools, and one request's own."""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.engines.base import FAILED_PREFIX
from backend.errors import SettingsError
from backend.jobs.job import Job
from backend.jobs.metrics import Metrics
from backend.jobs.scheduler import Scheduler
from backend.jobs.spec import JobSpec
from backend.jobs.store import Store
from backend.jobs.worker_client import WorkerClient
from backend.labelstudio.keyframes import KeyframeSet
from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.region import Region
from backend.labelstudio.region_results import build_results
from backend.labelstudio.request import PredictRequest
from backend.labelstudio.videos import TaskVideos
from backend.predict.connections import Connections
from backend.predict.response_cache import ResponseCache
from backend.settings import Settings

_WAITERS = 64
"""How many requests may wait for their jobs at once; beyond that they are answered with what is there."""

_BOX_SECONDS = 6e-6
"""What a box of a track costs until it is answered: keyframes are chosen, and written as JSON."""

Results = list[dict[str, Any]]


class Tools:
    """What every request works with: one per process.

    Raises:
        SettingsError: jobs cannot be kept in `data_dir`.
    """

    def __init__(self, settings: Settings, worker: WorkerClient) -> None:
        self.settings = settings
        self.worker = worker
        self.videos = TaskVideos(settings)
        limits = settings.limits
        self.store = Store(settings.data_dir.expanduser() / "jobs.sqlite3", limits.store, limits.retention_days)
        self.connections = Connections(settings, self.store)
        self.metrics = Metrics()
        self.scheduler = Scheduler(
            worker,
            self.store,
            self._fetch,
            self.videos.forget,
            self.videos.limits,
            queue=limits.queue,
            metrics=self.metrics,
            masks=settings.show_masks,
        )
        self._waiters = threading.Semaphore(_WAITERS)
        self.model_version = f"{worker.name}-{worker.version}"

    def _fetch(self, recipe: JobSpec, cancelled: Callable[[], bool]) -> Path:
        return self.videos.fetch(recipe.url, self.connections.client(recipe.project), cancelled)

    def wait(self, jobs: Sequence[Job], deadline: float) -> None:
        """Wait until all of them have ended, or until there is just time to make an answer by `deadline`.

        Args:
            deadline: of the monotonic clock.
        """
        if self._waiters.acquire(blocking=False):
            try:
                work = _BOX_SECONDS * sum(job.box_count for job in jobs)
                self.scheduler.wait(jobs, deadline - time.monotonic() - min(work, self.settings.response_timeout / 2))
            finally:
                self._waiters.release()

    def engine_status(self) -> str:
        """The engine's name, and what it is waited for where its model is not ready."""
        status = self.worker.status
        return self.worker.name if status == "ready" else f"{self.worker.name} is {status}"

    def digest(self, parts: Sequence[Any]) -> str:
        """What makes two prompts the same. Labels are left out: a box is followed alike whatever it is called."""
        whole = "|".join(map(str, [self.model_version, *parts]))
        return hashlib.sha256(whole.encode(errors="replace")).hexdigest()

    def submit(
        self, key: Sequence[str], digest: str, recipe: JobSpec, *, batch: bool = False, post: str | None = None
    ) -> Job:
        """The job with this digest: one that is there, or a new one instead of what runs under `key`.

        Raises:
            SettingsError: the model could not be loaded; no video is fetched for nothing.
            Busy: too many jobs are waiting.
        """
        if self.worker.status.startswith(FAILED_PREFIX):
            raise SettingsError(self.worker.status.removeprefix(FAILED_PREFIX))
        return self.scheduler.submit(key, digest, recipe, batch=batch, post=post)


@dataclass(frozen=True)
class RequestContext:
    """One request.

    Attributes:
        project: the task's.
        began: when it came, of the monotonic clock.
    """

    tools: Tools
    cache: ResponseCache
    interaction: PredictRequest
    config: LabelConfig
    project: str
    start_time: float = field(default_factory=time.monotonic)

    def key(self, name: str, kind: str = "region") -> tuple[str, str, str]:
        """Of the jobs for a region, or for a line of words."""
        return self.interaction.task, kind, name

    def job_spec(self, **asked: Any) -> JobSpec:
        """A job on the task's video."""
        return JobSpec(
            task=self.interaction.task,
            project=self.project,
            url=self.interaction.url,
            framerate=self.interaction.framerate,
            max_frames=self.tools.settings.max_frames,
            **asked,
        )

    def new_region(self, name: str, classes: tuple[str, ...]) -> Region:
        """A region that the page does not have yet."""
        video = self.interaction.video
        return Region(name, self.config.region_control(video), video, classes, (), origin="prediction")

    def answer(
        self,
        region: Region,
        made: KeyframeSet,
        labels: Sequence[str],
        score: float | None,
        partial: tuple[int, int] | None,
        made_of: Mapping[str, Any] | None,
    ) -> Results:
        """A region with its track, as `regions.answer` has it."""
        return build_results(
            region,
            made.keyframes,
            framerate=self.interaction.framerate,
            labels=labels,
            track_id=self.cache.assign_track_id(self.interaction.task, region, self.interaction.track_ids),
            engine=self.tools.engine_status(),
            score=score,
            partial=partial,
            iou=made.iou,
            made_of=made_of,
        )
