"""One interactive request, with what answers it."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.errors import one_line
from backend.jobs.job import Job
from backend.jobs.scheduler import Scheduler
from backend.jobs.spec import JobSpec, prompt_digest
from backend.jobs.worker_pool import WorkerPool
from backend.labelstudio.keyframes import KeyframeSet
from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.region import Region
from backend.labelstudio.region_results import build_region
from backend.labelstudio.request import PredictRequest
from backend.predict.response_cache import ResponseCache
from backend.settings import Settings

_BOX_SECONDS = 6e-6
"""Time to choose the keyframes of one frame's box of a track, and to write them as JSON."""


@dataclass(frozen=True)
class RequestContext:
    """One interactive request.

    Attributes:
        project: the task's project.
        start_time: when the request came, of the monotonic clock.
        contents: ids of all regions that the annotation has ever contained, as far as they are known.
    """

    settings: Settings
    pool: WorkerPool
    scheduler: Scheduler
    cache: ResponseCache
    request: PredictRequest
    config: LabelConfig
    project: str
    start_time: float = field(default_factory=time.monotonic)
    contents: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        request, field = self.request, self.request.prompt_field
        names = [request.page_name] if request.page_name else []
        names += [f"words {field.id}"] if field and field.id else []
        contents = self.cache.mark_seen(request.task, {*request.page, *request.context}, names)
        object.__setattr__(self, "contents", contents)

    def key(self, name: str, kind: str = "region") -> tuple[str, str, str]:
        """The key of the jobs for a region (by its id), or for a text prompt (by the id of its text)."""
        return self.request.task, kind, name

    def digest(self, parts: Sequence[Any]) -> str:
        """The digest of a prompt."""
        return prompt_digest(self.pool.model_version, parts)

    def submit(self, key: Sequence[str], digest: str, *, replaces: bool = True, **prompts: Any) -> Job:
        """The job for a prompt on the task's video: an existing one, or a new one.

        Args:
            digest: of the prompt.
            replaces: it cancels other jobs under this key.
            prompts: fields of `JobSpec`.

        Raises:
            SettingsError: the model could not be loaded.
            Busy: too many jobs are waiting.
        """
        self.pool.check_engine()
        request = self.request
        spec = JobSpec(
            task=request.task,
            project=self.project,
            url=request.url,
            framerate=request.framerate,
            max_frames=self.settings.max_frames,
            user=request.user,
            **prompts,
        )
        return self.scheduler.submit(key, digest, spec, replaces=replaces)

    def wait(self, jobs: Iterable[Job], deadline: float, others: Iterable[Job] = ()) -> None:
        """Wait until all jobs have ended, or until there is just time for a response by `deadline`.

        Args:
            deadline: of the monotonic clock.
            others: jobs whose results go into the response as they are then.
        """
        jobs = list(jobs)
        boxes = sum(job.box_count for job in (*jobs, *others))
        seconds = min(_BOX_SECONDS * boxes, self.settings.response_timeout / 2)
        self.scheduler.wait(jobs, deadline - time.monotonic() - seconds)

    def describe_engine(self) -> str:
        """The engine's name, and why it computes nothing now."""
        trouble = self.scheduler.trouble
        return self.pool.describe_engine() + (f", paused: {one_line(trouble)}" if trouble else "")

    def new_region(self, name: str, classes: tuple[str, ...]) -> Region:
        """A region that the page does not have yet."""
        video = self.request.video
        return Region(name, self.config.region_control(video), video, classes, (), origin="prediction")

    def build_region(
        self,
        region: Region,
        track: KeyframeSet,
        score: float | None,
        partial: tuple[int, int] | None,
        extra_meta: Mapping[str, Any],
        labels: Sequence[str] | None = None,
        *,
        is_stopped: bool = False,
    ) -> Region:
        """A region with its track; the arguments are those of `region_results.build_region`."""
        return build_region(
            region,
            track,
            track_id=self.cache.assign_track_id(self.request.task, region, self.request.track_ids),
            engine=self.describe_engine() if partial else self.pool.describe_engine(),
            score=score,
            labels=labels,
            partial=partial,
            extra_meta=extra_meta,
            is_stopped=is_stopped,
        )
