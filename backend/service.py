"""The story of one request: what was asked, the jobs that do it, and the regions that answer it."""

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from backend import __version__, engines
from backend.engines.base import Engine
from backend.errors import BadRequest
from backend.jobs.runner import Job, Runner
from backend.jobs.tracking import Tracking
from backend.labelstudio import config as label_config
from backend.labelstudio import interactions, regions
from backend.labelstudio.client import Client
from backend.labelstudio.interactions import Interaction
from backend.labelstudio.media import Media
from backend.labelstudio.regions import Region
from backend.settings import Settings
from backend.video import Video, VideoLimits

log = logging.getLogger(__name__)

V = TypeVar("V")

_WAITERS = 64
"""How many requests may wait for their jobs at once; beyond that they are answered with what is there."""
_REMEMBERED = 1024
"""How many projects' addresses and tasks' track numbers are remembered."""


class Service:
    """One per process: the engine, its runner, and what is known of the Label Studios that ask.

    Raises:
        SettingsError: the engine that the settings name cannot run here.
    """

    def __init__(self, settings: Settings, engine: Engine | None = None) -> None:
        self.settings = settings
        self.engine = engine or engines.load(settings.engine)
        self.model_version = f"{self.engine.name}-{self.engine.version}"
        limits = settings.limits
        self._runner: Runner[Tracking] = Runner(limits.queue)
        url, key = settings.label_studio_url, settings.label_studio_api_key
        self._client = Client(url, key) if url else None
        self._media = Media(settings.data_dir.expanduser() / "media", limits.bytes, limits.seconds)
        self._video_limits = VideoLimits(pixels=limits.pixels, frames=limits.frames)
        self._waiters = threading.Semaphore(_WAITERS)
        self._lock = threading.Lock()
        self._clients: OrderedDict[str, Client] = OrderedDict()
        self._track_ids: OrderedDict[str, dict[str, int]] = OrderedDict()

    def close(self) -> None:
        """Cancel what runs and end the worker."""
        self._runner.close()

    def health(self) -> dict[str, Any]:
        """What runs, and with which settings."""
        return {
            "status": "UP",
            "model_class": "Sam3Backend",
            "version": __version__,
            "model_version": self.model_version,
            "engine": self.engine.name,
            "jobs": self._runner.counts(),
            "settings": self.settings.shown(),
        }

    def connect(self, project: str, hostname: str, token: str) -> None:
        """Take note of a project's Label Studio; without an address, of nothing. Settings count for more than this."""
        if hostname:
            with self._lock:
                _remember(self._clients, project, Client(hostname, token))

    def setup(self, project: str, xml: str, hostname: str, token: str) -> str:
        """A project connects: as `connect`, and the log says what of its config can be prompted.

        Args:
            project: its id.
            xml: its label config; empty: none yet.
            hostname: Label Studio's address as it knows it.
            token: what it gives us to fetch files with.

        Returns:
            The model version.
        """
        self.connect(project, hostname, token)
        try:
            config = label_config.parse(xml)
            log.info("project %s: boxes of %s can be tracked", project, ", ".join(config.rectangles))
        except BadRequest as error:
            log.warning("project %s: %s", project, error)
        return self.model_version

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None, xml: str, project: str
    ) -> list[dict[str, Any]]:
        """Answer one request within `answer_within` seconds with what is known by then.

        Args:
            tasks: as Label Studio sends them; with a context it sends one.
            context: what the person did, or None for pre-annotation.
            xml: the label config.
            project: the project's id.

        Returns:
            Predictions for the tasks; empty where there is nothing to say.

        Raises:
            BackendError: none of what was asked for can be done.
        """
        deadline = time.monotonic() + self.settings.answer_within
        if not context:
            return []
        interaction = interactions.parse(tasks, context, label_config.parse(xml))
        if not interaction.regions:
            return []
        jobs = {region.id: self._submit(region, interaction, project) for region in interaction.regions}
        if self._waiters.acquire(blocking=False):
            try:
                self._runner.wait([job for job in jobs.values() if job], deadline - time.monotonic())
            finally:
                self._waiters.release()
        errors = [job.error for job in jobs.values() if job and job.error]
        if len(errors) == len(jobs):
            raise errors[0]
        result = [self._answered(region, jobs[region.id], interaction) for region in interaction.regions]
        scores = [region["score"] for region in result if "score" in region]
        score = sum(scores) / len(scores) if scores else 0.0
        return [{"result": result, "score": round(score, 4), "model_version": self.model_version}]

    def _submit(self, region: Region, interaction: Interaction, project: str) -> Job[Tracking] | None:
        """The job that tracks a region; None where nothing of it is left to track."""
        segments = region.segments(self.settings.direction)
        if all(segment.kept is not None for segment in segments):
            return None
        with self._lock:
            client = self._client or self._clients.get(project)

        def video() -> Video:
            return Video(self._media.fetch(interaction.url, client), self._video_limits)

        def make() -> Tracking:
            max_frames = self.settings.max_frames
            return Tracking(region, segments, interaction.framerate, max_frames, self.engine, video)

        return self._runner.submit((interaction.task, region.id), self._digest(region, interaction), make)

    def _digest(self, region: Region, interaction: Interaction) -> str:
        """What makes two prompts the same. The label is left out: a box is followed alike whatever it is called."""
        settings = self.settings
        parts = [interaction.url, interaction.framerate, self.model_version, settings.direction, settings.max_frames]
        parts += [item.fingerprint for item in region.humans]
        return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()

    def _answered(self, region: Region, job: Job[Tracking] | None, interaction: Interaction) -> dict[str, Any]:
        labels, framerate = interaction.classes[region.id], interaction.framerate
        if job and job.error:
            return regions.refusal(region, labels, framerate, str(job.error))
        # Asked before the frames are looked at: it may end in between, and then they would lack some.
        complete = job is None or job.state == "done"
        if job:
            ours, score = job.work.answer(self.settings.keyframes.iou)
        else:
            ours, score = [item for item in region.items if not item.is_human], region.score
        return regions.answer(
            region,
            [*region.humans, *ours],
            framerate=framerate,
            labels=labels,
            track_id=self._track_id(region, interaction),
            engine=self.engine.name,
            score=score,
            partial=None if complete or not job else job.work.progress(),
        )

    def _track_id(self, region: Region, interaction: Interaction) -> int:
        """The region's number, or the next one that the task has not seen."""
        with self._lock:
            known = self._track_ids.get(interaction.task, {})
            if region.track_id is not None:
                known[region.id] = region.track_id
            elif region.id not in known:
                known[region.id] = 1 + max([0, *known.values(), *interaction.track_ids])
            _remember(self._track_ids, interaction.task, known)
            return known[region.id]


def _remember(table: OrderedDict[str, V], key: str, value: V) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > _REMEMBERED:
        table.popitem(last=False)
