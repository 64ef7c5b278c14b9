"""The jobs as `http/static/status.js` shows them: state, speed, time left, and the newest picture."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from backend import __version__
from backend.errors import BackendError, BadRequest, Unsupported, one_line
from backend.jobs.job import Job
from backend.jobs.job_log import JobLog
from backend.jobs.metrics import Metrics
from backend.jobs.scheduler import Scheduler
from backend.jobs.worker_client import WorkerClient
from backend.jobs.worker_pool import WorkerPool
from backend.tracks import overlay
from backend.video import SharedVideo, Video, encode_jpeg

_MAX_JOBS = 100
"""How many jobs are listed."""
_PICTURE_WIDTH = 640
"""Pixels; larger pictures are scaled down."""
_CACHE_GAUGES = {
    "frames": "Frames that the engine's cache holds",
    "hits": "Frames that were taken from the cache since the engine's start",
    "misses": "Frames that were not in the cache, so that the vision model ran",
    "device_bytes": "The device's memory that the cache uses",
    "host_bytes": "The machine's memory that the cache uses",
}
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""


class JobStatus:
    """What the status page shows and can do.

    Args:
        open_video: opens a job's file.
        task_url: of a project's task in Label Studio; None if Label Studio's address is unknown.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        pool: WorkerPool,
        metrics: Metrics,
        open_video: Callable[[Path], Video],
        task_url: Callable[[str, str], str | None],
    ) -> None:
        self._scheduler, self._pool, self._metrics = scheduler, pool, metrics
        self._task_url = task_url
        self._log = JobLog()
        # The video whose pictures are on show.
        self._shared_video = SharedVideo(open_video)
        metrics.add_gauge("jobs_waiting", "Jobs that wait", lambda: scheduler.counts()["waiting"])
        metrics.add_gauge("jobs_running", "Jobs that run", lambda: scheduler.counts()["running"])
        self._add_worker_gauges(pool)

    def _add_worker_gauges(self, pool: WorkerPool) -> None:
        gauges: dict[tuple[str, str], Callable[[WorkerClient], float]] = {
            (f"cache_{name}", description): partial(_cache_value, name=name)
            for name, description in _CACHE_GAUGES.items()
        }
        gauges["device_memory_bytes", "Used memory of the device"] = _memory_value
        gauges["device_ready", "Whether the model is loaded"] = _is_ready
        for (name, description), read in gauges.items():
            values = {worker.device: partial(read, worker) for worker in pool.workers}
            self._metrics.add_labelled_gauge(name, description, "worker", values)

    def close(self) -> None:
        """Close the open video."""
        self._shared_video.close()
        self._log.close()

    def overview(self) -> dict[str, Any]:
        """The engine, its workers with the numbers of their jobs, and the newest jobs, newest first."""
        pool, running = self._pool, self._scheduler.running()
        workers = [
            one | {"jobs": [job.number for job in running if job.worker == one["device"]]}
            for one in pool.describe_workers()
        ]
        return {
            "version": __version__,
            "engine": pool.name,
            "model": pool.model_version,
            "status": pool.status,
            "workers": workers,
            "trouble": one_line(trouble) if (trouble := self._scheduler.trouble) else None,
            **self._scheduler.counts(),
            "jobs": [self._describe(job) for job in self._scheduler.jobs(_MAX_JOBS)],
        }

    def job(self, number: int) -> dict[str, Any] | None:
        """One job, with the log's lines about it; None: there is no job with this number."""
        job = self._scheduler.job(number)
        return self._describe(job) | {"log": self._log.lines(number)} if job else None

    def cancel(self, number: int) -> bool:
        """Stop a job and keep its results; False: there is no job with this number."""
        return self._scheduler.cancel(number)

    def resume(self, number: int) -> bool:
        """Continue a job that was cancelled or failed; False: there is no job with this number."""
        return self._scheduler.resume(number)

    def metrics(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return self._metrics.text()

    def newest_frame(self, number: int) -> int | None:
        """The source frame that `picture` would show."""
        job = self._scheduler.job(number)
        resolved = job.resolved if job and job.video_path and not job.has_ended else None
        return resolved.propagation.newest_frame if resolved else None

    def picture(self, number: int) -> bytes | None:
        """A running job's newest frame with its boxes and masks, as JPEG; None: there is no such job or picture."""
        job, newest = self._scheduler.job(number), self.newest_frame(number)
        resolved = job.resolved if job else None
        if not job or not job.video_path or not resolved or newest is None:
            return None
        try:
            with self._shared_video.open(job.video_path) as video:
                picture = video.read(newest)
        except BackendError:
            return None
        phrases, classes = resolved.propagation.track_phrases, ", ".join(job.row.spec.classes)
        entries = [
            overlay.CaptionedTrack(place, phrases.get(name, classes), track)
            for place, (name, track) in enumerate(resolved.propagation.tracks().items(), 1)
        ]
        drawn = overlay.draw_frame(picture, newest, entries)
        return encode_jpeg(drawn, _PICTURE_WIDTH)

    def _describe(self, job: Job) -> dict[str, Any]:
        row, spec, (done, total) = job.row, job.row.spec, job.progress()
        resolved = None if job.has_ended else job.resolved
        fps = job.throughput.fps if job.state == "running" else 0.0
        return {
            "id": job.number,
            "state": job.state,
            "phase": "posting" if job.state == "done" and row.post and not row.posted else job.phase,
            "kind": "labels" if row.batch else spec.kind,
            "what": ", ".join(spec.phrases or spec.classes),
            "clip": _clip_name(spec.url),
            "user": spec.user,
            "task": spec.task,
            "project": spec.project,
            "task_url": self._task_url(spec.project, spec.task),
            "done": done,
            "total": total,
            "tracks": resolved.propagation.track_count if resolved else row.track_count,
            "together": job.companions,
            "worker": job.worker or None,
            "fps": round(fps, 2) or None,
            "left_s": round(job.frames_left / fps) if fps else None,
            "error": str(job.error) if job.error else None,
            "damage": job.damage or None,
            "stall": job.stall or None,
            "resumable": _is_resumable(job),
            "batch": row.batch,
            "asked": row.created_at,
            "ended": job.ended_at,
            "picture": resolved.propagation.newest_frame if resolved else None,
        }


def _cache_value(worker: WorkerClient, name: str) -> float:
    return float(getattr(worker.cache, name, 0))


def _memory_value(worker: WorkerClient) -> float:
    return float((worker.memory or (0, 0))[0])


def _is_ready(worker: WorkerClient) -> bool:
    return worker.status == "ready"


def _clip_name(url: str) -> str:
    """The name of a video's file, as the person who uploaded it knows it."""
    parts = urlsplit(url)
    path = dict(parse_qsl(parts.query)).get("d") or parts.path
    return _UPLOAD_PREFIX.sub("", PurePosixPath(unquote(path)).name)


def _is_resumable(job: Job) -> bool:
    """Whether the same prompt may get further: what was wrong was not the prompt, and none has taken its place."""
    if job.state == "cancelled":
        return job.error is None
    return job.state == "failed" and not isinstance(job.error, BadRequest | Unsupported)
