"""The tracks of the prompting page as server-sent events: each event holds what is new since the one before."""

import json
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.jobs.rows import UNFINISHED
from backend.jobs.spec import ResolvedJob
from backend.labelstudio.keyframe import boxes_to_percent
from backend.prompting.page_search import ListedSearch
from backend.prompting.page_tracks import ListedTrack
from backend.tracks.geometry import Boxes

_MAX_FRAMES = 4000
"""Frames of one track in one event."""
_LISTED_SECONDS = 2.0
"""How often the jobs of the tracks are looked up: a job that goes on, or is replaced, is another one."""


class PageProgress:
    """What one open page has not got yet: a source for `backend.http.streams`.

    An event's id says which frames of which jobs the page has then, so that a page that comes back goes on there.

    Args:
        tracks: returns the tracks of the page with their newest jobs.
        searches: returns its searches.
        region_boxes: returns the boxes of a track that has ended as the annotation will show them, on so many LS
            frames: shape (n, 4), percent.
        last_id: the id of the last event that the page got; empty: it has got none.
    """

    mimetype = "text/event-stream"

    def __init__(
        self,
        tracks: Callable[[], Sequence[ListedTrack]],
        searches: Callable[[], Sequence[ListedSearch]],
        region_boxes: Callable[[ListedTrack, int], Boxes],
        last_id: str,
    ) -> None:
        self._list, self._list_searches, self._region_boxes = tracks, searches, region_boxes
        self._look()
        self._parts = 0
        self._has_more = False
        self._deliveries: dict[str, _Delivery] = {}
        for name, (number, is_final, runs) in _parse_id(last_id).items():
            if (track := self._tracks.get(name)) and track.job.number == number:
                self._deliveries[name] = _Delivery(track, runs, is_final=is_final)

    def _look(self) -> None:
        self._tracks = {one.name: one for one in self._list()}
        self._searches = self._list_searches()
        self._listed_at = time.monotonic()

    def state(self) -> Hashable:
        """Everything that an event depends on."""
        if time.monotonic() - self._listed_at > _LISTED_SECONDS:
            self._look()
        self._parts += self._has_more
        self._has_more = False
        jobs = [(one.name, one.job) for one in self._tracks.values()]
        jobs += [(one.name, one.job) for one in self._searches]
        return self._parts, *((name, job.number, job.state, job.progress()) for name, job in jobs)

    def content(self, state: object) -> bytes:
        """The next event."""
        if self._searches:  # they may have found more
            self._look()
        tracks = [self._track(name, one) for name, one in self._tracks.items()]
        position = {name: self._deliveries[name].position() for name in self._tracks}
        content = {"tracks": tracks, "searches": [one.to_state() for one in self._searches]}
        data = json.dumps(content, separators=(",", ":"))
        return f"id: {json.dumps(position, separators=(',', ':'))}\ndata: {data}\n\n".encode()

    def last_content(self, end: object) -> bytes:
        """A comment, which is no message: the page connects again by itself."""
        return b": \n\n"

    def _track(self, name: str, track: ListedTrack) -> dict[str, Any]:
        delivery, job = self._deliveries.get(name), track.job
        if delivery is None or delivery.track.job.number != job.number:
            delivery = self._deliveries[name] = _Delivery(track, [])
        delivery.track = track
        # Read once, and before the results: if the job ends in between, the next event says so, with its last frames.
        state, (done, total) = job.state, job.progress()
        frames, has_more = delivery.advance(None if state in UNFINISHED else self._region_boxes)
        self._has_more |= has_more
        return {
            "id": name,
            "job": job.number,
            "state": state,
            "phase": job.phase,
            "error": str(job.error) if job.error else None,
            "done": done,
            "total": total,
            "frames": frames,
            "more": has_more,
        }


class _Delivery:
    """Which LS frames of one job a page has."""

    def __init__(self, track: ListedTrack, runs: list[tuple[int, int]], *, is_final: bool = False) -> None:
        self.track = track
        self._runs, self._is_final = runs, is_final
        self._given: NDArray[np.bool_] | None = None
        self._region: Boxes | None = None  # as the annotation will show it

    def advance(
        self, region_boxes: Callable[[ListedTrack, int], Boxes] | None
    ) -> tuple[list[list[float | None]], bool]:
        """The next frames, and whether there are more: [frame, x, y, width, height, score], or [frame] if absent.

        Args:
            region_boxes: for a job that has ended: all frames come once more, as the annotation will show them.
        """
        computed = self.track.computed()
        if computed is None:
            return [], False
        resolved, track, looked = computed
        given = self._given if self._given is not None else self._restore(resolved)
        numbers = np.arange(1, resolved.clock.length + 1)
        sources = resolved.clock.source_frames(numbers)
        is_there = looked[sources]
        if region_boxes:
            if self._region is None:
                self._region = region_boxes(self.track, len(numbers))
            is_there |= ~np.isnan(self._region[:, 0])
            given &= self._is_final
            self._is_final = True
        rows = np.flatnonzero(is_there & ~given)
        has_more, rows = len(rows) > _MAX_FRAMES, rows[:_MAX_FRAMES]
        if not len(rows):
            return [], False
        given[rows] = True
        boxes, scores = track.at(sources[rows])
        percent = boxes_to_percent(boxes, *resolved.size) if self._region is None else self._region[rows]
        values = zip(numbers[rows].tolist(), percent.tolist(), np.round(scores, 4).tolist(), strict=True)
        return [_format_row(*row) for row in values], has_more

    def position(self) -> list[Any]:
        """The job's number, whether it had ended, and the first and last frame of each run of frames."""
        if self._given is None:
            return [self.track.job.number, self._is_final, self._runs]
        edges = np.flatnonzero(np.diff(np.concatenate(([False], self._given, [False])).astype(np.int8)))
        runs = [[int(first) + 1, int(stop)] for first, stop in edges.reshape(-1, 2)]
        return [self.track.job.number, self._is_final, runs]

    def _restore(self, resolved: ResolvedJob) -> NDArray[np.bool_]:
        self._given = np.zeros(resolved.clock.length, bool)
        for first, last in self._runs:
            self._given[max(first - 1, 0) : last] = True
        return self._given


def _format_row(frame: int, box: list[float], score: float) -> list[float | None]:
    if np.isnan(box[0]):
        return [frame]
    return [frame, *box] if np.isnan(score) else [frame, *box, score]


def _parse_id(text: str) -> dict[str, tuple[int, bool, list[tuple[int, int]]]]:
    """What an event's id says of each track; nothing if it is not one of ours."""
    try:
        return {
            str(name): (int(number), bool(is_final), [(int(first), int(last)) for first, last in runs])
            for name, (number, is_final, runs) in dict(json.loads(text or "{}")).items()
        }
    except (ValueError, TypeError):
        return {}
