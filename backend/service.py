"""What one process serves: its engine and runner, the Label Studios that ask, and an answer to each request."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from backend import __version__, engines
from backend.concurrency import ConcurrencyLimit
from backend.errors import BackendError, BadRequest, one_line
from backend.jobs.status import JobStatus
from backend.jobs.worker_client import WorkerClient, process_launcher
from backend.labelstudio.frame_strip import Signer
from backend.labelstudio.label_config import parse_label_config
from backend.labelstudio.request import parse_prompt_field, parse_request
from backend.labelstudio.videos import frame_reader
from backend.predict.handler import PredictHandler
from backend.predict.preannotation import OFF, Preannotation
from backend.predict.request_context import RequestContext, Tools
from backend.predict.response_cache import ResponseCache
from backend.settings import Settings
from backend.track_editor.view import TrackEditorView
from backend.tracks import keyframe_selection
from backend.video import VideoLimits, encode_jpeg

log = logging.getLogger(__name__)

_PICTURES = 8
"""How many pictures of strips are made at once."""


class Service:
    """One per process: the engine, its runner, and what is known of the Label Studios that ask.

    Raises:
        SettingsError: the engine that the settings name cannot run here.
    """

    def __init__(self, settings: Settings, worker: WorkerClient | None = None) -> None:
        self.settings = settings
        self._signer = Signer.from_settings(settings)
        self._worker = worker or _worker_client(settings)
        self.tools = Tools(settings, self._worker)
        self._cache = ResponseCache(self.tools.store)
        self._pictures = ConcurrencyLimit(_PICTURES)
        self.preannotation = Preannotation(self.tools)
        limits = VideoLimits.from_settings(settings)
        self.job_status = JobStatus(self.tools.scheduler, self._worker, self.tools.metrics, limits, self._task_url)
        self.track_editor = TrackEditorView(
            settings.data_dir.expanduser(), self.tools.videos, self.tools.connections.require_client
        )
        # The model loads at once, and what is compiled is: the first annotator is not to wait for it.
        self._worker.start()
        threading.Thread(target=keyframe_selection.compile_selection, name="compiler", daemon=True).start()
        self.model_version = self.tools.model_version

    def close(self) -> None:
        """Save what runs and end the worker."""
        self.preannotation.close()
        self.tools.scheduler.close()
        self.job_status.close()
        self.tools.videos.close()

    def _task_url(self, project: str, task: str) -> str | None:
        """A task's page, for who may reach Label Studio as we do."""
        client = self.tools.connections.client(project)
        known = client is not None and project.isdecimal() and task.isdecimal()
        return f"{client.url}/projects/{project}/data?task={task}" if client and known else None

    @property
    def status(self) -> str:
        """How far the model is; see the contract of engines."""
        return self._worker.status

    def health(self) -> dict[str, Any]:
        """What runs, and with which settings."""
        return {
            "status": "UP",
            "model_class": "Sam3Backend",
            "version": __version__,
            "model_version": self.model_version,
            "engine": self._worker.name,
            "model": self._worker.status,
            "jobs": self.tools.scheduler.counts(),
            "settings": self.settings.shown(),
        }

    def connect(self, project: str, hostname: str, token: str) -> None:
        """Take note of a project's Label Studio; without an address, of nothing. Settings count for more than this."""
        self.tools.connections.connect(project, hostname, token)

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
            config = parse_label_config(xml)
            log.info("project %s can be prompted with %s", project, "; ".join(config.describe()))
        except BadRequest as error:
            log.warning("project %s: %s", project, error)
        return self.model_version

    def train(self, project: Mapping[str, Any]) -> None:
        """Somebody pressed "Start training": the project's tasks are annotated ahead, where `pre_annotate` says so."""
        number, source = project.get("id"), self.settings.pre_annotate
        if isinstance(number, int) and source != OFF:
            xml = str(project.get("label_config") or "")
            threading.Thread(target=self._annotate, args=(number, xml, source), name="annotate", daemon=True).start()

    def _annotate(self, project: int, xml: str, source: str) -> None:
        try:
            client = self.tools.connections.require_client(str(project))
            count = 0
            for task in client.tasks(project):
                if not self.preannotation.has_prediction(
                    client, task["id"], self.preannotation.phrases(task, xml, source)
                ):
                    count += self.preannotation.try_queue(task, xml, str(project), source) is not None
            log.info("project %d: %d tasks are annotated ahead", project, count)
        except BackendError as error:
            log.warning("project %d is not annotated ahead: %s", project, one_line(error))

    def frame(self, key: str, number: int) -> bytes:
        """An LS frame of the video that a signed key names, as JPEG.

        Raises:
            BackendError: the key is not ours, or the video cannot be had or has no such frame.
            Busy: too many are asked for.
        """
        url, framerate = self._signer.video(key)
        with self._pictures, self.tools.videos.open(url, self.tools.connections.default_client) as video:
            return encode_jpeg(frame_reader(video, framerate)(number))

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None, xml: str, project: str
    ) -> list[Any]:
        """Answer one request within `response_timeout` seconds with what is known by then.

        Label Studio shows nobody an error: where the config has a line for words, what went wrong is answered there.

        Args:
            tasks: as Label Studio sends them; with a context it sends one.
            context: what the person did, or None for pre-annotation.
            xml: the label config.
            project: the project's id.

        Returns:
            Predictions for the tasks; empty where there is nothing to say, as is the place of a single task.

        Raises:
            BackendError: none of what was asked for can be done, and there is no line to say so.
        """
        deadline = time.monotonic() + self.settings.response_timeout
        if not context:
            return self.preannotation.predict(tasks, xml, project)
        with self.tools.metrics.predict_seconds.time():
            return self._interactive(tasks, context, xml, project, deadline)

    def _interactive(
        self,
        tasks: Sequence[Mapping[str, Any]],
        context: Mapping[str, Any],
        xml: str,
        project: str,
        deadline: float,
    ) -> list[dict[str, Any]]:
        config = parse_label_config(xml)
        try:
            interaction = parse_request(tasks, context, config)
            result = PredictHandler(RequestContext(self.tools, self._cache, interaction, config, project)).handle(
                deadline
            )
        except BackendError as error:
            line = parse_prompt_field(tasks, context, config)
            if line is None:
                raise
            log.warning("told in the line for words: %s", one_line(error))
            result = [line.to_result(f"not done: {error}")]
        scores = [one["score"] for one in result if "score" in one]
        score = sum(scores) / len(scores) if scores else 0.0
        return [{"result": result, "score": round(score, 4), "model_version": self.model_version}] if result else []


def _worker_client(settings: Settings) -> WorkerClient:
    name, version = engines.identify_engine(settings)
    launch = process_launcher(partial(engines.load_engine, settings), settings.log_level)
    return WorkerClient(launch, name, version, settings.limits.worker_timeout)
