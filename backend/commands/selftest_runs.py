"""What `selftest` runs with one choice of settings, and how it compares the results."""

import gc
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backend import engines
from backend.commands.console import print_message
from backend.engines.base import FAILED_PREFIX, WAITING_PREFIX, Session, watch_status
from backend.errors import SettingsError
from backend.settings import Settings
from backend.tracks.geometry import Box, Boxes, box_iou
from backend.tracks.prompts import Phrase, Point, Prompt
from backend.tracks.track import FrameResult
from backend.video import Video

if TYPE_CHECKING:
    from backend.engines.sam.engine import SamEngine  # torch

WARM = 16
"""Frames until an object's memory is full; earlier ones are faster."""
_ABSENT = Box(*[np.nan] * 4)


@dataclass(frozen=True, slots=True, eq=False)
class TimedTracks:
    """Objects that were tracked through a video.

    Attributes:
        boxes: shape (frames, objects, 4); NaN where one is absent.
        rate: frames a second once memories are full, from the file to boxes.
    """

    boxes: NDArray[np.float64]
    rate: float

    def likeness(self, others: NDArray[np.float64]) -> tuple[float, float]:
        """Mean and least IoU with other boxes, on the frames that both have; 0 where only one has the object."""
        count = min(len(self.boxes), len(others))
        mine, theirs = self.boxes[:count], others[:count]
        both_absent = np.isnan(mine[..., 0]) & np.isnan(theirs[..., 0])
        values = np.where(both_absent, 1.0, np.nan_to_num(box_iou(mine, theirs)))
        return float(values.mean()), float(values.min())


class EngineRuns:
    """Runs of a newly loaded engine on one video.

    Args:
        settings: of an engine of the SAM family.
        video: whose frames each run goes through.
        seconds: after which a run ends early; each has two frames at least.

    Raises:
        SettingsError: the engine cannot be loaded.
    """

    def __init__(self, settings: Settings, video: Video, seconds: float) -> None:
        gc.collect()  # two engines may not fit the device, and the one before may be part of a cycle
        begin = time.perf_counter()
        self.engine = _load(settings)
        self.load_seconds = time.perf_counter() - begin
        self._video, self._seconds = video, seconds

    def track(self, points: Sequence[Point]) -> TimedTracks:
        """Track one object from each click on frame 0, all together."""
        return self._track(points, self._seconds)

    def track_alone(self, points: Sequence[Point]) -> TimedTracks:
        """As `track`, each object in a session of its own."""
        tracks = [self._track([point], self._seconds / len(points)) for point in points]
        count = min(len(track.boxes) for track in tracks)
        boxes = np.concatenate([track.boxes[:count] for track in tracks], 1)
        return TimedTracks(boxes, 1 / sum(1 / track.rate for track in tracks))

    def find(self, text: str, wanted: Sequence[Boxes]) -> tuple[int, float]:
        """Search for words.

        Args:
            wanted: boxes that should be found, shape (n, 4) for each frame.

        Returns:
            How many objects there are at the end, and the mean of each wanted box's best IoU with them.
        """
        with self.engine.open(self._video) as session:
            session.prompt([Phrase(text)])
            *_, (last, _) = self._propagate(session, self._seconds)
        found = [observation.box for observation in last.tracks.values() if observation.box]
        best = [max((float(box_iou(np.array(box), one)) for box in found), default=0.0) for one in wanted[last.frame]]
        return len(found), float(np.mean(best))

    def _track(self, points: Sequence[Point], seconds: float) -> TimedTracks:
        self.engine.model.image_encoder.clear()  # so that every run encodes its pictures
        clicks = [Prompt(str(number), 0, points=(point,)) for number, point in enumerate(points)]
        with self.engine.open(self._video) as session:
            session.prompt(clicks)
            results, times = zip(*self._propagate(session, seconds), strict=True)
        boxes = [[result.tracks[click.track].box or _ABSENT for click in clicks] for result in results]
        first = min(WARM, len(times) - 2)
        return TimedTracks(np.array(boxes, float), (len(times) - 1 - first) / max(times[-1] - times[first], 1e-9))

    def _propagate(self, session: Session, seconds: float) -> list[tuple[FrameResult, float]]:
        """The results, and when each came."""
        begin, timed = time.perf_counter(), []
        with closing(session.propagate(range(len(self._video)))) as results:
            for result in results:
                timed.append((result, time.perf_counter()))
                if len(timed) > 1 and timed[-1][1] - begin > seconds:
                    break
        return timed


def _load(settings: Settings) -> "SamEngine":
    engine = engines.load_engine(settings)
    for status in watch_status(engine, 0.05):
        if status.startswith(FAILED_PREFIX):
            raise SettingsError(status.removeprefix(FAILED_PREFIX))
        if status.startswith(WAITING_PREFIX):
            print_message(f"the model is {status}")
    return engine  # type: ignore[return-value]  # both others are of this family
