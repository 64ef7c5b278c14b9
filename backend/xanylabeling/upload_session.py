"""One folder that a client has opened: the objects that were prompted on its pictures, and their tracks."""

import hashlib
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backend.errors import BackendError, BadRequest, Busy
from backend.interactive.session import InteractiveSession
from backend.jobs.job import Job
from backend.jobs.scheduler import Scheduler
from backend.jobs.spec import OBJECT_TRACK, FramePrompts
from backend.labelstudio.json_values import read_number
from backend.tracks.frame_range import FrameRange
from backend.tracks.geometry import Box
from backend.tracks.prompts import Direction
from backend.tracks.track import Observation, Track
from backend.xanylabeling.shapes import ShapeOptions, build_shapes

CLICKED_LABEL = "AUTOLABEL_OBJECT"
"""The label of an object that was clicked; the client sets it to what the person types."""
_PROMPT_SECONDS = 25.0
"""How long words on one picture are waited for; the client waits 30 s."""
_SEPARATORS = re.compile(r"[,.;\n]")

Points = tuple[tuple[float, float, bool], ...]


@dataclass
class _Object:
    """What one object was prompted with on a frame: clicks in percent, or words."""

    frame: int
    points: Points = ()
    phrases: tuple[str, ...] = ()
    delivered: set[int] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The same for the same prompt."""
        parts = self.phrases if self.phrases else (self.frame, self.points)
        return "x" + hashlib.sha256(repr(parts).encode(errors="replace")).hexdigest()[:11]


class UploadSession:
    """Frames are those of the client: numbers of pictures, from 0.

    Args:
        name: identifies it to the client.
        session: on the pictures as a video.
    """

    def __init__(self, name: str, session: InteractiveSession, scheduler: Scheduler) -> None:
        self.name, self._session, self._scheduler = name, session, scheduler
        self.options = ShapeOptions()
        self._objects: list[_Object] = []
        self._groups: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    @property
    def length(self) -> int:
        """How many pictures there are."""
        return len(self._session.video.times)

    def prompt_points(self, frame: int, points: object, labels: object) -> list[dict[str, Any]]:
        """What clicks select on a picture.

        Clicks that contain those of the object before, on the same picture, refine it; others are a new object.

        Args:
            points: of shape (n, 2), 0..1 of the picture's width and height.
            labels: n numbers: 1 for clicks on the object, 0 beside it.

        Raises:
            BackendError: they are no clicks, or select nothing now.
        """
        self._check_frame(frame)
        clicks = _read_points(points, labels)
        candidates = self._session.preview(FramePrompts(frame + 1, points=clicks))
        with self._lock:
            last = self._objects[-1] if self._objects else None
            if last and last.points and last.frame == frame and {*last.points} <= {*clicks}:
                self._objects.pop()
            self._objects.append(_Object(frame, points=clicks))
            group = self._group(str(len(self._objects)), "")
        return build_shapes(candidates[0], CLICKED_LABEL, group, self.options) if candidates else []

    def prompt_words(self, frame: int, text: str) -> list[dict[str, Any]]:
        """What words find on a picture; classes are separated by commas.

        Raises:
            BackendError: there are no words, or they find nothing now.
        """
        self._check_frame(frame)
        phrases = tuple(dict.fromkeys(part.strip() for part in _SEPARATORS.split(text) if part.strip()))
        if not phrases:
            raise BadRequest("there are no words: type what to find, such as: car, bus")
        target = _Object(frame, phrases=phrases)
        ranges = (FrameRange(frame + 1, frame + 1),)
        job = self._session.start_track(f"{target.name}-{frame}", phrases=phrases, ranges=ranges)
        self._scheduler.wait([job], _PROMPT_SECONDS)
        if job.error:
            raise job.error
        if not job.has_ended:
            raise Busy("the words are still looked for: send them again in a few seconds")
        with self._lock:
            self._objects = [one for one in self._objects if one.phrases != phrases] + [target]
        return [shape for shapes in self._shapes(target, job, range(frame, frame + 1)).values() for shape in shapes]

    def propagate(self, start: int | None, end: int | None) -> "PictureTracks":
        """Track all objects that were prompted.

        Args:
            start: the first picture; None: from the prompts in both directions.
            end: the last picture; None: the last one there is, and from the first prompted picture on.

        Raises:
            BackendError: nothing was prompted, the pictures do not exist, or too many jobs wait.
        """
        with self._lock:
            objects = list(self._objects)
        if not objects:
            raise BadRequest("nothing was prompted: click on an object or send words first")
        last = self.length - 1 if end is None else min(end, self.length - 1)
        first = start or 0
        is_forward = start is not None and end is None
        if is_forward:  # each object from the picture on which it was prompted
            first = min(first, *(one.frame for one in objects))
        self._check_frame(first)
        if last < first:
            raise BadRequest(f"the range ends at picture {last + 1}, before it begins at {first + 1}")
        span = range(first, last + 1)
        jobs = [(one, self._start(one, range(one.frame, last + 1) if is_forward else span)) for one in objects]
        return PictureTracks(self, self._scheduler, jobs, span)

    def build_results(self, jobs: Iterable[tuple["_Object", Job]], span: range) -> dict[str, Any]:
        """The shapes on each picture by its number, without what an earlier run has brought."""
        results: dict[str, Any] = {}
        for target, job in jobs:
            new = [frame for frame in span if frame not in target.delivered]
            for frame, shapes in self._shapes(target, job, new).items():
                target.delivered.add(frame)
                results.setdefault(str(frame), {"masks": []})["masks"] += shapes
        return results

    def _start(self, target: _Object, span: range) -> Job:
        if target.phrases:
            ranges = FrameRange(span[0] + 1, span[-1] + 1)
            return self._session.start_track(target.name, phrases=target.phrases, ranges=(ranges,))
        frame = target.frame
        direction: Direction = "forward" if frame <= span[0] else "backward" if frame >= span[-1] else "both"
        ranges = FrameRange(min(span[0], frame) + 1, max(span[-1], frame) + 1)
        prompts = [FramePrompts(frame + 1, points=target.points)]
        return self._session.start_track(target.name, prompts, direction, ranges=(ranges,))

    def _shapes(self, target: _Object, job: Job, frames: Iterable[int]) -> dict[int, list[dict[str, Any]]]:
        resolved = job.resolved
        if resolved is None:
            return {}
        phrases = resolved.propagation.track_phrases
        number = str(self._objects.index(target) + 1) if target in self._objects else target.name
        frames, shapes = list(frames), dict[int, list[dict[str, Any]]]()
        for name, track in resolved.propagation.tracks().items():
            label = CLICKED_LABEL if name == OBJECT_TRACK else phrases[name]
            key = (number, "") if name == OBJECT_TRACK else (target.name, name)
            with self._lock:
                group = self._group(*key)
            for frame, seen in _observe(track, frames):
                if built := build_shapes(seen, label, group, self.options):
                    shapes.setdefault(frame, []).extend(built)
        return shapes

    def _group(self, target: str, track: str) -> int:
        """The number under which the client knows an object."""
        return self._groups.setdefault((target, track), len(self._groups) + 1)

    def _check_frame(self, frame: int) -> None:
        if not 0 <= frame < self.length:
            raise BadRequest(f"there is no picture {frame + 1}: the folder has {self.length}")


class PictureTracks:
    """Tracks of all objects of a session on a range of its pictures, while they are computed."""

    def __init__(
        self, session: UploadSession, scheduler: Scheduler, jobs: Sequence[tuple[_Object, Job]], span: range
    ) -> None:
        self._session, self._scheduler, self._jobs, self.span = session, scheduler, jobs, span
        self._results: dict[str, Any] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether all of them are complete, or will not be."""
        return all(job.has_ended for _, job in self._jobs)

    @property
    def error(self) -> BackendError | None:
        """Why nothing was computed; None: something was."""
        errors = [job.error for _, job in self._jobs if job.error]
        return errors[0] if len(errors) == len(self._jobs) else None

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody stopped one of them."""
        return any(job.state == "cancelled" for _, job in self._jobs)

    def wait(self, seconds: float) -> None:
        """Wait for the end."""
        self._scheduler.wait([job for _, job in self._jobs], seconds)

    def progress(self) -> tuple[int, float]:
        """The picture that was tracked last, and the share of all work that is done."""
        done, total, newest = 0, 0, self.span[0]
        for _, job in self._jobs:
            job_done, job_total = job.progress()
            done, total = done + job_done, total + (job_total or len(self.span))
            propagation = job.resolved.propagation if job.resolved else None
            if propagation is not None and propagation.newest_frame is not None and not job.has_ended:
                newest = propagation.newest_frame
        if self.has_ended:
            newest = self.span[-1]
        return newest, done / max(total, 1)

    def results(self) -> dict[str, Any]:
        """The shapes by picture, also if it is asked twice."""
        if self._results is None:
            self._results = self._session.build_results(self._jobs, self.span)
        return self._results

    def cancel(self) -> None:
        """Stop what is not complete; what is computed is kept, and comes with the same prompt again."""
        for _, job in self._jobs:
            if not job.has_ended:
                self._scheduler.cancel(job.number)


def _observe(track: Track, frames: Sequence[int]) -> Iterator[tuple[int, Observation]]:
    boxes, scores = track.at(np.array(frames, np.int64))
    for frame, box, score in zip(frames, boxes.tolist(), scores.tolist(), strict=True):
        if box[0] == box[0]:
            yield frame, Observation(Box(*box), score, track.masks.get(frame))


def _read_points(points: object, labels: object) -> Points:
    pairs = points if isinstance(points, list) else []
    signs = labels if isinstance(labels, list) else []
    if not pairs or len(pairs) != len(signs):
        raise BadRequest("points and point_labels must be lists of the same length, with at least one point")
    clicks = []
    for pair, sign in zip(pairs, signs, strict=True):
        x, y = (read_number(value) for value in pair) if isinstance(pair, list) and len(pair) == 2 else (None, None)
        if x is None or y is None or not (0 <= x <= 1 and 0 <= y <= 1):
            raise BadRequest("a point is no pair of numbers from 0 to 1: x and y as shares of the picture's sides")
        clicks.append((x * 100, y * 100, bool(read_number(sign))))
    return tuple(clicks)


def read_params(body: Mapping[str, Any]) -> ShapeOptions:
    """What a request says of shapes."""
    return ShapeOptions.from_params(body.get("params"))
