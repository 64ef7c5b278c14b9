"""Builds everything that one process serves, and answers the requests of the HTTP routes and of label-studio-ml."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from backend import __version__, engines
from backend.concurrency import ConcurrencyLimit
from backend.datasets.downloads import DatasetDownloads
from backend.errors import BackendError, BadRequest, SettingsError, one_line
from backend.interactive.sessions import InteractiveSessions
from backend.jobs.job import Job
from backend.jobs.metrics import Metrics
from backend.jobs.scheduler import Scheduler
from backend.jobs.spec import JobSpec
from backend.jobs.status import JobStatus
from backend.jobs.store import Store
from backend.jobs.task_status import TaskStatus, TaskStatusReader
from backend.jobs.worker_client import WorkerClient
from backend.jobs.worker_launcher import process_launcher
from backend.jobs.worker_pool import WorkerPool
from backend.labelstudio.frame_strip import Signer
from backend.labelstudio.interactive_event import is_event
from backend.labelstudio.label_config import parse_label_config
from backend.labelstudio.region_results import format_prediction
from backend.labelstudio.request import parse_prompt_field, parse_request, task_id
from backend.labelstudio.videos import TaskVideos, frame_reader
from backend.predict.connections import Connections
from backend.predict.handler import PredictHandler
from backend.predict.interactive_events import InteractiveEvents
from backend.predict.keyframe_chooser import KeyframeChooser
from backend.predict.preannotation import Preannotation
from backend.predict.request_context import RequestContext
from backend.predict.response_cache import ResponseCache
from backend.prompting.view import PromptingView
from backend.settings import Settings
from backend.track_editor.view import TrackEditorView
from backend.tracks import keyframe_selection
from backend.video import encode_jpeg
from backend.xanylabeling.upload_sessions import UploadSessions

log = logging.getLogger(__name__)

_MAX_PICTURES = 8
"""How many pictures of frame strips are made at once."""


class Service:
    """One per process: it owns the workers, the jobs and the videos.

    Raises:
        SettingsError: the engine cannot run here, or jobs cannot be kept in `data_dir`.
    """

    def __init__(self, settings: Settings, pool: WorkerPool | None = None) -> None:
        self.settings = settings
        self.signer = Signer.from_settings(settings)
        self._pool = pool or make_workers(settings)
        self.model_version = self._pool.model_version
        self._videos = TaskVideos(settings, is_server=True)
        data_dir, limits = settings.data_dir.expanduser(), settings.limits
        self.store = Store(data_dir / "jobs.sqlite3", limits.store, limits.retention_days)
        self.connections = Connections(settings, self.store)
        self._metrics = Metrics()
        self._post_due = threading.Event()
        self._chooser = KeyframeChooser(settings)
        self.scheduler = Scheduler(
            self._pool,
            self.store,
            self._fetch_video,
            self._videos.forget,
            self._videos.limits,
            queue=limits.queue,
            metrics=self._metrics,
            masks=settings.keeps_masks,
            on_done=self._handle_done,
        )
        self._chooser.start(self.scheduler)
        self.interactive = InteractiveSessions(self._pool, self.scheduler, self._videos, self.connections.client)
        self.uploads = UploadSessions(self._pool.name, self._videos.uploads, self.interactive, self.scheduler)
        model = self._pool.name, self._pool.version
        self._events = InteractiveEvents(settings, self.interactive, self.scheduler, model)
        self._cache = ResponseCache(self.store)
        self.prompting = PromptingView(
            self.interactive,
            self.scheduler,
            self.store.records,
            self._videos,
            self.connections.require_client,
            settings,
            self._pool.describe_engine,
        )
        self._pictures = ConcurrencyLimit(_MAX_PICTURES)
        self.preannotation = Preannotation(
            settings, self._pool, self.store, self.scheduler, self.connections, self._post_due
        )
        self.job_status = JobStatus(
            self.scheduler, self._pool, self._metrics, self._videos.open_file, self.connections.task_url
        )
        self.task_status = TaskStatusReader(self.scheduler, self._pool)
        self.track_editor = TrackEditorView(data_dir, self._videos, self.connections.require_client)
        self.downloads = DatasetDownloads(self.connections.require_client, self._videos, data_dir)
        # Load the model and compile now, so that the first annotator does not wait for it.
        self._pool.start()
        threading.Thread(target=keyframe_selection.compile_selection, name="compiler", daemon=True).start()

    def answer_waiters(self) -> None:
        """Answer requests that wait for jobs, and those that come, with what is there."""
        self.scheduler.stop_waiting()

    def close(self) -> None:
        """Save the running jobs, end the workers and close all files."""
        self.preannotation.close()
        self.interactive.close_all()
        self._chooser.close()
        self.scheduler.close()
        self.job_status.close()
        self._videos.close()

    def _fetch_video(self, spec: JobSpec, cancelled: Callable[[], bool]) -> Path:
        return self._videos.fetch(spec.url, self.connections.client(spec.project), cancelled)

    def _handle_done(self, job: Job) -> None:
        self._chooser.add(job)
        if job.row.post:
            self._post_due.set()

    @property
    def status(self) -> str:
        """The engine's status, as `backend.engines.base` defines it."""
        return self._pool.status

    def check_engine(self) -> None:
        """Raises SettingsError if no worker could load the model."""
        self._pool.check_engine()

    def health(self) -> dict[str, Any]:
        """The model, its status, the workers, the number of jobs, and the settings without secrets."""
        return {
            "status": "UP",
            "model_class": "Sam3Backend",
            "version": __version__,
            "model_version": self.model_version,
            "engine": self._pool.name,
            "model": self._pool.status,
            "workers": self._pool.describe_workers(),
            "jobs": self.scheduler.counts(),
            "storage": one_line(trouble) if (trouble := self.scheduler.trouble) else self.store.repaired or "ok",
            "settings": self.settings.shown(),
        }

    def setup(self, project: str, xml: str, hostname: str, token: str) -> str:
        """Connect a project, and log what can be prompted with its label config.

        Args:
            project: its id.
            xml: its label config; empty: there is none yet.
            hostname: Label Studio's address.
            token: Label Studio's token to fetch files with.

        Returns:
            The model version.
        """
        self.connections.connect(project, hostname, token)
        try:
            config = parse_label_config(xml)
            log.info("project %s can be prompted with %s", project, "; ".join(config.describe()))
        except BadRequest as error:
            log.warning("project %s: %s", project, error)
        return self.model_version

    def frame(self, key: str, number: int) -> bytes:
        """An LS frame, as JPEG, of the video that a signed key names.

        Raises:
            BackendError: the key is invalid, the video cannot be fetched, or it has no such frame.
            Busy: too many pictures are requested at once.
        """
        url, framerate = self.signer.video(key)
        with self._pictures, self._videos.open(url, self.connections.default_client) as video:
            return encode_jpeg(frame_reader(video, framerate)(number))

    def panel(self, key: str) -> Callable[[], TaskStatus]:
        """A function that reads the status of the task that a panel's signed key names.

        Raises:
            BackendError: the key is not ours.
        """
        return partial(self.task_status.read, self.signer.task(key))

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None, xml: str, project: str
    ) -> list[Any]:
        """Answer a request within `response_timeout` seconds, with the results that are computed by then.

        Label Studio does not show errors to annotators: if the label config has a control for text prompts, the error
        is written into it.

        Args:
            tasks: as Label Studio sends them; an interactive request has one.
            context: what the annotator did; None: a request for predictions.
            xml: the label config.
            project: the project's id.

        Returns:
            One prediction per task; empty if there are none. A task without a prediction has an empty list.

        Raises:
            BackendError: nothing of the request can be done, and the config has no control for text prompts.
        """
        deadline = time.monotonic() + self.settings.response_timeout
        if not context:
            return self.preannotation.predict(tasks, xml, project)
        if is_event(context):
            return [self._events.answer(tasks, context, xml, project) | {"model_version": self.model_version}]
        with self._metrics.predict_seconds.time():
            return self._predict_interactive(tasks, context, xml, project, deadline)

    def _predict_interactive(
        self,
        tasks: Sequence[Mapping[str, Any]],
        context: Mapping[str, Any],
        xml: str,
        project: str,
        deadline: float,
    ) -> list[dict[str, Any]]:
        config = parse_label_config(xml)
        prompt_field = parse_prompt_field(tasks, context, config)
        task = project, task_id(tasks)
        try:
            request = parse_request(tasks, context, config, prompt_field)
            results = PredictHandler(
                RequestContext(self.settings, self._pool, self.scheduler, self._cache, request, config, project)
            ).handle(deadline)
        except BackendError as error:
            self.task_status.record_answer(task, error)
            if prompt_field is None:
                raise
            log.warning("the control for text prompts shows an error: %s", one_line(error))
            results = [self._cache.answer_prompt_field(task_id(tasks), prompt_field, f"not done: {error}")]
        else:
            self.task_status.record_answer(task)
        return [format_prediction(results, self.model_version)] if results else []


def make_workers(settings: Settings) -> WorkerPool:
    """The workers that the settings name.

    Raises:
        SettingsError: the engine cannot run here, or there is no Ray cluster.
    """
    engine = engines.identify_engine(settings)
    without_secrets = replace(settings, label_studio_api_key="", basic_auth_user="", basic_auth_pass="")
    return (_ray_pool if settings.workers == "ray" else _local_pool)(without_secrets, engine)


def _local_pool(settings: Settings, engine: tuple[str, str]) -> WorkerPool:
    """A process for each device; they share the memory that the cache may use, and the cores."""
    devices, limits = engines.list_devices(settings), settings.limits

    def worker(device: str, place: int) -> WorkerClient:
        load = partial(engines.load_engine, replace(settings, device=device), sharers=len(devices))
        launch = process_launcher(load, settings.log_level)
        label = f"{device} #{place}" if devices.count(device) > 1 else device
        return WorkerClient(launch, *engine, limits.worker_timeout, limits.loading_timeout, label)

    return WorkerPool([worker(device, place) for place, device in enumerate(devices, 1)])


def _ray_pool(settings: Settings, engine: tuple[str, str]) -> WorkerPool:
    """Actors of a Ray cluster."""
    try:
        from backend.jobs import ray_link
    except ImportError as error:
        raise SettingsError("workers: ray needs Ray: pip install 'sam3-backend[ray]', or set workers: local") from error
    limits, options = settings.limits, settings.ray
    ray_link.connect(options)
    load = partial(engines.load_same_engine, settings, *engine)
    launch = ray_link.ray_launcher(load, settings.log_level, options, limits.media)
    workers = [
        WorkerClient(launch, *engine, limits.worker_timeout, limits.loading_timeout, f"ray #{number}")
        for number in range(1, options.max + 1)
    ]
    return WorkerPool(workers, least=options.min, release=ray_link.disconnect)
