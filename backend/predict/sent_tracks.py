"""Tracks that a person sent from the prompting page: the next request of the task's annotation brings them, once."""

from collections.abc import Collection

from backend.jobs.job import Job
from backend.labelstudio.segments import segments_around_clicks
from backend.predict.region_work import RegionWork
from backend.predict.request_context import RequestContext
from backend.predict.response_cache import ResultSource
from backend.predict.results import RegionResult

SENT = "sent"
"""What a person types into the line for words to get these tracks without looking for anything."""


def sent_tracks(context: RequestContext, known: Collection[str]) -> list[RegionWork]:
    """The tracks that were sent and that the annotation does not have yet.

    Args:
        known: ids of regions that the response contains already.
    """
    request, cache = context.request, context.cache
    works = []
    for name in cache.sent_tracks(request.task):
        if name in request.page or name in request.context or name in request.others or name in context.contents:
            cache.mark_arrived(request.task, name)
            continue
        job = context.scheduler.newest(context.key(name))
        is_shown = name in known or cache.may_be_shown(request.task, name, context.start_time)
        if job and not is_shown and job.state not in ("failed", "cancelled"):
            works.append(_work(context, name, job))
    return works


def _work(context: RequestContext, name: str, job: Job) -> RegionWork:
    spec = job.row.spec
    region = context.new_region(name, spec.classes)
    segments = segments_around_clicks(region, {one.frame for one in spec.prompts}, spec.direction)
    source = ResultSource(RegionResult(job, region, segments, context.settings), asked=region)
    context.cache.sources.put(context.key(name), source)
    return RegionWork(region, spec.classes, segments=segments, source=source)
