"""What is remembered of earlier answers, for what a request does not show: the saved page may be five seconds old, and
Label Studio forgets which clicks were negative. The page holds as much as it can itself: a restart costs little.

Everything is kept by the ids that Label Studio gives to points, regions and texts: no two annotations share one, so no
annotator ever meets another's.
"""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from backend.jobs.runner import Job
from backend.labelstudio.clicks import Click
from backend.labelstudio.regions import Region

_MOST = 4096
_UNSAVED = 10.0
"""Seconds after which what was answered is on the saved page, or was deleted: the page is saved every 5 s."""

V = TypeVar("V")


class Table(Generic[V]):
    """The newest `_MOST` values by key; safe between threads."""

    def __init__(self) -> None:
        self._values: OrderedDict[Hashable, V] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, key: Hashable, value: V) -> None:
        """Remember a value, and forget the oldest where there are too many."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            if len(self._values) > _MOST:
                self._values.popitem(last=False)

    def get(self, key: Hashable) -> V | None:
        """The value, where it is remembered."""
        with self._lock:
            return self._values.get(key)


class Memory:
    """One per process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: Table[dict[str, int]] = Table()
        self._signs: Table[bool] = Table()
        self._clicked: Table[str] = Table()
        self._answered: Table[tuple[Region, float]] = Table()
        self._lines: Table[Answers] = Table()
        self.sources: Table[tuple[Job[Any], str | None]] = Table()
        """The job that makes a region of clicks or words, and the track's name there, by task and region."""

    def number(self, task: str, region: Region, seen: Iterable[int]) -> int:
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

    def signed(self, task: str, clicks: Iterable[Click], page: Mapping[str, Region]) -> list[Click]:
        """The clicks, each positive or negative: as the request says, or an earlier one did; else positive."""
        told = {name: sign for region in page.values() for name, sign in points_of(region).items()}
        signed = []
        for click in clicks:
            if click.positive is not None:
                self._signs.put((task, click.id), click.positive)
            sign = self._signs.get((task, click.id))
            signed.append(replace(click, positive=told.get(click.id, True) if sign is None else sign))
        return signed

    def clicked(self, task: str, clicks: Iterable[Click], page: Mapping[str, Region]) -> str:
        """The id of the region that these clicks make: the one that some of them made before, or one of its own."""
        names = [click.id for click in clicks]
        known = next((found for name in names if (found := self._clicked.get((task, name)))), None)
        known = known or next((region.id for region in page.values() if points_of(region).keys() & set(names)), None)
        known = known or "p" + hashlib.sha256(f"{task}|{names[0]}".encode(errors="replace")).hexdigest()[:9]
        for name in names:
            self._clicked.put((task, name), known)
        return known

    def note(self, task: str, region: Region) -> None:
        """A region is answered like this."""
        self._answered.put((task, region.id), (region, time.monotonic()))

    def line(self, task: str, text: str | None) -> "Answers":
        """What a line for words was answered, by the id of its text."""
        with self._lock:
            answers = self._lines.get((task, text)) or Answers(task, self._answered)
            self._lines.put((task, text), answers)
            return answers


class Answers:
    """What one annotation's line for words was answered.

    Args:
        answered: regions as they were answered last, and when, of the monotonic clock; by task and id.
    """

    def __init__(self, task: str, answered: Table[tuple[Region, float]]) -> None:
        self._task, self._answered = task, answered
        self._lock = threading.Lock()
        self._ids: dict[tuple[str, str], str] = {}

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

    def regions(self, page: Mapping[str, Region], since: float) -> "Known":
        """The page's regions, with what is known of them beside the page as it was saved.

        Args:
            since: when the page was shown to us, of the monotonic clock.
        """
        with self._lock:
            names = {*self._ids.values()}
        given = {name: kept for name in (*names, *page) if (kept := self._answered.get((self._task, name)))}
        lacking = {name: kept for name, kept in given.items() if name not in page}
        unsaved = {name: region for name, (region, at) in lacking.items() if since - at < _UNSAVED}
        return Known(
            shown={**unsaved, **page},
            answered={name: region for name, (region, _) in given.items()},
            deleted=[region for name, (region, _) in lacking.items() if name not in unsaved],
            page=page,
        )


@dataclass(frozen=True, slots=True)
class Known:
    """The regions of a page.

    Attributes:
        shown: those that are there, by id; what was answered too lately to be saved as it was answered.
        answered: as they were answered last, before a person edited them.
        deleted: those that a person has deleted.
        page: as it was saved.
    """

    shown: Mapping[str, Region]
    answered: Mapping[str, Region]
    deleted: Sequence[Region]
    page: Mapping[str, Region]

    def is_saved(self, region: Region) -> bool:
        """The page was saved since the region was answered last, as far as that is remembered."""
        answered = self.answered.get(region.id)
        is_newest = answered is None or answered.meta.get("seal") == region.meta.get("seal")
        return region.id in self.page and is_newest


def points_of(region: Region) -> dict[str, bool]:
    """The clicks that made a region: positive or not, by id."""
    points: Any = region.meta.get("points")
    return {str(name): bool(sign) for name, sign in points.items()} if isinstance(points, Mapping) else {}
