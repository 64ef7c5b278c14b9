"""The story of one request: what was asked, the jobs that do it, and the regions that answer it."""

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from backend import __version__, engines
from backend.engines.base import FAILED, Engine
from backend.errors import BackendError, BadRequest, BadVideo, Busy, SettingsError
from backend.jobs.runner import Job, Runner
from backend.jobs.tracking import Tracking
from backend.labelstudio import config as label_config
from backend.labelstudio import interactions, regions, segments
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
        # Nobody keeps masks of a job, so that none need be made.
        self.engine = engine or engines.load(replace(settings, show_masks=False))
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
            "model": self.engine.status,
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
        jobs = {region.id: self._submit(region, interaction, project) for region in interaction.regions}
        if self._waiters.acquire(blocking=False):
            try:
                self._runner.wait([job for job in jobs.values() if isinstance(job, Job)], deadline - time.monotonic())
            finally:
                self._waiters.release()
        outcomes = {name: job.error or job if isinstance(job, Job) else job for name, job in jobs.items()}
        errors = [outcome for outcome in outcomes.values() if isinstance(outcome, BackendError)]
        if not outcomes:
            return []
        if len(errors) == len(outcomes):
            raise errors[0]
        answers = [self._answered(region, outcomes[region.id], interaction) for region in interaction.regions]
        scores = [answer[0]["score"] for answer in answers if "score" in answer[0]]
        score = sum(scores) / len(scores) if scores else 0.0
        result = [one for answer in answers for one in answer]
        return [{"result": result, "score": round(score, 4), "model_version": self.model_version}]

    def _submit(self, region: Region, interaction: Interaction, project: str) -> Job[Tracking] | BackendError | None:
        """The job that tracks a region; None where nothing of it is left to track."""
        cut = segments.cut(region, self.settings.direction)
        if not any(segment.is_tracked for segment in cut):
            return None
        if self.engine.status.startswith(FAILED):  # before a video is fetched for nothing
            return SettingsError(self.engine.status.removeprefix(FAILED))
        with self._lock:
            client = self._client or self._clients.get(project)

        def video(cancelled: Callable[[], bool]) -> Video:
            path = self._media.fetch(interaction.url, client, cancelled)
            try:
                return Video(path, self._video_limits)
            except BadVideo:
                self._media.forget(path)
                raise

        def make() -> Tracking:
            return Tracking(
                region,
                cut,
                framerate=interaction.framerate,
                max_frames=self.settings.max_frames,
                bound=self.settings.keyframes.iou,
                engine=self.engine,
                video=video,
            )

        try:
            return self._runner.submit((interaction.task, region.id), self._digest(region, interaction), make)
        except Busy as busy:
            return busy

    def _digest(self, region: Region, interaction: Interaction) -> str:
        """What makes two prompts the same. The label is left out: a box is followed alike whatever it is called."""
        settings = self.settings
        parts = [interaction.url, interaction.framerate, self.model_version, settings.direction, settings.max_frames]
        parts += [item.fingerprint for item in region.humans]
        return hashlib.sha256("|".join(map(str, parts)).encode(errors="replace")).hexdigest()

    def _answered(
        self, region: Region, outcome: Job[Tracking] | BackendError | None, interaction: Interaction
    ) -> list[dict[str, Any]]:
        labels, framerate = interaction.classes[region.id], interaction.framerate
        if isinstance(outcome, BackendError):
            return regions.refusal(region, labels, framerate, str(outcome))
        # Asked before the frames are looked at: it may end in between, and then they would lack some.
        partial = outcome.work.progress() if outcome and outcome.state != "done" else None
        if outcome:
            ours, score = outcome.work.answer()
        else:
            ours, score = segments.kept(segments.cut(region, self.settings.direction)), region.score
        return regions.answer(
            region,
            [*region.humans, *ours],
            framerate=framerate,
            labels=labels,
            track_id=self._track_id(region, interaction),
            engine=self._engine_now(),
            score=score,
            partial=partial,
        )

    def _engine_now(self) -> str:
        """Its name, and what it is waited for where its model is not ready."""
        status = self.engine.status
        return self.engine.name if status == "ready" else f"{self.engine.name} is {status}"

    def _track_id(self, region: Region, interaction: Interaction) -> int:
        """The region's number, or the next one that the task has not seen."""
        with self._lock:
            known = self._track_ids.get(interaction.task, {})
            others = {number for name, number in known.items() if name != region.id}
            if region.track_id is not None and region.track_id not in others:
                known[region.id] = region.track_id
            elif region.id not in known:
                known[region.id] = 1 + max([0, *others, *interaction.track_ids])
            _remember(self._track_ids, interaction.task, known)
            return known[region.id]


def _remember(table: OrderedDict[str, V], key: str, value: V) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > _REMEMBERED:
        table.popitem(last=False)
