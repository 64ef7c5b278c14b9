"""Answers the events of Label Studio's interactive mode: masks of clicks at once, and tracks as they grow."""

import math
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backend.errors import BackendError, BadRequest
from backend.interactive.session import InteractiveSession, SessionKey
from backend.interactive.sessions import InteractiveSessions
from backend.interactive.track_feed import FeedPart, TrackedFrame, TrackFeed
from backend.jobs.job import Job
from backend.jobs.scheduler import Scheduler
from backend.jobs.spec import FramePrompts
from backend.labelstudio.interactive_event import (
    InteractiveEvent,
    format_answer,
    format_mask,
    parse_event,
    read_event_name,
    read_task,
)
from backend.labelstudio.label_config import parse_label_config
from backend.recent_values import RecentValues
from backend.settings import Settings
from backend.tracks.frame_range import FrameRange
from backend.tracks.geometry import Box

_MAX_KEYFRAMES = 32
"""Keyframes in one answer, beside those of the one before."""
_WAIT_SECONDS, _POLL_SECONDS = 5.0, 0.1
"""How long an answer about a track waits for a keyframe, and how often it looks."""
_PACE_SECONDS = 0.25
"""The shortest time from one answer with keyframes to the next."""
_HOLD_SECONDS = 2.0
"""How long a failing request for progress is held: the page asks again at once."""
_MAX_TRACKS = 512

Value = dict[str, Any]


class InteractiveEvents:
    """One per process; any thread may use it.

    Args:
        model: name and version of the engine.
    """

    def __init__(
        self, settings: Settings, sessions: InteractiveSessions, scheduler: Scheduler, model: tuple[str, str]
    ) -> None:
        self._settings, self._sessions, self._scheduler, self._model = settings, sessions, scheduler, model
        self._deliveries: RecentValues[_Delivery] = RecentValues(_MAX_TRACKS)
        self._refused: RecentValues[str] = RecentValues(_MAX_TRACKS)

    def answer(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any], xml: str, project: str
    ) -> dict[str, Any]:
        """The prediction that answers an event.

        Raises:
            BackendError: the event cannot be answered; the page shows the message.
        """
        name = read_event_name(context)
        if name == "capabilities":
            return format_answer("capabilities", self._capabilities())
        if name == "release":
            self._sessions.close(project, str(read_task(tasks)["id"]))
            return format_answer("release_ack", {"status": "released"})
        try:
            config = parse_label_config(xml)
        except BadRequest:
            if name != "prewarm":
                raise
            # There is nothing to encode, which is no error for the page.
            return format_answer("prewarm_ack", {"status": "ok", "cached": [], "pending": []})
        event = parse_event(tasks, context, config, project)
        return format_answer(*self._answer(name, event), config)

    def _answer(self, name: str, event: InteractiveEvent) -> tuple[str, Value]:
        match name:
            case "prewarm":
                return "prewarm_ack", self._prewarm(event)
            case "track":
                return self._track(event)
            case "track_progress":
                try:
                    return "track_progress", self._progress(event)
                except BackendError:
                    time.sleep(_HOLD_SECONDS)
                    raise
            case "track_cancel":
                return "track_cancel_ack", self._cancel(event)
        return "bitmask", self._preview(event)

    def _open(self, event: InteractiveEvent) -> InteractiveSession:
        return self._sessions.open(SessionKey(event.project, event.task_id, event.url, event.framerate))

    def _capabilities(self) -> Value:
        name, version = self._model
        return {
            "prompts": ["point", "box"],
            "targets": [{"tag": "VideoRectangle", "output": "bbox", "features": ["track"]}],
            "model_info": {"name": name.upper(), "version": version},
        }

    def _prewarm(self, event: InteractiveEvent) -> Value:
        session = self._open(event)
        try:
            frames = event.frames_ahead(session.clock.length)
        except BadRequest as error:
            return {"status": "error", "error": str(error)}
        session.encode_ahead(frames)
        sources, encoded = sorted({*map(session.clock.source_frame, frames)}), session.encoded_frames
        return {
            "status": "ok",
            "cached": [source for source in sources if source in encoded],
            "pending": [source for source in sources if source not in encoded],
            "frame_count": session.clock.picture_count,
        }

    def _preview(self, event: InteractiveEvent) -> Value:
        points, box = event.read_prompts()
        if not points and box is None:
            return {}
        session = self._open(event)
        candidates = session.preview(FramePrompts(event.frame(session.clock.length), box, points))
        width, height = session.video.size
        mask = candidates[0].mask if candidates else None
        return format_mask(mask.to_mask() if mask else np.zeros((height, width), bool))

    def _track(self, event: InteractiveEvent) -> tuple[str, Value]:
        try:
            reach = event.read_reach()
        except BadRequest as error:
            return "track_error", {"error": str(error), "done": True}
        session_id = secrets.token_hex(6)
        value: Value = {"session_id": session_id, "total_frames": 0, "fps": event.framerate, "duration_ms": 0.0}
        try:
            session = self._open(event)
            frames = self._start(event, session, session_id, reach)
        except BackendError as error:
            # The page shows a sentence only if it comes with the progress of a track.
            self._refused.put((event.task_id, session_id), str(error))
            return "track_started", value
        duration = session.video.duration * 1000
        return "track_started", value | {"total_frames": len(frames), "duration_ms": duration}

    def _start(self, event: InteractiveEvent, session: InteractiveSession, session_id: str, reach: int | None) -> range:
        """Start a track; returns the LS frames that it goes through."""
        points, box = event.read_prompts()
        if not points and box is None:
            raise BadRequest("there is nothing to track: click on the object or draw a box around it")
        length, direction = session.clock.length, event.direction
        frame = event.frame(length)
        session.clock.check_frame(frame)
        reach = length if reach is None else reach
        first = frame if direction == "forward" else max(1, frame - reach)
        last = frame if direction == "backward" else min(length, frame + reach)
        prompts = [FramePrompts(frame, box, points)]
        session.start_track(session_id, prompts, direction, ranges=(FrameRange(first, last),))
        return range(first, last + 1)

    def _progress(self, event: InteractiveEvent) -> Value:
        key = event.task_id, event.session_id
        if error := self._refused.get(key):
            return {"error": error, "done": True}
        job = self._find_job(event)
        if job is None:
            return {"error": "session not found", "done": True}
        delivery = self._deliveries.get(key)
        if delivery is None:
            delivery = _Delivery(job, self._settings)
            self._deliveries.put(key, delivery)
        return delivery.next(self._scheduler, event.framerate)

    def _cancel(self, event: InteractiveEvent) -> Value:
        job = self._find_job(event)
        if job is None:
            return {"status": "not_found"}
        self._scheduler.cancel(job.number)
        return {"status": "cancelled"}

    def _find_job(self, event: InteractiveEvent) -> Job | None:
        """The job of a track that an event of this task started, also before a restart."""
        job = self._scheduler.newest((event.task_id, "region", event.session_id)) if event.session_id else None
        return job if job and job.row.spec.project == event.project and len(job.row.spec.prompts) == 1 else None


class _Delivery:
    """The keyframes of one track on their way to the page.

    The page does not tell which answers it got, so each repeats the keyframes of the one before.
    """

    def __init__(self, job: Job, settings: Settings) -> None:
        self._job, self._feed = job, TrackFeed(job, settings.keyframes)
        self._waiting: list[TrackedFrame] = []
        self._last: list[TrackedFrame] = []
        self._sent = 0
        self._answered_at = -math.inf
        self._lock = threading.Lock()

    def next(self, scheduler: Scheduler, framerate: float) -> Value:
        """The next answer; waits until there is something new."""
        with self._lock:
            part = self._wait(scheduler)
            new, self._waiting = self._waiting[:_MAX_KEYFRAMES], self._waiting[_MAX_KEYFRAMES:]
            given, self._last = [*self._last, *new], new
            if new:
                self._answered_at = time.monotonic()
            is_done = part.is_complete and not self._waiting
            # With an error the page drops the keyframes of the same answer, so it comes after them.
            error = str(self._job.error) if is_done and self._job.error and not new else None
            sent = [] if error else given
            self._sent += len(sent)
            return {
                "frames": [_format_keyframe(one, part.size, framerate) for one in sent],
                "produced": part.done,
                "total": self._expected(part, is_done=is_done),
                "done": is_done and (error is not None or not self._job.error),
                "error": error,
            }

    def _wait(self, scheduler: Scheduler) -> FeedPart:
        start = time.monotonic()
        while True:
            part = self._feed.read()
            self._waiting += part.frames
            now = time.monotonic()
            is_due = self._waiting and now - self._answered_at >= _PACE_SECONDS
            if is_due or part.is_complete or now - start >= _WAIT_SECONDS:
                return part
            scheduler.wait([self._job], _POLL_SECONDS)
            time.sleep(_POLL_SECONDS / 10)  # if too many requests wait, the call before returns at once

    def _expected(self, part: FeedPart, *, is_done: bool) -> int:
        """How many keyframes to expect, repeated ones too: the page shows it beside how often it set one."""
        if is_done:
            return self._sent
        return max(self._sent, round(self._sent * part.total / part.done) if part.done else part.total)


def _format_keyframe(frame: TrackedFrame, size: tuple[int, int], framerate: float) -> Value:
    mask = frame.mask.to_mask() if frame.mask else _fill_box(frame.box, *size)
    # From the time the page computes the frame on which it sets the keyframe.
    return {"frame": frame.source, "time_ms": (frame.frame - 1) / framerate * 1000, **format_mask(mask)}


def _fill_box(box: Box, width: int, height: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The page makes nothing but the box around it."""
    mask = np.zeros((height, width), bool)
    x0, y0 = min(max(round(box.x0), 0), width - 1), min(max(round(box.y0), 0), height - 1)
    mask[y0 : max(round(box.y1), y0 + 1), x0 : max(round(box.x1), x0 + 1)] = True
    return mask
