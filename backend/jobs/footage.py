"""What every job works on."""

from collections.abc import Callable
from dataclasses import dataclass

from backend.engines.base import Engine
from backend.video import Video


@dataclass(frozen=True, slots=True)
class Footage:
    """A task's video, as the page counts it, and what goes through it.

    Attributes:
        open: opens the file, however long that takes, unless it is cancelled.
        framerate: frames per second that the page counts with.
        max_frames: how far to go beyond what was prompted; 0: no limit.
        bound: the least IoU of an interpolated box with the tracked one.
    """

    open: Callable[[Callable[[], bool]], Video]
    framerate: float
    engine: Engine
    max_frames: int
    bound: float
