"""The tracks of the prompting page: begun or corrected there, computed by jobs, and sent into the annotation."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.errors import BadRequest
from backend.interactive.session import InteractiveSession
from backend.jobs.job import Job
from backend.jobs.records import Records
from backend.jobs.scheduler import Scheduler
from backend.jobs.spec import OBJECT_TRACK, FramePrompts, ResolvedJob
from backend.labelstudio.commands import parse_text_query
from backend.labelstudio.keyframe import boxes_at
from backend.labelstudio.region import Region, new_region_id
from backend.labelstudio.region_results import format_region
from backend.predict.page_track import (
    PAGE_JOB,
    PageTrack,
    TrackPlan,
    build_results,
    new_prompts,
    parse_results,
    plan_track,
    region_prompts,
    state_of,
)
from backend.predict.results import TextResult
from backend.predict.text_prompts import resolve_phrases
from backend.prompting.page import Page
from backend.prompting.page_request import SearchRequest, TrackRequest
from backend.prompting.page_search import ListedSearch, PageSearch
from backend.settings import Settings
from backend.tracks.frame_range import ALL_FRAMES, FrameRange
from backend.tracks.geometry import Boxes
from backend.tracks.prompts import LIKE
from backend.tracks.track import Track

log = logging.getLogger(__name__)

UNKNOWN = "there is no such track on this page: load the page again"


@dataclass(frozen=True, slots=True)
class ListedTrack:
    """A track of the page with its job.

    Attributes:
        is_offered: it was sent and has not arrived in the annotation yet.
    """

    name: str
    track: PageTrack
    job: Job
    is_offered: bool = False

    def computed(self) -> tuple[ResolvedJob, Track, NDArray[np.bool_]] | None:
        """The job on its video, its boxes so far, and on which source frames it has looked; None: it is not open."""
        if (resolved := self.job.resolved) is None:
            return None
        name = self.track.found or OBJECT_TRACK
        return resolved, resolved.propagation.track(name), resolved.propagation.processed_frames(name)


class PageTracks:
    """One per process; any thread may use it."""

    def __init__(self, scheduler: Scheduler, records: Records, settings: Settings) -> None:
        self._scheduler, self._records, self._settings = scheduler, records, settings

    def listed(self, page: Page) -> list[ListedTrack]:
        """The tracks of a page, in the order in which they were begun; then what its searches have found."""
        listed = [
            ListedTrack(name, track, job, is_offered)
            for name, track, is_offered in self._rows(page.task)
            if (job := self._scheduler.job(track.job))
        ]
        known = {one.name for one in listed}
        for search in self.searches(page.task):
            found = search.tracks(page, self._settings.min_track_frames)
            listed += [ListedTrack(name, track, search.job) for name, track in found if name not in known]
        return listed

    def _rows(self, task: str) -> Iterator[tuple[str, PageTrack, bool]]:
        for name, (content, is_offered) in self._records.page_tracks(task).items():
            if PageSearch.from_json(content):
                continue
            try:
                yield name, PageTrack.from_json(content), is_offered
            except ValueError:
                log.error("a track of the prompting page is set aside: its row cannot be read")

    def searches(self, task: str) -> list[ListedSearch]:
        """The searches of a task's page, in the order in which they were begun."""
        rows = ((name, PageSearch.from_json(content)) for name, (content, _) in self._records.page_tracks(task).items())
        return [
            ListedSearch(name, search, job)
            for name, search in rows
            if search and (job := self._scheduler.job(search.job))
        ]

    def find(self, page: Page, name: str) -> ListedTrack | None:
        """One track; None: there is no such track."""
        return next((one for one in self.listed(page) if one.name == name), None)

    def region_boxes(self, one: ListedTrack, page: Page, length: int) -> Boxes:
        """The boxes of a track as the annotation will show them on `length` LS frames: shape (length, 4), percent."""
        new = page.new_region(one.name, one.track.label)
        results = self._results(one, new, page.framerate)
        if not results:
            return np.full((length, 4), np.nan)
        return boxes_at(parse_results(results, new).keyframes, np.arange(1, length + 1))

    def drop_arrived(self, page: Page, regions: Sequence[Region]) -> None:
        """Forget the tracks whose results the annotation has: from then on it tells what the track is."""
        jobs = {region.id: region.meta.get(PAGE_JOB) for region in regions}
        for name, track, _ in self._rows(page.task):
            if jobs.get(name) == track.job:
                self._records.remove_page_track(page.task, name)
        for search in self.searches(page.task):
            if arrived := [name for name, _ in search.tracks(page, 0) if name in jobs]:
                self._drop_found(page, search, arrived)

    def _drop_found(self, page: Page, search: ListedSearch, names: Sequence[str]) -> None:
        content = search.search.without(names).to_json()
        self._records.put_page_track(page.task, search.name, content, is_offered=False)

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
            self.drop_arrived(page, [shown])
        known = self.find(page, name)
        if known and request.label != known.track.label and self._is_relabelled(known, request):
            return self._save(page, name, replace(known.track, label=request.label), known.job)
        track, plan = self._continue(page, name, request, shown, known) or self._begin(
            page, name, request, shown, known
        )
        job = session.start_track(
            name, plan.prompts, intervals=plan.intervals, ranges=plan.ranges, classes=track.classes, masks=True
        )
        return self._save(page, name, replace(track, job=job.number), job)

    def _is_relabelled(self, known: ListedTrack, request: TrackRequest) -> bool:
        return known.job.state != "failed" and request.prompts == known.track.prompts

    def _continue(
        self, page: Page, name: str, request: TrackRequest, shown: Region | None, known: ListedTrack | None
    ) -> tuple[PageTrack, TrackPlan] | None:
        """New prompts for a track that is there already; None: it is computed from its beginning.

        If it is done they correct it as it is now, else, together with those that it lacks, as it was before.
        """
        if known and known.track.found and known.job.state not in ("done", "cancelled"):
            raise BadRequest("the words are still looked for: stop that, or correct the track when it is done")
        is_current = known and (shown is None or state_of(shown) in known.track.states)
        if known is None or not is_current:
            return None
        if new_prompts(known.track.prompts, request.prompts):  # some were taken back
            return None
        new = page.new_region(name, request.label)
        is_there = known.job.state == "done" or bool(known.track.found)
        results = self._results(known, new, page.framerate) if is_there else known.track.before
        added = new_prompts(request.prompts, known.track.prompts)
        if not is_there:
            frames = {one.frame for one in (*added, *known.track.added)}
            added = tuple(one for one in request.prompts if one.frame in frames)
        if not results or not added:
            return None
        track = _page_track(request, added, results, is_correction=known.track.is_correction)
        corrected = track.region(new)
        origin = results if known.track.found else known.track.origin
        track = replace(track, origin=origin, states=known.track.states | {state_of(corrected)})
        return track, plan_track(corrected, added, track.direction, track.within)

    def _results(self, known: ListedTrack, new: Region, rate: float) -> tuple[Mapping[str, Any], ...]:
        """The region as it is now, as results."""
        if not known.track.found:
            return known.track.plan(new).read(known.job, self._settings, rate)
        detection = TextResult(known.job, self._settings).detections().get(known.track.found)
        return build_results(new, detection.track, detection.score, known.job, rate) if detection else ()

    def _begin(
        self, page: Page, name: str, request: TrackRequest, shown: Region | None, known: ListedTrack | None
    ) -> tuple[PageTrack, TrackPlan]:
        """The first prompts for a track, for a region of the annotation, or for what words have found."""
        origin, region = known.track.origin if known else (), page.new_region(name, request.label)
        if shown:
            origin = tuple(format_region(shown, page.framerate))
        if origin:
            region = shown or parse_results(origin, region)
        added = new_prompts(request.prompts, region_prompts(region)) if origin else request.prompts
        track = _page_track(request, added, origin, is_correction=shown is not None)
        track = replace(track, origin=() if shown else origin, states=frozenset({state_of(region)} if origin else ()))
        return track, plan_track(region, added, track.direction, track.within)

    def search(self, session: InteractiveSession, page: Page, request: SearchRequest) -> ListedSearch:
        """Look for the objects of words, or for those that are like boxes.

        Raises:
            BackendError: there is nothing to look for, or the engine knows no words.
        """
        phrases: tuple[str, ...] = (f"{LIKE} {request.text}".strip(),)
        ranges = (request.within,)
        if not request.examples:
            query = parse_text_query(request.text)
            phrases = resolve_phrases(query, page.config, page.config.video.name)
            if query.at or query.within != ALL_FRAMES:
                ranges = (FrameRange(query.at, query.at) if query.at else query.within,)
        name = new_region_id()
        job = session.start_track(name, phrases=phrases, ranges=ranges, exemplars=request.examples, masks=True)
        search = PageSearch(job.number, request.text)
        if request.examples:
            search = PageSearch(job.number, phrases[0], request.label)
        self._records.put_page_track(page.task, name, search.to_json(), is_offered=False)
        return ListedSearch(name, search, job)

    def stop(self, page: Page, name: str) -> None:
        """Stop a track or a search; what is computed is kept."""
        self._scheduler.cancel(self._job(page, name).number)

    def resume(self, page: Page, name: str) -> None:
        """Go on with a track or a search that was stopped."""
        self._scheduler.resume(self._job(page, name).number)

    def remove(self, page: Page, name: str) -> None:
        """Remove a track, or a search with what it has found. What the annotation has got already stays there."""
        job = self._job(page, name)
        for search in self.searches(page.task):
            if any(found == name for found, _ in search.tracks(page, 0)):
                self._drop_found(page, search, [name])
                break
        else:
            self._scheduler.cancel(job.number)
        self._records.remove_page_track(page.task, name)

    def select(self, page: Page, names: Sequence[str]) -> list[ListedTrack]:
        """The tracks of these names, to send them."""
        known = {one.name: one for one in self.listed(page)}
        if not names or not known.keys() >= {*names}:
            raise BadRequest("there is nothing to send: track an object first")
        return [known[name] for name in names]

    def offer(self, page: Page, tracks: Iterable[ListedTrack]) -> None:
        """Offer tracks to the task: the next request of its labelling page brings them."""
        for one in tracks:
            self._records.put_page_track(page.task, one.name, one.track.to_json(), is_offered=True)

    def _job(self, page: Page, name: str) -> Job:
        jobs = {one.name: one.job for one in self.searches(page.task)}
        jobs |= {one.name: one.job for one in self.listed(page)}
        if name not in jobs:
            raise BadRequest(UNKNOWN)
        return jobs[name]

    def _save(self, page: Page, name: str, track: PageTrack, job: Job) -> ListedTrack:
        known = self.find(page, name)
        is_offered = known.is_offered if known else False
        self._records.put_page_track(page.task, name, track.to_json(), is_offered=is_offered)
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
