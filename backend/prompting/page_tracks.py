"""The tracks of the prompting page: begun or corrected there, computed by jobs, and sent into the annotation."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.errors import BadRequest
from backend.interactive.session import InteractiveSession
from backend.jobs.job import Job
from backend.jobs.records import Records
from backend.jobs.scheduler import Scheduler
from backend.jobs.spec import FramePrompts
from backend.labelstudio.region import Region
from backend.labelstudio.region_results import format_region
from backend.predict.page_track import PAGE_JOB, PageTrack, TrackPlan, new_prompts, plan_track, region_prompts, state_of
from backend.prompting.page import Page
from backend.prompting.page_request import TrackRequest
from backend.settings import Settings
from backend.tracks.frame_range import ALL_FRAMES, FrameRange

log = logging.getLogger(__name__)

UNKNOWN = "there is no such track on this page: load the page again"


@dataclass(frozen=True, slots=True)
class ListedTrack:
    """A track of the page with its job; `is_offered`: it was sent and has not arrived in the annotation yet."""

    name: str
    track: PageTrack
    job: Job
    is_offered: bool


class PageTracks:
    """One per process; any thread may use it."""

    def __init__(self, scheduler: Scheduler, records: Records, settings: Settings) -> None:
        self._scheduler, self._records, self._settings = scheduler, records, settings

    def listed(self, task: str) -> list[ListedTrack]:
        """The tracks of a task's page, in the order in which they were begun."""
        found = []
        for name, (content, is_offered) in self._records.page_tracks(task).items():
            try:
                track = PageTrack.from_json(content)
            except ValueError:
                log.error("a track of the prompting page is set aside: its row cannot be read")
                continue
            if job := self._scheduler.job(track.job):
                found.append(ListedTrack(name, track, job, is_offered))
        return found

    def find(self, task: str, name: str) -> ListedTrack | None:
        """One track; None: there is no such track."""
        return next((one for one in self.listed(task) if one.name == name), None)

    def drop_arrived(self, task: str, regions: Sequence[Region]) -> None:
        """Forget the tracks whose results the annotation has: from then on it tells what the track is."""
        jobs = {region.id: region.meta.get(PAGE_JOB) for region in regions}
        for one in self.listed(task):
            if jobs.get(one.name) == one.track.job:
                self._records.remove_page_track(task, one.name)

    def track(
        self, session: InteractiveSession, page: Page, name: str, request: TrackRequest, shown: Region | None
    ) -> ListedTrack:
        """Track an object, or correct its track: only what lies between new prompts and those next to them is computed.

        Args:
            name: the id of its region.
            shown: the region as the annotation has it; None: it has none.

        Raises:
            BackendError: nothing is to be tracked, or it cannot be.
        """
        if shown:
            self.drop_arrived(page.task, [shown])
        known = self.find(page.task, name)
        if known and request.label != known.track.label and self._is_relabelled(known, request):
            return self._save(page.task, name, replace(known.track, label=request.label), known.job)
        track, plan = self._continue(page, name, request, shown, known) or self._begin(page, name, request, shown)
        job = session.start_track(
            name, plan.prompts, intervals=plan.intervals, ranges=plan.ranges, classes=track.classes, masks=True
        )
        return self._save(page.task, name, replace(track, job=job.number), job)

    def _is_relabelled(self, known: ListedTrack, request: TrackRequest) -> bool:
        return known.job.state != "failed" and request.prompts == known.track.prompts

    def _continue(
        self, page: Page, name: str, request: TrackRequest, shown: Region | None, known: ListedTrack | None
    ) -> tuple[PageTrack, TrackPlan] | None:
        """New prompts for a track that is done; None: it is computed from its beginning."""
        is_current = known and (shown is None or state_of(shown) in known.track.states)
        if known is None or not is_current or known.job.state != "done":
            return None
        if new_prompts(known.track.prompts, request.prompts):  # some were taken back
            return None
        new = page.new_region(name, request.label)
        results = known.track.plan(new).read(known.job, self._settings, page.framerate)
        added = new_prompts(request.prompts, known.track.prompts)
        if not results or not added:
            return None
        track = _page_track(request, added, results, is_correction=known.track.is_correction)
        corrected = track.region(new)
        track = replace(track, states=known.track.states | {state_of(corrected)})
        return track, plan_track(corrected, added, track.direction, track.within)

    def _begin(self, page: Page, name: str, request: TrackRequest, shown: Region | None) -> tuple[PageTrack, TrackPlan]:
        """The first prompts for a track, or for a region of the annotation."""
        region = shown or page.new_region(name, request.label)
        added = new_prompts(request.prompts, region_prompts(region)) if shown else request.prompts
        before = tuple(format_region(region, page.framerate)) if shown else ()
        track = _page_track(request, added, before, is_correction=shown is not None)
        track = replace(track, states=frozenset({state_of(shown)} if shown else ()))
        return track, plan_track(region, added, track.direction, track.within)

    def stop(self, task: str, name: str) -> ListedTrack:
        """Stop a track; what is computed is kept."""
        known = self._require(task, name)
        self._scheduler.cancel(known.job.number)
        return known

    def resume(self, task: str, name: str) -> ListedTrack:
        """Go on with a track that was stopped."""
        self._scheduler.resume(self._require(task, name).job.number)
        return self._require(task, name)

    def remove(self, task: str, name: str) -> None:
        """Remove a track from the page. What the annotation has got already stays there."""
        known = self._require(task, name)
        self._scheduler.cancel(known.job.number)
        self._records.remove_page_track(task, name)

    def send(self, task: str, names: Sequence[str]) -> list[ListedTrack]:
        """Offer tracks to the task: the next request of its labelling page brings them."""
        known = {one.name for one in self.listed(task)}
        if not names or not known.issuperset(names):
            raise BadRequest("there is nothing to send: track an object first")
        for name in names:
            self._records.offer_page_track(task, name, is_offered=True)
        return self.listed(task)

    def _require(self, task: str, name: str) -> ListedTrack:
        if (found := self.find(task, name)) is None:
            raise BadRequest(UNKNOWN)
        return found

    def _save(self, task: str, name: str, track: PageTrack, job: Job) -> ListedTrack:
        known = self.find(task, name)
        is_offered = known.is_offered if known else False
        self._records.put_page_track(task, name, track.to_json(), is_offered=is_offered)
        return ListedTrack(name, track, job, is_offered)


def _page_track(
    request: TrackRequest,
    added: tuple[FramePrompts, ...],
    before: tuple[Mapping[str, Any], ...],
    *,
    is_correction: bool,
) -> PageTrack:
    within = FrameRange(request.first or 1, request.last or ALL_FRAMES.last)
    return PageTrack(
        job=0,
        label=request.label,
        prompts=request.prompts,
        added=added,
        direction=request.direction,
        within=within,
        before=before,
        is_correction=is_correction,
    )
