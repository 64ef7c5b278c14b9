"""What the backend does for one task, in a sentence: the live panel of the labelling page shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from backend.engines.base import FAILED_PREFIX
from backend.errors import one_line
from backend.jobs.job import Job, estimate_seconds
from backend.jobs.scheduler import Scheduler
from backend.jobs.spec import JobSpec
from backend.jobs.worker_pool import WorkerPool
from backend.recent_values import RecentValues

_MAX_TASKS = 4096
"""How many tasks' requests are remembered."""
TaskKey = tuple[str, str]
"""Ids of a project and of a task of it."""


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """What the backend does for one task.

    Attributes:
        text: one sentence, or two.
        progress: from 0 to 1; None: nothing runs whose end is known.
        running: number of the job that runs; None: none does.
    """

    text: str
    tone: Literal["idle", "busy", "done", "failed"] = "idle"
    progress: float | None = None
    running: int | None = None


class TaskStatusReader:
    """Describes tasks; reading one costs no more with thousands of jobs than with few."""

    def __init__(self, scheduler: Scheduler, pool: WorkerPool) -> None:
        self._scheduler, self._pool = scheduler, pool
        self._errors: RecentValues[str] = RecentValues(_MAX_TASKS)

    def record_answer(self, key: TaskKey, error: Exception | None = None) -> None:
        """Record that a request of this task was answered, or refused because of an error."""
        self._errors.put(key, one_line(error) if error else "")

    def read(self, key: TaskKey) -> TaskStatus:
        """The status of a task."""
        positions = {job: place for job, place in self._scheduler.task_jobs(*key) if not job.row.spec.is_class}
        jobs = [*positions]
        unfinished = [job for job in jobs if not job.has_ended]
        error = self._errors.get(key)
        if unfinished and (trouble := self._scheduler.trouble):
            return TaskStatus(f"Paused: {one_line(trouble)}.", "failed")
        if unfinished:
            return _describe_unfinished(unfinished, positions)
        if error:
            return TaskStatus(f"Not done: {error}", "failed")
        if jobs:
            return _describe_ended(jobs)
        status = self._pool.status
        if status == "ready":
            return TaskStatus(f"Ready ({self._pool.name}).")
        if status.startswith(FAILED_PREFIX):
            return TaskStatus(f"The model is not loaded: {status.removeprefix(FAILED_PREFIX)}", "failed")
        return TaskStatus(f"{self._pool.name} is {status}. You can ask already: it starts as soon as it is ready.")


def _describe_unfinished(jobs: Sequence[Job], positions: Mapping[Job, int]) -> TaskStatus:
    what = "1 object" if len(jobs) == 1 else f"{len(jobs)} objects"
    if any(job.row.spec.phrases for job in jobs):
        what = ", ".join(dict.fromkeys(kind for job in jobs for kind in _describe_kinds(job.row.spec)))
    running = next((job for job in jobs if job.state == "running"), None)
    if running is None:
        first = min(jobs, key=positions.__getitem__)
        if first.phase == "fetching":
            return TaskStatus(f"Fetching the video to track {what}.", "busy")
        place = positions[first]
        ahead = f"{place} {'job' if place == 1 else 'jobs'} ahead" if place else "next in line"
        return TaskStatus(f"Waiting to track {what}: {ahead}.", "busy")
    if running.stall:
        return TaskStatus(f"There is {running.stall}. It is tracking {what}.", "busy", None, running.number)
    done, total = (sum(counts) for counts in zip(*(job.progress() for job in jobs), strict=True))
    if running.phase not in ("tracking", "hot start") or not total:
        return TaskStatus(_describe_phase(running.phase, what), "busy", 0.0)
    seconds = estimate_seconds(jobs)
    left = "" if seconds is None else f", {_format_seconds(seconds)} left"
    text = f"Tracking {what}: {done} of {total} frames{left}."
    return TaskStatus(text, "busy", done / total, running.number)


def _describe_phase(phase: str, what: str) -> str:
    """What has to be done before frames come."""
    text = f"{phase[:1].upper()}{phase[1:]}" or "Starting"
    return f"{text}. Then it tracks {what}." if ": " in phase else f"{text}, to track {what}."


def _describe_kinds(spec: JobSpec) -> Sequence[str]:
    """What a job searches for."""
    return ["what is like an example"] if spec.exemplars else spec.phrases


def _describe_ended(jobs: Sequence[Job]) -> TaskStatus:
    """What came of a task's last job, and how to bring in what the page does not have yet."""
    last = max(jobs, key=lambda job: job.ended_at or 0)
    damage = f" But {last.damage}." if last.damage else ""
    missing = [job for job in jobs if job.state == "done" and not job.row.batch and not job.is_fetched]
    if missing:
        results, them = ("1 result is", "it") if len(missing) == 1 else (f"{len(missing)} results are", "them")
        gestures = dict.fromkeys(_fetch_gesture(job) for job in missing)
        text = f"Done: {results} not on the page yet. To bring {them}, {', and '.join(gestures)}.{damage}"
        return TaskStatus(text, "done", 1.0)
    done, total = last.progress()
    match last.state:
        case "failed":
            return TaskStatus(f"Not tracked: {one_line(last.error) if last.error else 'see the server log'}", "failed")
        case "cancelled":
            return TaskStatus(f"Stopped after {done} of {total} frames. What was tracked is kept.")
    return TaskStatus(f"Done: {done} of {total} frames.{damage}", "done")


def _fetch_gesture(job: Job) -> str:
    """How an annotator brings a result into the page; one gesture brings all results of its kind and class."""
    spec = job.row.spec
    if spec.phrases and not spec.exemplars:
        return "ask once more in the line for words"
    if not spec.classes:
        return "click on it once more" if spec.kind == "clicks" else "select its box and press t"
    return f"press t on a box of {', '.join(spec.classes)}"


def _format_seconds(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{round(seconds)} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
