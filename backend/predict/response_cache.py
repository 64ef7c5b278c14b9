"""What a request does not contain of earlier responses.

The saved page may be 5 s old, and Label Studio forgets which clicks were negative. As much as possible is stored in the
regions themselves, so that little is lost when the server restarts. Everything is kept by Label Studio's ids of points,
regions and texts: no two annotations share one, so annotators never see each other's.
"""

import hashlib
import math
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.jobs.job import Job
from backend.jobs.store import Store
from backend.labelstudio.clicks import Click, ClickPrompt
from backend.labelstudio.keyframe import Keyframe
from backend.labelstudio.keyframes import KeyframeSet
from backend.labelstudio.region import Region
from backend.labelstudio.request import PromptField
from backend.predict.results import RegionResult, TextResult
from backend.recent_values import RecentValues

_MAX_ENTRIES = 4096
_MAX_SOURCES = 512
_SAVE_SECONDS = 10.0
"""After this time a region of a response is on the saved page, or was deleted: the page is saved every 5 s."""


@dataclass(frozen=True, slots=True)
class ResultSource:
    """Where a region's track comes from.

    Attributes:
        result: of the job that computes it.
        track_name: the track's name in a job that has several.
        fixed: keyframes that are returned unchanged.
        extra_meta: further fields of `meta`, if the track was not started from a box.
        asked: the region as it was when a request asked for it; None: a text prompt found it.
        class_job: that searches for the class of a clicked object; None: there is none.
    """

    result: RegionResult | TextResult
    track_name: str | None = None
    fixed: Sequence[Keyframe] = ()
    extra_meta: Mapping[str, Any] | None = None
    asked: Region | None = None
    class_job: Job | None = None

    @property
    def jobs(self) -> list[Job]:
        """All jobs, in the order in which they run."""
        return [*([self.class_job] if self.class_job else []), self.result.job]

    def read(self) -> tuple[KeyframeSet, float | None] | None:
        """Keyframes and score so far; None: the job has no track of this name any more."""
        if isinstance(self.result, RegionResult):
            return self.result.read()
        detection = self.result.detections().get(self.track_name or "")
        return (detection.track, detection.score) if detection else None


class ResponseCache:
    """One per process. Whether clicks are positive is saved in the store, because nothing else keeps it.

    Attributes:
        sources: by the key of the region's jobs.
        likes: by task and the id of the example's region, its last `LikeSearch`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._track_ids: RecentValues[dict[str, int]] = RecentValues(_MAX_ENTRIES)
        self._clicked: RecentValues[tuple[str, str]] = RecentValues(_MAX_ENTRIES)
        self._person_lines: RecentValues[tuple[str, ...]] = RecentValues(_MAX_ENTRIES)
        self._regions: RecentValues[CachedRegion] = RecentValues(_MAX_ENTRIES)
        self._contents: RecentValues[frozenset[str]] = RecentValues(_MAX_ENTRIES)
        self._prompt_fields: RecentValues[PromptFieldCache] = RecentValues(_MAX_ENTRIES)
        self.sources: RecentValues[ResultSource] = RecentValues(_MAX_SOURCES)
        self.likes: RecentValues[Any] = RecentValues(_MAX_SOURCES)

    def assign_track_id(self, task: str, region: Region, used: Iterable[int]) -> int:
        """The region's track id, or the next one that the task has not used.

        Args:
            used: track ids in the request.
        """
        with self._lock:
            track_ids = self._track_ids.get(task) or {}
            others = {track_id for region_id, track_id in track_ids.items() if region_id != region.id}
            if region.track_id is not None and region.track_id not in others:
                track_ids[region.id] = region.track_id
            elif region.id not in track_ids:
                track_ids[region.id] = 1 + max([0, *others, *used])
            self._track_ids.put(task, track_ids)
            return track_ids[region.id]

    def sign_clicks(self, task: str, clicks: Iterable[Click], page: Mapping[str, Region]) -> list[Click]:
        """The clicks, each positive or negative: as this or an earlier request says, otherwise positive."""
        page_signs = {click.id: click.positive for region in page.values() for click in parse_clicks(region)}
        signed = []
        for click in clicks:
            if click.positive is not None:
                self._store.records.put_click(task, click.id, click.positive)
            sign = self._store.records.is_click_positive(task, click.id) if click.positive is None else click.positive
            signed.append(replace(click, positive=page_signs.get(click.id, True) if sign is None else sign))
        return signed

    def region_id(self, task: str, prompt: ClickPrompt, page: Mapping[str, Region]) -> str:
        """The id of the region of an object's clicks: the one that some of them prompted before, or a new one.

        A click that gets another label belongs to another object from then on.
        """
        click_ids, label = [click.id for click in prompt.clicks], prompt.label
        on_page = (
            region.id
            for region in page.values()
            if region.meta.get("object") == label and {click.id for click in parse_clicks(region)} & set(click_ids)
        )
        name = self.earlier_region_id(task, prompt) or next(on_page, None)
        name = name or "p" + hashlib.sha256(f"{task}|{label}|{click_ids[0]}".encode(errors="replace")).hexdigest()[:9]
        for click_id in click_ids:
            self._clicked.put((task, click_id), (name, label))
        return name

    def earlier_region_id(self, task: str, prompt: ClickPrompt) -> str | None:
        """The id of the region that some of these clicks prompted before; None: none did."""
        earlier = filter(None, (self._clicked.get((task, click.id)) for click in prompt.clicks))
        return next((region_id for region_id, label in earlier if label == prompt.label), None)

    def answer_prompt_field(self, task: str, field: PromptField, sentence: str | None) -> dict[str, Any]:
        """The result for a control for text prompts: a person's lines, and a sentence of the backend.

        Of the text prompts that it has answered, the last one stays; with each one the page would be longer.
        """
        if field.id is None:
            return field.to_result(sentence)
        own, asked = field.own, self.prompt_field(task, field.id).asked
        if field.text is not None:
            own = (*(line for line in own[:-1] if line not in asked and line != field.text), field.text)
            asked.add(field.text)
            self._person_lines.put((task, field.id), own)
        # Unless the request contains the lines, those of an earlier request are newer than the saved page's.
        return replace(field, own=self._person_lines.get((task, field.id)) or own).to_result(sentence)

    def record(self, task: str, regions: Iterable[Region], *, is_dropped: bool = False) -> None:
        """Record the regions of one response.

        Args:
            is_dropped: the page will not show it: it keeps an earlier one, or gets the later request's.
        """
        delivery, now = Delivery(), -math.inf if is_dropped else time.monotonic()
        for region in regions:
            earlier = self._regions.get((task, region.id))
            if is_dropped and earlier:
                continue
            # If a region was on the page once, only a person can have deleted it.
            current = earlier.delivery if earlier and earlier.delivery.is_seen else delivery
            self._regions.put((task, region.id), CachedRegion(region, now, current))

    def mark_seen(self, task: str, region_ids: Collection[str], page_names: Sequence[str]) -> frozenset[str]:
        """Record that a request contains these regions: their responses have reached the page.

        Args:
            page_names: of the annotation, which may get another one when it is submitted; empty: it is not known.

        Returns:
            The ids of all regions that this annotation has ever contained, as far as they are known.
        """
        for region_id in region_ids:
            if cached := self._regions.get((task, region_id)):
                cached.delivery.is_seen = True
        earlier = (self._contents.get((task, name)) for name in page_names)
        contents = next(filter(None, earlier), frozenset()) | frozenset(region_ids)
        for name in page_names:
            self._contents.put((task, name), contents)
        return contents

    def answered_classes(self, task: str, region_id: str) -> tuple[str, ...]:
        """The classes of a region in its last response; empty: it had none, or there was none."""
        cached = self._regions.get((task, region_id))
        return cached.region.labels if cached else ()

    def may_be_shown(self, task: str, region_id: str, since: float) -> bool:
        """Whether a region that no saved page contains was on the page, or may be on it.

        Args:
            since: when the request came, of the monotonic clock.
        """
        cached = self._regions.get((task, region_id))
        return cached is not None and (cached.delivery.is_seen or cached.is_recent(since))

    def shows_last(self, task: str, region: Region) -> bool:
        """Whether a saved region has the keyframes of its last response, whatever a person did to them since."""
        cached = self._regions.get((task, region.id))
        return cached is not None and cached.region.meta.get("seal") == region.meta.get("seal")

    def sent_tracks(self, task: str) -> dict[str, str]:
        """The tracks that were sent from the task's prompting page and have not arrived yet, as saved, in order."""
        tracks = self._store.records.page_tracks(task)
        return {name: content for name, (content, is_offered) in tracks.items() if is_offered}

    def put_sent_track(self, task: str, region_id: str, content: str) -> None:
        """Save a track that was sent and that a newer job computes."""
        self._store.records.put_page_track(task, region_id, content, is_offered=True)

    def mark_arrived(self, task: str, region_id: str) -> None:
        """Record that an annotation contains a track that was sent, or did: it is not brought again."""
        self._store.records.offer_page_track(task, region_id, is_offered=False)

    def last_answer(self, task: str, region_id: str, since: float) -> Region | None:
        """A region as in its last response, if the page may show that without having saved it.

        Args:
            since: when the request came, of the monotonic clock.
        """
        cached = self._regions.get((task, region_id))
        return cached.region if cached and cached.is_recent(since) else None

    def is_saved(self, task: str, region: Region, since: float) -> bool:
        """Whether the page was saved since the last response with this region, as far as that is known.

        Args:
            region: as last saved.
            since: when the request came, of the monotonic clock.
        """
        cached = self._regions.get((task, region.id))
        return cached is None or not cached.is_unsaved(region, since)

    def prompt_field(self, task: str, text_id: str | None) -> "PromptFieldCache":
        """The cache for the control for text prompts of one annotation, by the id of its text."""
        with self._lock:
            cache = self._prompt_fields.get((task, text_id)) or PromptFieldCache(task, self._regions)
            self._prompt_fields.put((task, text_id), cache)
            return cache


@dataclass(slots=True)
class Delivery:
    """Whether a response has reached the page, which a later request shows.

    Label Studio drops responses that come late or that another request has overtaken, without a message.
    """

    is_seen: bool = False


@dataclass(frozen=True, slots=True)
class CachedRegion:
    """A region of the last response that contained it, and the time of that response, of the monotonic clock."""

    region: Region
    time: float
    delivery: Delivery

    def is_recent(self, since: float) -> bool:
        """Whether the page may not have been saved since this response.

        A response after the request was sent does not count: the page drops it.
        """
        return 0 <= since - self.time < _SAVE_SECONDS

    def is_unsaved(self, region: Region, since: float) -> bool:
        """Whether the page may show this response, although its saved copy of the region does not."""
        return self.is_recent(since) and region.meta.get("seal") != self.region.meta.get("seal")


class PromptFieldCache:
    """What the text prompts of one annotation have found.

    Attributes:
        planning: locked while new regions get ids, so that two requests with the same prompt give the same ids.
        unfinished: the digest of the last prompt if its response lacked frames.
        pending: by their digests, the prompts of which the page may lack objects or frames: the text and its job.
        request_time: when the annotation's newest request came, of the monotonic clock.
        asked: the text prompts that were answered.

    Args:
        regions: of earlier responses, by task and region id.
    """

    def __init__(self, task: str, regions: RecentValues[CachedRegion]) -> None:
        self._task, self._regions = task, regions
        self._lock = threading.Lock()
        self._ids: dict[tuple[str, str], str] = {}
        self.planning = threading.Lock()
        self.unfinished: str | None = None
        self.pending: dict[str, tuple[str, Job]] = {}
        self.request_time = 0.0
        self.asked = set[str]()

    def region_id(self, digest: str, name: str) -> str | None:
        """The id of an object's region, by the prompt's digest and the object's name in its job."""
        with self._lock:
            return self._ids.get((digest, name))

    def note(self, digest: str, name: str, region_id: str) -> None:
        """Record the region of an object."""
        with self._lock:
            self._ids[digest, name] = region_id

    def forget(self, digest: str) -> None:
        """Forget the regions of a prompt's objects."""
        with self._lock:
            self._ids = {key: region_id for key, region_id in self._ids.items() if key[0] != digest}

    def regions(self, page: Mapping[str, Region], contents: Collection[str], since: float) -> "PageRegions":
        """The page's regions, with those of earlier responses that it does not show.

        Args:
            page: as last saved, by region id.
            contents: ids of all regions that the annotation has ever contained.
            since: when the request came, of the monotonic clock.
        """
        with self._lock:
            ids = {*self._ids.values(), *contents}
        cached = {name: entry for name in (*ids, *page) if (entry := self._regions.get((self._task, name)))}
        missing = {name: entry for name, entry in cached.items() if name not in page}
        unsaved = {name: entry.region for name, entry in missing.items() if entry.is_recent(since)}
        gone = {name: entry for name, entry in missing.items() if name not in unsaved}
        return PageRegions(
            page=page,
            shown={**unsaved, **page},
            answered={name: entry.region for name, entry in cached.items()},
            unsaved=frozenset(
                name for name, region in page.items() if name in cached and cached[name].is_unsaved(region, since)
            ),
            deleted={name: entry.region for name, entry in gone.items() if entry.delivery.is_seen},
            lost={name: entry.region for name, entry in gone.items() if not entry.delivery.is_seen},
        )


@dataclass(frozen=True, slots=True)
class PageRegions:
    """The regions of a page, by id.

    Attributes:
        page: as last saved.
        shown: those that the page shows, also if it has not saved them yet.
        answered: as in the last response, before a person edited them.
        unsaved: those whose last response the saved page lacks, although the page may show it.
        deleted: those that a person has deleted.
        lost: those that no saved page has contained: their response came too late, or the page cannot be saved.
    """

    page: Mapping[str, Region]
    shown: Mapping[str, Region]
    answered: Mapping[str, Region]
    unsaved: frozenset[str]
    deleted: Mapping[str, Region]
    lost: Mapping[str, Region]

    def is_saved(self, region: Region) -> bool:
        """Whether the page was saved since the last response with this region, as far as that is known."""
        return region.id in self.page and region.id not in self.unsaved


def clicks_meta(prompt: ClickPrompt, clicks: Iterable[Click]) -> dict[str, Any]:
    """Fields of a region's `meta` that contain the clicks that prompted it; `parse_clicks` reads them."""
    points = {click.id: [click.frame, click.x, click.y, click.positive is not False] for click in clicks}
    return {"object": prompt.label, "points": points}


def parse_clicks(region: Region) -> list[Click]:
    """The clicks that prompted a region, from its `meta`."""
    points: Any = region.meta.get("points")
    clicks = []
    for click_id, point in points.items() if isinstance(points, Mapping) else ():
        match point:
            case [int(frame), int() | float() as x, int() | float() as y, bool(positive)] if frame >= 1:
                clicks.append(Click(str(click_id), frame, float(x), float(y), positive))
    return clicks
