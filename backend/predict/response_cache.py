"""What is remembered of earlier answers, for what a request does not show: the saved page may be five seconds old, and
Label Studio forgets which clicks were negative. The page holds as much as it can itself: a restart costs little.

Everything is kept by the ids that Label Studio gives to points, regions and texts: no two annotations share one, so no
annotator ever meets another's.
"""

import hashlib
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.jobs.store import Store
from backend.labelstudio.clicks import Click, ClickPrompt
from backend.labelstudio.keyframe import Keyframe
from backend.labelstudio.region import Region
from backend.predict.results import RegionResult
from backend.predict.text_results import TextResult
from backend.table import Table

_MOST = 4096
_JOBS = 512
_UNSAVED = 10.0
"""Seconds after which what was answered is on the saved page, or was deleted: the page is saved every 5 s."""


@dataclass(frozen=True, slots=True)
class ResultSource:
    """Where a region's track comes from.

    Attributes:
        view: of the job that makes it.
        name: of the track, where the job has several.
        stays: what was answered as it came.
        made: what it is made of, where that is no box.
    """

    result: RegionResult | TextResult
    track_name: str | None = None
    fixed: Sequence[Keyframe] = ()
    origin: Mapping[str, Any] | None = None


class ResponseCache:
    """One per process. The signs of clicks are kept in the store: nothing else tells them after a restart."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._numbers: Table[dict[str, int]] = Table(_MOST)
        self._clicked: Table[tuple[str, str]] = Table(_MOST)
        self._owned: Table[tuple[str, ...]] = Table(_MOST)
        self._answered: Table[CachedRegion] = Table(_MOST)
        self._lines: Table[PromptFieldCache] = Table(_MOST)
        self.sources: Table[ResultSource] = Table(_JOBS)
        """By task and region."""

    def assign_track_id(self, task: str, region: Region, seen: Iterable[int]) -> int:
        """The region's number, or the next one that the task has not seen."""
        with self._lock:
            known = self._numbers.get(task) or {}
            others = {number for name, number in known.items() if name != region.id}
            if region.track_id is not None and region.track_id not in others:
                known[region.id] = region.track_id
            elif region.id not in known:
                known[region.id] = 1 + max([0, *others, *seen])
            self._numbers.put(task, known)
            return known[region.id]

    def sign_clicks(self, task: str, clicks: Iterable[Click], page: Mapping[str, Region]) -> list[Click]:
        """The clicks, each positive or negative: as the request says, or an earlier one did; else positive."""
        told = {click.id: click.positive for region in page.values() for click in parse_clicks(region)}
        signed = []
        for click in clicks:
            if click.positive is not None:
                self._store.put_click(task, click.id, click.positive)
            sign = self._store.is_click_positive(task, click.id) if click.positive is None else click.positive
            signed.append(replace(click, positive=told.get(click.id, True) if sign is None else sign))
        return signed

    def region_id(self, task: str, clicked: ClickPrompt, page: Mapping[str, Region]) -> str:
        """The id of the region that an object's clicks make: the one that some of them made before, or its own.

        A point that was given another label belongs to another object from then on.
        """
        names, label = [click.id for click in clicked.clicks], clicked.label
        before = (self._clicked.get((task, name)) for name in names)
        known = next((region for region, of in filter(None, before) if of == label), None)
        on_page = (
            region.id
            for region in page.values()
            if region.meta.get("object") == label and {click.id for click in parse_clicks(region)} & set(names)
        )
        known = known or next(on_page, None)
        known = known or "p" + hashlib.sha256(f"{task}|{label}|{names[0]}".encode(errors="replace")).hexdigest()[:9]
        for name in names:
            self._clicked.put((task, name), (known, label))
        return known

    def person_lines(self, task: str, text: str, shown: tuple[str, ...], *, is_now: bool) -> tuple[str, ...]:
        """A person's lines of a text: as shown now, or as a request has shown them before, else as they were saved."""
        if is_now:
            self._owned.put((task, text), shown)
        return self._owned.get((task, text)) or shown

    def record(self, task: str, answer: Iterable[Region]) -> None:
        """These regions are answered together, like this."""
        arrival = Delivery()
        for region in answer:
            earlier = self._answered.get((task, region.id))
            # A region that has been on the page can only be gone because a person deleted it.
            has_arrived = earlier.arrival if earlier and earlier.arrival.is_seen else arrival
            self._answered.put((task, region.id), CachedRegion(region, time.monotonic(), has_arrived))

    def mark_seen(self, task: str, names: Iterable[str]) -> None:
        """A request shows these regions: their answers have reached the page."""
        for name in names:
            if answered := self._answered.get((task, name)):
                answered.arrival.is_seen = True

    def prompt_field(self, task: str, text: str | None) -> "PromptFieldCache":
        """What a line for words was answered, by the id of its text."""
        with self._lock:
            answers = self._lines.get((task, text)) or PromptFieldCache(task, self._answered)
            self._lines.put((task, text), answers)
            return answers


@dataclass(slots=True)
class Delivery:
    """Whether an answer has reached the page: some request has shown a region of it since.

    Label Studio drops answers that come late or that another request has overtaken, and tells nobody.
    """

    is_seen: bool = False


@dataclass(frozen=True, slots=True)
class CachedRegion:
    """A region as it was answered last, and when, of the monotonic clock."""

    region: Region
    at: float
    arrival: Delivery


class PromptFieldCache:
    """What one annotation's line for words was answered.

    Args:
        answered: by task and region.
    """

    def __init__(self, task: str, answered: Table[CachedRegion]) -> None:
        self._task, self._answered = task, answered
        self._lock = threading.Lock()
        self._ids: dict[tuple[str, str], str] = {}
        self.planning = threading.Lock()
        """Held while new regions get their ids: of two requests for the same words both give the same."""
        self.unfinished: str | None = None
        """The key of the question whose last answer lacked frames."""

    def id_of(self, key: str, name: str) -> str | None:
        """The region that an object became, by the question's key and the object's name there."""
        with self._lock:
            return self._ids.get((key, name))

    def note(self, key: str, name: str, region: str) -> None:
        """An object became this region, or is one that was there."""
        with self._lock:
            self._ids[key, name] = region

    def forget(self, key: str) -> None:
        """What was asked is asked anew."""
        with self._lock:
            self._ids = {known: region for known, region in self._ids.items() if known[0] != key}

    def regions(self, page: Mapping[str, Region], since: float) -> "PageRegions":
        """The page's regions, with what is known of them beside the page as it was saved.

        Args:
            since: when the page was shown to us, of the monotonic clock.
        """
        with self._lock:
            names = {*self._ids.values()}
        given = {name: kept for name in (*names, *page) if (kept := self._answered.get((self._task, name)))}
        lacking = {name: one for name, one in given.items() if name not in page}
        # What was answered after this request was sent has been overtaken by it.
        unsaved = {name: one.region for name, one in lacking.items() if 0 <= since - one.at < _UNSAVED}
        return PageRegions(
            page=page,
            shown={**unsaved, **page},
            answered={name: one.region for name, one in given.items()},
            deleted={name: one.region for name, one in lacking.items() if name not in unsaved and one.arrival.is_seen},
            lost={name: one.region for name, one in lacking.items() if name not in unsaved and not one.arrival.is_seen},
        )


@dataclass(frozen=True, slots=True)
class PageRegions:
    """The regions of a page, by id.

    Attributes:
        page: as it was saved.
        shown: those that are there; what was answered too lately to be saved as it was answered.
        answered: as they were answered last, before a person edited them.
        deleted: those that a person has deleted.
        lost: those that no saved page has shown: their answers came too late, or the page cannot be saved.
    """

    page: Mapping[str, Region]
    shown: Mapping[str, Region]
    answered: Mapping[str, Region]
    deleted: Mapping[str, Region]
    lost: Mapping[str, Region]

    def is_saved(self, region: Region) -> bool:
        """The page was saved since the region was answered last, as far as that is remembered."""
        answered = self.answered.get(region.id)
        is_newest = answered is None or answered.meta.get("seal") == region.meta.get("seal")
        return region.id in self.page and is_newest


def clicks_origin(clicked: ClickPrompt, clicks: Iterable[Click]) -> dict[str, Any]:
    """What a region of clicks keeps in its `meta`, so that they are known again from the page alone."""
    points = {click.id: [click.frame, click.x, click.y, click.positive is not False] for click in clicks}
    return {"object": clicked.label, "points": points}


def parse_clicks(region: Region) -> list[Click]:
    """The clicks that made a region, as its `meta` has them."""
    points: Any = region.meta.get("points")
    clicks = []
    for name, point in points.items() if isinstance(points, Mapping) else ():
        match point:
            case [int(frame), int() | float() as x, int() | float() as y, bool(positive)] if frame >= 1:
                clicks.append(Click(str(name), frame, float(x), float(y), positive))
    return clicks
