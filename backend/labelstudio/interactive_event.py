"""An event of Label Studio's interactive mode, in which people click on the video and see the mask.

The page sends it as `context.event`; a click has no event, only a frame. It is in Label Studio's public source, not in
release 1.23.2.
"""

import base64
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.errors import BadRequest
from backend.labelstudio.json_values import read_mappings, read_number
from backend.labelstudio.label_config import LabelConfig
from backend.tracks.prompts import Direction
from backend.video import encode_mask_png

EVENTS = ("capabilities", "prewarm", "predict", "track", "track_progress", "track_cancel", "release")
MAX_WINDOW = 20
"""Frames that are encoded ahead unless the page asks for fewer; also the most."""
_LONGEST = 1e9
"""Milliseconds or frames that a request may name."""

PercentBox = tuple[float, float, float, float, float]
"""x, y, width, height and rotation, as in `FramePrompts`."""


def is_event(context: Mapping[str, Any]) -> bool:
    """Whether a request's context is one of these events."""
    return "event" in context or ("frame" in context and "result" in context)


def read_event_name(context: Mapping[str, Any]) -> str:
    """The event of a context.

    Raises:
        BadRequest: there is no such event.
    """
    event = context.get("event", "predict")
    if event not in EVENTS:
        raise BadRequest(f"the event {str(event)[:40]!r} is not known: it is one of {', '.join(EVENTS)}")
    return str(event)


@dataclass(frozen=True)
class InteractiveEvent:
    """An event about a task.

    Args:
        project: the task's project.
        task: with its `id` and `data`.
        context: what the page sent.
    """

    project: str
    task: Mapping[str, Any]
    config: LabelConfig
    context: Mapping[str, Any]

    @property
    def task_id(self) -> str:
        """The task's id."""
        return str(self.task["id"])

    @property
    def url(self) -> str:
        """The video's address.

        Raises:
            BadRequest: the task has none.
        """
        return self.config.video.url(self.task)

    @cached_property
    def framerate(self) -> float:
        """Frames per second that the page counts with."""
        return self.config.video.rate(self.task["data"])

    @property
    def session_id(self) -> str:
        """The track that it is about; empty: none."""
        session_id = self.context.get("session_id")
        return session_id if isinstance(session_id, str) else ""

    @property
    def direction(self) -> Direction:
        """Where to track; anything unknown means forward."""
        direction = self.context.get("direction")
        return "backward" if direction == "backward" else "both" if direction == "both" else "forward"

    def frame(self, length: int) -> int:
        """The LS frame on screen; a time counts more than a frame's number.

        Args:
            length: LS frames of the video.

        Raises:
            BadRequest: it is not a number.
        """
        milliseconds = read_number(self.context.get("time_ms"), 1e15)
        if milliseconds is not None:
            # The page seeks to 2 ms after a frame's start.
            frame = math.floor(max(milliseconds, 0) / 1000 * self.framerate + 1e-6) + 1
            return min(frame, length)
        frame = self.context.get("frame", 1)
        if not isinstance(frame, int) or isinstance(frame, bool):
            raise BadRequest("the frame of the event is not a whole number: frames start at 1")
        return max(1, frame)

    def frames_ahead(self, length: int) -> list[int]:
        """The LS frames to encode, the one on screen first.

        Raises:
            BadRequest: the window is no number of frames.
        """
        window = self.context.get("window", MAX_WINDOW)
        if not isinstance(window, int) or isinstance(window, bool):
            raise BadRequest("window must be an integer")
        if window < 0:
            raise BadRequest("window must be >= 0")
        frame, window = self.frame(length), min(window, MAX_WINDOW)
        if self.direction == "backward":
            return list(range(frame, max(0, frame - window - 1), -1))
        return list(range(frame, min(length, frame + window) + 1)) or [frame]

    def read_prompts(self) -> tuple[tuple[tuple[float, float, bool], ...], PercentBox | None]:
        """The points, and the last box, in percent; what is neither is left out."""
        points, box = [], None
        for item in read_mappings(self.context.get("result")):
            value, kind = item.get("value"), item.get("type")
            if not isinstance(value, Mapping):
                continue
            x, y, width, height = (read_number(value.get(name), 1e6) for name in ("x", "y", "width", "height"))
            if x is None or y is None:
                continue
            if kind == "keypointlabels" or (kind != "rectanglelabels" and width is None):
                points.append((x, y, value.get("positive", True) is not False))
            elif width is not None and height is not None:
                box = (x, y, width, height, 0.0)
        return tuple(points), box

    def read_reach(self) -> int | None:
        """How many frames to track from the prompted one; None: to the end.

        Raises:
            BadRequest: it is not a number, or negative.
        """
        duration, frames = self.context.get("max_duration_ms"), self.context.get("max_frames")
        if duration is not None:
            number = read_number(duration, _LONGEST)
            if number is None or number < 0:
                raise BadRequest("max_duration_ms must be a number >= 0")
            return round(number / 1000 * self.framerate)
        if frames is not None and (
            not isinstance(frames, int) or isinstance(frames, bool) or not 0 <= frames < _LONGEST
        ):
            raise BadRequest("max_frames must be an integer >= 0")
        return frames


def parse_event(
    tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any], config: LabelConfig, project: str
) -> InteractiveEvent:
    """Read an event about a task.

    Raises:
        BadRequest: there is no task.
    """
    return InteractiveEvent(project, read_task(tasks), config, context)


def read_task(tasks: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The task of a request.

    Raises:
        BadRequest: there is none.
    """
    task = tasks[0] if tasks and isinstance(tasks[0], Mapping) else {}
    if "id" not in task or not isinstance(task.get("data"), Mapping):
        raise BadRequest("the request holds no task: it needs tasks: [{id, data}]")
    return task


def format_mask(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask of shape (height, width); the page makes shapes of it in percent of its size."""
    height, width = mask.shape
    png = base64.b64encode(encode_mask_png(mask)).decode()
    return {"imageDataURL": f"data:image/png;base64,{png}", "width": width, "height": height}


def format_answer(kind: str, value: Mapping[str, Any], config: LabelConfig | None = None) -> dict[str, Any]:
    """The prediction that answers an event.

    Args:
        kind: its type.
        config: of the project; None: the event was not about a task's video.
    """
    names = {}
    if config is not None:
        video = config.video.name
        names = {"from_name": config.region_control(video), "to_name": video}
    item = {"id": secrets.token_hex(4), **names, "type": kind, "origin": "manual", "value": dict(value)}
    return {"result": [item] if value else [], "score": 0.0}
