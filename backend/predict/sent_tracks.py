"""Tracks that a person sent from the prompting page: the next request of the task's annotation brings them, once."""

import logging
from collections.abc import Collection
from dataclasses import replace

from backend.errors import BackendError, BadRequest
from backend.jobs.job import Job
from backend.labelstudio.region import Region
from backend.labelstudio.region_results import format_region
from backend.predict.event_regions import EventRegion
from backend.predict.page_track import (
    PAGE_JOB,
    PageTrack,
    TrackPlan,
    new_prompts,
    plan_track,
    region_prompts,
    state_of,
)
from backend.predict.region_work import RegionWork
from backend.predict.request_context import RequestContext
from backend.predict.response_cache import ResultSource
from backend.predict.results import RegionResult, TextResult
from backend.tracks.frame_range import ALL_FRAMES

log = logging.getLogger(__name__)

SENT = "sent"
"""What a person types into the line for words to get these tracks without looking for anything."""


class SentTracks:
    """The tracks that were sent to the task of a request.

    Attributes:
        waiting: how many corrected regions the request does not show, as after a submission: `t` on them brings them.
    """

    def __init__(self, context: RequestContext) -> None:
        self._context, self._task = context, context.request.task
        self.waiting = 0
        self._tracks = dict[str, PageTrack]()
        for name, content in context.cache.sent_tracks(self._task).items():
            try:
                self._tracks[name] = PageTrack.from_json(content)
            except ValueError:
                log.error("a track of the prompting page is set aside: its row cannot be read")

    def missing(self, known: Collection[str]) -> list[RegionWork]:
        """Those that the annotation does not have yet.

        Args:
            known: ids of regions that the response contains already.
        """
        request, works = self._context.request, list[RegionWork]()
        for name, track in self._tracks.items():
            shown = request.page.get(name)
            if name in known:
                continue
            if shown is None and self._is_gone(name, track):
                self._context.cache.mark_arrived(self._task, name)
            elif shown or not track.is_correction:
                works += filter(None, [self.work(name, shown)])
            else:
                self.waiting += 1
        return works

    def _is_gone(self, name: str, track: PageTrack) -> bool:
        """Whether the annotation had the region and a person has deleted it, or another annotation has a new track."""
        request = self._context.request
        is_elsewhere = name in request.others or name in request.context
        return name in self._context.contents or (is_elsewhere and not track.is_correction)

    def work(self, name: str, shown: Region | None) -> RegionWork | None:
        """What brings a track; None: it was not sent, or the page has it or may have it.

        Args:
            shown: the region on the page; None: there is none.
        """
        context, cache, track = self._context, self._context.cache, self._tracks.get(name)
        job = context.scheduler.job(track.job) if track else None
        if track is None or job is None or job.state == "failed":
            return None
        if shown and shown.meta.get(PAGE_JOB) == track.job:
            cache.mark_arrived(self._task, name)
            return None
        answered = cache.last_answer(self._task, name, context.start_time)
        if answered and answered.meta.get(PAGE_JOB) == track.job:
            return None
        if track.found:
            if shown:  # it came with a job of other words, or a person has made it theirs
                cache.mark_arrived(self._task, name)
                return None
            result = ResultSource(TextResult(job, context.settings), track.found, (), {PAGE_JOB: job.number})
            context.cache.sources.put(context.key(name), result)
            return RegionWork(context.new_region(name, track.classes), track.classes, source=result)
        if shown is None or state_of(shown) in track.states:
            region = track.region(context.new_region(name, track.classes), shown)
            return self._work(track, plan_track(region, track.added, track.direction, track.within), job, shown)
        return self._repeat(name, track, shown)

    def adopt(self, found: EventRegion) -> RegionWork | None:
        """What brings the track of a region that Label Studio's page made of it, as if it had been sent."""
        region, spec = found.region, found.job.row.spec
        label = next(iter(self._context.config.own_classes(region.labels)), "")
        states = frozenset({state_of(region)})
        within = spec.ranges[0] if spec.ranges else ALL_FRAMES
        track = PageTrack(found.job.number, label, spec.prompts, spec.prompts, spec.direction, within, states=states)
        self._tracks[region.id] = track
        self._context.cache.put_sent_track(self._task, region.id, track.to_json())
        return self.work(region.id, region)

    def _repeat(self, name: str, track: PageTrack, shown: Region) -> RegionWork | None:
        """Track again from what the page shows: a person has changed the region since the prompts were given."""
        context, added = self._context, new_prompts(track.prompts, region_prompts(shown))
        try:
            plan = plan_track(shown, added, track.direction, track.within)
            parts = [
                context.request.url,
                context.request.framerate,
                PAGE_JOB,
                plan.prompts,
                plan.intervals,
                plan.ranges,
            ]
            job = context.submit(
                context.key(name),
                context.digest(parts),
                length=shown.frames_count,
                prompts=plan.prompts,
                intervals=plan.intervals,
                ranges=plan.ranges,
                classes=track.classes,
            )
        except BadRequest as error:  # the page has all prompts, or other ones on their frames
            context.cache.mark_arrived(self._task, name)
            classes = context.config.own_classes(shown.labels)
            return RegionWork(shown, classes, error=error, is_unchanged=True) if added else None
        except BackendError:  # another request may bring it
            return None
        before = tuple(format_region(shown, context.request.framerate))
        track = replace(track, job=job.number, added=added, before=before, states=frozenset({state_of(shown)}))
        context.cache.put_sent_track(self._task, name, track.to_json())
        return self._work(track, plan, job, shown)

    def _work(self, track: PageTrack, plan: TrackPlan, job: Job, shown: Region | None) -> RegionWork:
        context, region = self._context, plan.region
        classes = track.classes or context.config.own_classes(region.labels)
        result = RegionResult(job, region, plan.segments, context.settings)
        source = ResultSource(result, None, plan.fixed, {PAGE_JOB: job.number}, asked=shown or region)
        context.cache.sources.put(context.key(region.id), source)
        return RegionWork(region, classes, plan.fixed, plan.segments, source)
