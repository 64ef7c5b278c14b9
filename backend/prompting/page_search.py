"""A search of the prompting page: words, or boxes as examples; each object that it finds is a track of the page."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np

from backend.jobs.job import Job
from backend.predict.page_track import PageTrack
from backend.prompting.page import Page

_KEY = "search"


@dataclass(frozen=True, slots=True)
class PageSearch:
    """What is looked for; values that are stored as JSON.

    Attributes:
        job: the number of the job that looks for it.
        text: as it was typed; with examples, the name of their kind.
        label: the class of what is found, unless the words name one; empty: none.
        removed: ids of its tracks that a person has removed from the page.
    """

    job: int
    text: str
    label: str = ""
    removed: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The search as JSON."""
        return json.dumps({_KEY: asdict(self)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """Read what `to_json` wrote; None: it is something else."""
        try:
            stored = json.loads(text)[_KEY]
            return cls(**(stored | {"removed": tuple(stored["removed"])}))
        except (ValueError, TypeError, LookupError):
            return None

    def without(self, names: Iterable[str]) -> Self:
        """The search after some of its tracks were removed."""
        return replace(self, removed=(*self.removed, *names))


@dataclass(frozen=True, slots=True)
class ListedSearch:
    """A search of the page with its job."""

    name: str
    search: PageSearch
    job: Job

    def tracks(self, page: Page, least: int) -> Iterator[tuple[str, PageTrack]]:
        """What it has found so far, by the id of its region.

        Args:
            least: seen on fewer frames, it may be a mistake.
        """
        if (resolved := self.job.resolved) is None:
            return
        phrases = resolved.propagation.track_phrases
        for found, track in resolved.propagation.tracks().items():
            name = find_id(self.name, found)
            if name in self.search.removed or np.count_nonzero(~np.isnan(track.scores)) < least:
                continue
            classes = page.config.classes_of_phrase(phrases.get(found, ""), page.config.video.name)
            label = next(iter(classes), self.search.label)
            yield name, PageTrack(self.job.number, label, (), (), "forward", found=found)

    def to_state(self) -> dict[str, Any]:
        """For the page."""
        done, total = self.job.progress()
        error = str(self.job.error) if self.job.error else None
        return {"id": self.name, "text": self.search.text, "job": self.job.number, "state": self.job.state,
                "error": error, "done": done, "total": total}  # fmt: skip


def find_id(search: str, found: str) -> str:
    """The id of the region of an object, by the id of its search and its name there."""
    return "w" + hashlib.sha256(f"{search}|{found}".encode(errors="replace")).hexdigest()[:9]
