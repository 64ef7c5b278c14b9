"""The jobs as people look at them: what each is at, how fast it is, how long it will take, and its newest picture."""

from collections.abc import Callable
from typing import Any

from backend import __version__
from backend.errors import BackendError
from backend.jobs.job import Job
from backend.jobs.metrics import Metrics
from backend.jobs.scheduler import Scheduler
from backend.jobs.worker_client import WorkerClient
from backend.tracks import overlay
from backend.video import Held, VideoLimits, jpeg

_LISTED = 100
_WIDTH = 640
"""Pixels to which a picture is made smaller."""


class JobStatus:
    """What the status page shows and can do; see `backend.http.jobs_page.Board`.

    Args:
        address: of a task in Label Studio, by project and task; None where Label Studio's is not known.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        worker: WorkerClient,
        metrics: Metrics,
        limits: VideoLimits,
        address: Callable[[str, str], str | None],
    ) -> None:
        self._scheduler, self._worker, self._metrics = scheduler, worker, metrics
        self._address = address
        # For the pictures of the job that somebody looks at.
        self._held = Held(limits)
        metrics.add_gauge("jobs_waiting", "Jobs that wait", lambda: scheduler.counts()["waiting"])
        metrics.add_gauge("jobs_running", "Jobs that run", lambda: scheduler.counts()["running"])
        metrics.add_gauge("device_memory_bytes", "Memory of the device in use", lambda: (worker.memory or (0, 0))[0])
        metrics.add_gauge("device_ready", "Whether the model is loaded", lambda: worker.status == "ready")

    def close(self) -> None:
        """Close the file that is held open."""
        self._held.close()

    def overview(self) -> dict[str, Any]:
        """The engine, its memory, and the newest jobs, the newest first."""
        device = self._worker
        memory = dict(zip(("used", "total"), device.memory, strict=True)) if device.memory else None
        return {
            "version": __version__,
            "engine": device.name,
            "model": f"{device.name}-{device.version}",
            "status": device.status,
            "memory": memory,
            **self._scheduler.counts(),
            "jobs": [self._describe(job) for job in self._scheduler.jobs(_LISTED)],
        }

    def job(self, number: int) -> dict[str, Any] | None:
        """One job; None: there is none of this number."""
        job = self._scheduler.job(number)
        return self._describe(job) if job else None

    def cancel(self, number: int) -> bool:
        """Stop a job and keep what it has computed; False: there is none of this number."""
        return self._scheduler.cancel(number)

    def resume(self, number: int) -> bool:
        """Let a job go on where it stopped; False: there is none of this number."""
        return self._scheduler.resume(number)

    def metrics(self) -> bytes:
        """Prometheus' text format."""
        return self._metrics.text()

    def _describe(self, job: Job) -> dict[str, Any]:
        recipe, (done, total) = job.row.spec, job.progress()
        plan = None if job.has_ended else job.resolved
        pace = job.throughput.fps if job.state == "running" else 0.0
        return {
            "id": job.number,
            "state": job.state,
            "phase": "posting" if job.state == "done" and job.row.post and not job.row.posted else job.phase,
            "kind": "labels" if job.row.batch else recipe.kind,
            "what": ", ".join(recipe.phrases),
            "task": recipe.task,
            "project": recipe.project,
            "task_url": self._address(recipe.project, recipe.task),
            "done": done,
            "total": total,
            "tracks": plan.propagation.track_count if plan else job.row.track_count,
            "fps": round(pace, 2) or None,
            "left_s": round((total - done) / pace) if pace else None,
            "error": str(job.error) if job.error else None,
            "batch": job.row.batch,
            "asked": job.row.created_at,
            "ended": job.ended_at,
            "picture": plan.propagation.newest_frame if plan else None,
        }

    def picture(self, number: int) -> bytes | None:
        """A running job's newest frame with its boxes and masks, as JPEG; None: there is no job or no picture."""
        job = self._scheduler.job(number)
        plan = job.resolved if job and not job.has_ended else None
        if not job or not job.video_path or not plan or (newest := plan.propagation.newest_frame) is None:
            return None
        try:
            with self._held.open(job.video_path) as video:
                picture = video.read(newest)
        except BackendError:
            return None
        tracks = plan.propagation.tracks()
        drawn = overlay.drawn(picture, newest, {str(which): one for which, one in enumerate(tracks.values(), 1)})
        return jpeg(drawn, _WIDTH)
