"""`sam3-backend project annotate`: a project's videos gone through by words, and what is found becomes predictions.

Every task is a job on disk: broken off at any moment, the same command goes on where it was, and gives nothing twice.
With other words, what it finds takes the place of what it has given, and what was there keeps its number.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from typing import Any

from tqdm import tqdm

from backend.commands.console import tell
from backend.errors import BackendError, SettingsError, StudioError
from backend.jobs.job import Job
from backend.jobs.worker_client import WorkerClient
from backend.labelstudio.client import LabelStudioClient
from backend.predict.preannotation import PhraseSource
from backend.service import Service
from backend.settings import Settings

_LOOK = 0.2


def run(
    settings: Settings,
    project: int,
    source: PhraseSource,
    *,
    tasks: Collection[int] = (),
    view: int | None = None,
    limit: int | None = None,
    dry_run: bool = False,
    say: Callable[[str], None] = tell,
    device: WorkerClient | None = None,
) -> int:
    """Annotate the tasks of a project.

    Args:
        source: what to look for.
        tasks: their numbers; none: all.
        view: a tab of the Data Manager whose tasks are meant.
        limit: how many tasks at most.
        dry_run: only tell what would be done.
        say: is told what was done.
        device: what jobs run on; None: what the settings name.

    Returns:
        How many tasks have failed.

    Raises:
        BackendError: Label Studio cannot be asked, or the engine cannot run.
    """
    client = LabelStudioClient.from_settings(settings)
    xml = str(client.project(project).get("label_config") or "")
    chosen = [task for task in client.tasks(project, view) if not tasks or task["id"] in tasks]
    if missing := sorted(set(tasks) - {task["id"] for task in chosen}):
        raise SettingsError(f"project {project} has no task {missing[0]}: give numbers of its own tasks")
    with closing(Service(settings, device)) as service:
        todo = [task for task in chosen if not _is_done(service, client, task, xml, source)][:limit]
        say(f"{len(chosen)} tasks, {len(chosen) - len(todo)} left out or done, {len(todo)} to do")
        if dry_run:
            for task in todo:
                say(f"task {task['id']}: to do")
            return 0
        failed: dict[int, str] = {}
        jobs = _queued(service, todo, xml, str(project), source, failed)
        _watched(service, jobs)
        failed |= {number: str(job.error) for number, job in jobs.items() if job.error}
        failed |= {number: "cancelled" for number, job in jobs.items() if job.state == "cancelled"}
        say(f"{len(jobs) - len(failed.keys() & jobs.keys())} tasks annotated")
        for number, why in sorted(failed.items()):
            say(f"task {number}: failed: {' '.join(why.split())}")
    return len(failed)


def _is_done(
    service: Service, client: LabelStudioClient, task: Mapping[str, Any], xml: str, source: PhraseSource
) -> bool:
    return service.preannotation.has_prediction(client, task["id"], service.preannotation.phrases(task, xml, source))


def _queued(
    service: Service,
    tasks: Sequence[Mapping[str, Any]],
    xml: str,
    project: str,
    source: PhraseSource,
    failed: dict[int, str],
) -> dict[int, Job]:
    jobs = {}
    for task in tasks:
        try:
            jobs[task["id"]] = service.preannotation.queue(task, xml, project, source)
        except StudioError:
            raise
        except BackendError as error:
            failed[task["id"]] = str(error)
    return jobs


def _watched(service: Service, jobs: Mapping[int, Job]) -> None:
    """Show how far they are until all have ended and are posted."""
    numbers, left = {job.number for job in jobs.values()}, set(jobs)
    with tqdm(total=len(jobs), unit="task", smoothing=0) as bar:
        while left:
            ended = {task for task in left if jobs[task].has_ended}
            left -= ended
            bar.update(len(ended))
            running = next((job for job in jobs.values() if job.state == "running"), None)
            if running:
                done, total = running.progress()
                bar.set_postfix_str(
                    f"task {running.row.spec.task}: {done}/{total}, {running.throughput.fps:.1f} frames/s"
                )
            if left:
                time.sleep(_LOOK)
        while numbers & {kept.number for kept in service.tools.store.unposted()}:
            bar.set_postfix_str("waiting for Label Studio to take them")
            time.sleep(_LOOK)
