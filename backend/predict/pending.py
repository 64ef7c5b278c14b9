"""What earlier requests of an annotation asked for and its page may lack: any later request of it brings that, too.

Label Studio drops the response to a request that another one has overtaken, and the first response to a long job lacks
frames. Nothing is submitted here.
"""

from collections.abc import Collection, Iterator

from backend.labelstudio.region import Region, fingerprint_keyframes
from backend.predict.region_work import RegionWork
from backend.predict.request_context import RequestContext
from backend.predict.response_cache import ResultSource
from backend.predict.text_prompts import TextPrompt


def pending_texts(context: RequestContext, asked: TextPrompt | None) -> list[TextPrompt]:
    """The annotation's other text prompts of which it may lack objects or frames."""
    field = context.request.prompt_field
    if field is None:
        return []
    pending, prompts = context.cache.prompt_field(context.request.task, field.id).pending, list[TextPrompt]()
    for digest, (text, job) in list(pending.items()):
        if asked and asked.digest == digest:
            continue
        if job.is_cancelled or job.state in ("failed", "cancelled"):
            pending.pop(digest, None)
        else:
            prompts.append(TextPrompt(context, field.id, text, job))
    return prompts


def pending_regions(context: RequestContext, asked: Collection[str]) -> list[RegionWork]:
    """The annotation's other regions whose tracks are further than the page shows, and that nobody has edited since.

    Args:
        asked: ids of the regions that the request asks for.
    """
    request, cache = context.request, context.cache
    works = []
    for region in (*request.page.values(), *_clicked_regions(context)):
        source = cache.sources.get(context.key(region.id))
        is_alive = source and source.result.job.state not in ("failed", "cancelled")
        if source and is_alive and region.id not in asked and _is_further(context, region, source):
            works.append(RegionWork(region, context.config.own_classes(region.labels), source.fixed, source=source))
    return works


def _clicked_regions(context: RequestContext) -> Iterator[Region]:
    """The regions of saved clicks of which no response has reached the page, as they were asked for."""
    request, cache = context.request, context.cache
    for prompt in request.saved_clicks:
        name = cache.earlier_region_id(request.task, prompt) or ""
        source = cache.sources.get(context.key(name))
        is_missing = name not in request.page and not cache.may_be_shown(request.task, name, context.start_time)
        if is_missing and source and source.asked:
            yield source.asked


def _is_further(context: RequestContext, region: Region, source: ResultSource) -> bool:
    task, cache = context.request.task, context.cache
    is_current = region.id in context.request.context or cache.is_saved(task, region, context.start_time)
    if "at" in region.meta or not is_current:
        return False
    fingerprint = fingerprint_keyframes(region.keyframes)
    if cache.shows_last(task, region):
        is_intact = region.is_partial and fingerprint == region.meta.get("seal")
        return is_intact and source.result.progress()[0] > region.frames_done
    # The response to its request has not reached the page.
    return source.asked is not None and fingerprint == fingerprint_keyframes(source.asked.keyframes)
