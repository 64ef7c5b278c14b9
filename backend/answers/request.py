"""What every request works with: the process's tools, and one request's own."""

import hashlib
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from backend.answers.memory import Memory
from backend.engines.base import FAILED, Engine
from backend.errors import SettingsError
from backend.jobs.finding import Finding
from backend.jobs.footage import Footage
from backend.jobs.runner import Job, Runner
from backend.jobs.tracking import Tracking
from backend.labelstudio import regions
from backend.labelstudio.client import Client
from backend.labelstudio.config import LabelConfig
from backend.labelstudio.interactions import Interaction
from backend.labelstudio.regions import Region
from backend.labelstudio.sequence import Item
from backend.labelstudio.videos import Videos
from backend.settings import Settings

_WAITERS = 64
"""How many requests may wait for their jobs at once; beyond that they are answered with what is there."""

Results = list[dict[str, Any]]


class Tools:
    """What every request works with: one per process."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        self.runner: Runner[Tracking | Finding] = Runner(settings.limits.queue)
        self._waiters = threading.Semaphore(_WAITERS)
        self.model_version = f"{engine.name}-{engine.version}"
        self.videos = Videos(settings)

    def wait(self, jobs: Sequence[Job[Tracking | Finding]], deadline: float) -> None:
        """Wait until all of them have ended, or until `deadline`, of the monotonic clock."""
        if self._waiters.acquire(blocking=False):
            try:
                self.runner.wait(jobs, deadline - time.monotonic())
            finally:
                self._waiters.release()

    def engine_now(self) -> str:
        """The engine's name, and what it is waited for where its model is not ready."""
        status = self.engine.status
        return self.engine.name if status == "ready" else f"{self.engine.name} is {status}"

    def digest(self, parts: Sequence[Any]) -> str:
        """What makes two prompts the same. Labels are left out: a box is followed alike whatever it is called."""
        whole = "|".join(map(str, [self.model_version, *parts]))
        return hashlib.sha256(whole.encode(errors="replace")).hexdigest()

    def submit(self, key: Hashable, digest: str, make: Callable[[], Tracking | Finding]) -> Job[Tracking | Finding]:
        """The job with this digest: one that is there, or a new one instead of what runs under `key`.

        Raises:
            SettingsError: the model could not be loaded; no video is fetched for nothing.
            Busy: too many jobs are waiting.
        """
        if self.engine.status.startswith(FAILED):
            raise SettingsError(self.engine.status.removeprefix(FAILED))
        return self.runner.submit(key, digest, make)


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        client: the task's Label Studio, where it is known.
        began: when it came, of the monotonic clock.
    """

    tools: Tools
    memory: Memory
    interaction: Interaction
    config: LabelConfig
    client: Client | None
    began: float = field(default_factory=time.monotonic)

    def key(self, name: str, kind: str = "region") -> tuple[str, str, str]:
        """Of the jobs for a region, or for a line of words."""
        return self.interaction.task, kind, name

    def footage(self) -> Footage:
        """What its jobs work on; they outlive the request, and so keep nothing of it."""
        settings = self.tools.settings
        return Footage(
            open=partial(self.tools.videos.open, self.interaction.url, self.client),
            framerate=self.interaction.framerate,
            engine=self.tools.engine,
            max_frames=settings.max_frames,
            bound=settings.keyframes.iou,
        )

    def new(self, name: str, classes: tuple[str, ...]) -> Region:
        """A region that the page does not have yet."""
        video = self.interaction.video
        return Region(name, self.config.region_control(video), video, classes, (), origin="prediction")

    def answer(
        self,
        region: Region,
        items: Sequence[Item],
        labels: Sequence[str],
        score: float | None,
        partial: tuple[int, int] | None,
        made: Mapping[str, Any] | None,
    ) -> Results:
        """A region with its track, as `regions.answer` has it."""
        return regions.answer(
            region,
            items,
            framerate=self.interaction.framerate,
            labels=labels,
            track_id=self.memory.number(self.interaction.task, region, self.interaction.track_ids),
            engine=self.tools.engine_now(),
            score=score,
            partial=partial,
            made=made,
        )
