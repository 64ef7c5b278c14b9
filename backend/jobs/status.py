"""The jobs as people look at them: what each is at, how fast it is, how long it will take, and its newest picture."""

from collections.abc import Callable
from typing import Any

from backend import __version__
from backend.errors import BackendError
from backend.jobs.job import Job
from backend.jobs.metrics import Metrics
from backend.jobs.scheduler import Runner
from backend.jobs.worker_client import Device
from backend.tracks import overlay
from backend.video import Held, VideoLimits, jpeg

_LISTED = 100
_WIDTH = 640
"""Pixels to which a picture is made smaller."""


class Board:
    """What the status page shows and can do; see `backend.http.jobs_page.Board`.

    Args:
        address: of a task in Label Studio, by project and task; None where Label Studio's is not known.
    """

    def __init__(
        self,
        runner: Runner,
        device: Device,
        metrics: Metrics,
        limits: VideoLimits,
        address: Callable[[str, str], str | None],
    ) -> None:
        self._runner, self._device, self._metrics = runner, device, metrics
        self._address = address
        # For the pictures of the job that somebody looks at.
        self._held = Held(limits)
        metrics.show("jobs_waiting", "Jobs that wait", lambda: runner.counts()["waiting"])
        metrics.show("jobs_running", "Jobs that run", lambda: runner.counts()["running"])
        metrics.show("device_memory_bytes", "Memory of the device in use", lambda: (device.memory or (0, 0))[0])
        metrics.show("device_ready", "Whether the model is loaded", lambda: device.status == "ready")

    def close(self) -> None:
        """Close the file that is held open."""
        self._held.close()

    def overview(self) -> dict[str, Any]:
        """The engine, its memory, and the newest jobs, the newest first."""
        device = self._device
        memory = dict(zip(("used", "total"), device.memory, strict=True)) if device.memory else None
        return {
            "version": __version__,
            "engine": device.name,
            "model": f"{device.name}-{device.version}",
            "status": device.status,
            "memory": memory,
            **self._runner.counts(),
            "jobs": [self._shown(job) for job in self._runner.jobs(_LISTED)],
        }

    def job(self, number: int) -> dict[str, Any] | None:
        """One job; None: there is none of this number."""
        job = self._runner.job(number)
        return self._shown(job) if job else None

    def cancel(self, number: int) -> bool:
        """Stop a job and keep what it has computed; False: there is none of this number."""
        return self._runner.cancel(number)

    def resume(self, number: int) -> bool:
        """Let a job go on where it stopped; False: there is none of this number."""
        return self._runner.resume(number)

    def metrics(self) -> bytes:
        """Prometheus' text format."""
        return self._metrics.text()

    def _shown(self, job: Job) -> dict[str, Any]:
        recipe, (done, total) = job.kept.recipe, job.progress()
        plan = None if job.has_ended else job.plan
        pace = job.pace.frames if job.state == "running" else 0.0
        return {
            "id": job.number,
            "state": job.state,
            "phase": "posting" if job.state == "done" and job.kept.post and not job.kept.posted else job.phase,
            "kind": "labels" if job.kept.batch else recipe.kind,
            "what": ", ".join(recipe.phrases),
            "task": recipe.task,
            "project": recipe.project,
            "task_url": self._address(recipe.project, recipe.task),
            "done": done,
            "total": total,
            "tracks": plan.propagations.count if plan else job.kept.tracks,
            "fps": round(pace, 2) or None,
            "left_s": round((total - done) / pace) if pace else None,
            "error": str(job.error) if job.error else None,
            "batch": job.kept.batch,
            "asked": job.kept.asked,
            "ended": job.ended_at,
            "picture": plan.propagations.newest if plan else None,
        }

    def picture(self, number: int) -> bytes | None:
        """A running job's newest frame with its boxes and masks, as JPEG; None: there is no job or no picture."""
        job = self._runner.job(number)
        plan = job.plan if job and not job.has_ended else None
        if not job or not job.path or not plan or (newest := plan.propagations.newest) is None:
            return None
        try:
            with self._held.open(job.path) as video:
                picture = video.read(newest)
        except BackendError:
            return None
        tracks = plan.propagations.tracks()
        drawn = overlay.drawn(picture, newest, {str(which): one for which, one in enumerate(tracks.values(), 1)})
        return jpeg(drawn, _WIDTH)
