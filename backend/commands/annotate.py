"""`sam3-backend project annotate`: find objects by text or examples in a project's videos, as predictions.

Each task is a job on disk: if the command is interrupted, run it again to continue, and no prediction is added twice.
With other phrases, the new prediction replaces the old one, and objects found before keep their ids and numbers.
"""

import argparse
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from typing import Any

from tqdm import tqdm

from backend.commands.arguments import (
    Subparsers,
    add_command,
    add_model_options,
    add_settings_options,
    add_workers_option,
    load_settings,
    parse_task_ids,
)
from backend.commands.console import describe_running, print_message, summarize
from backend.errors import BackendError, SettingsError, StudioError
from backend.jobs.job import Job
from backend.jobs.worker_pool import WorkerPool
from backend.labelstudio.client import LabelStudioClient
from backend.predict.phrase_sources import LikeRegions, PhraseSource
from backend.service import Service
from backend.settings import Settings

_POLL_SECONDS = 0.2


def add_parser(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = add_command(
        subparsers,
        "annotate",
        _run,
        summary="find objects by text or examples in a project's videos, as predictions",
        examples=(
            'sam3-backend project annotate --project 1 --text "red car, person"',
            "sam3-backend project annotate --project 1 --tasks 1,2,5..9 --dry-run",
        ),
    )
    parser.add_argument("--project", type=int, required=True, metavar="N", help="number of the project")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--labels", action="store_true", help="search for the project's labels (default)")
    source.add_argument("--text", metavar='"A, B"', help="search for these phrases")
    source.add_argument("--field", metavar="F", help="search for the phrases in this field of each task's data")
    source.add_argument(
        "--like-regions",
        metavar="LABEL",
        help="search for what is like the regions of this class in each task's newest annotation; tasks without one "
        "are skipped",
    )
    tasks = parser.add_mutually_exclusive_group()
    tasks.add_argument("--tasks", type=parse_task_ids, default=(), metavar="1,2,5..9", help="only these tasks")
    tasks.add_argument("--view", type=int, metavar="V", help="only the tasks of this tab of the Data Manager")
    parser.add_argument("--limit", type=int, metavar="M", help="maximum number of tasks")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be done")
    add_model_options(parser)
    add_workers_option(parser)
    add_settings_options(parser, "folder for videos and jobs; no server may use it at the same time")


def _run(options: argparse.Namespace) -> None:
    texts = (options.text or "").split(",")
    phrases = tuple(phrase for text in texts if (phrase := " ".join(text.split())))
    failed = run(
        load_settings(options, "engine", "model_path", "device", "workers", "data_dir"),
        options.project,
        LikeRegions(options.like_regions) if options.like_regions else phrases or options.field or "labels",
        tasks=options.tasks,
        view=options.view,
        limit=options.limit,
        dry_run=options.dry_run,
    )
    if failed:
        raise BackendError(f"{failed} tasks failed: see above")


def run(
    settings: Settings,
    project: int,
    source: PhraseSource,
    *,
    tasks: Collection[int] = (),
    view: int | None = None,
    limit: int | None = None,
    dry_run: bool = False,
    say: Callable[[str], None] = print_message,
    pool: WorkerPool | None = None,
) -> int:
    """Annotate the tasks of a project.

    Args:
        source: what to search for.
        tasks: numbers of the tasks; empty: all.
        view: a tab of the Data Manager; only its tasks are annotated.
        limit: maximum number of tasks.
        dry_run: only print what would be done.
        say: prints what was done.
        pool: runs the jobs; None: workers with the engine and the devices of the settings.

    Returns:
        The number of tasks that failed.

    Raises:
        BackendError: Label Studio does not answer, or the engine cannot run.
    """
    client = LabelStudioClient.connect(settings)
    xml = str(client.project(project).get("label_config") or "")
    chosen = [task for task in client.tasks(project, view) if not tasks or task["id"] in tasks]
    if missing := sorted(set(tasks) - {task["id"] for task in chosen}):
        raise SettingsError(f"project {project} has no task {missing[0]}: check --tasks")
    with closing(Service(settings, pool)) as service:
        todo = [task for task in chosen if not service.preannotation.is_annotated(client, task, xml, source)][:limit]
        say(f"{len(chosen)} tasks: {len(chosen) - len(todo)} done or skipped, {len(todo)} to do")
        if dry_run:
            for task in todo:
                say(f"task {task['id']}: to do")
            return 0
        failed: dict[int, str] = {}
        jobs = _queue_jobs(service, todo, xml, str(project), source, failed)
        _wait(service, jobs)
        failed |= {number: str(job.error) for number, job in jobs.items() if job.error}
        failed |= {number: "cancelled" for number, job in jobs.items() if job.state == "cancelled"}
        say(summarize("annotated", "task", len(jobs) - len(failed.keys() & jobs.keys()), len(failed)))
        for number, why in sorted(failed.items()):
            say(f"task {number}: failed: {' '.join(why.split())}")
    return len(failed)


def _queue_jobs(
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


def _wait(service: Service, jobs: Mapping[int, Job]) -> None:
    """Show the progress of jobs until all have ended and their predictions are sent.

    Raises:
        SettingsError: no worker could load the model; the jobs wait for the next time.
    """
    left = set(jobs)
    with tqdm(total=len(jobs), unit="task", smoothing=0) as bar:
        while left:
            ended = {task for task in left if jobs[task].has_ended}
            left -= ended
            bar.update(len(ended))
            bar.set_postfix_str(describe_running({f"task {task}": jobs[task] for task in left}))
            if left:
                service.check_engine()
                time.sleep(_POLL_SECONDS)
        # A job has ended before that is saved, and only then its prediction is sent.
        for number in [job.number for job in jobs.values() if job.state == "done"]:
            while (row := service.store.job(number)) and not row.posted:
                bar.set_postfix_str("sending predictions to Label Studio")
                time.sleep(_POLL_SECONDS)
