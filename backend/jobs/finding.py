"""A job for words, and what it has found so far as keyframes."""

from dataclasses import dataclass

import numpy as np

from backend.jobs.job import Job
from backend.jobs.recipe import Plan
from backend.labelstudio.segments import Segment, sampled, tracked
from backend.labelstudio.sequence import LAST_FRAME, Item
from backend.tracks import Track

_WHOLE = Segment(None, None)


@dataclass(frozen=True, slots=True)
class Found:
    """One object that was found, as far as it is known.

    Attributes:
        phrase: the words that it answers to.
        items: its keyframes.
        score: mean over the frames where it is present.
    """

    phrase: str
    items: tuple[Item, ...]
    score: float


class Finding:
    """What a job for words has found; it goes on meanwhile.

    Args:
        bound: the least IoU of an interpolated box with the tracked one.
    """

    def __init__(self, job: Job, bound: float) -> None:
        self.job = job
        self._bound = bound

    @property
    def length(self) -> int | None:
        """LS frames of the video, once it is open."""
        plan = self.job.plan
        return plan.clock.length if plan else None

    def progress(self) -> tuple[int, int]:
        """Frames done and to do."""
        done, total = self.job.progress()
        return done, total or 1

    def until(self) -> int:
        """The last LS frame that was looked at; the last of all where the video's end was."""
        is_whole, plan = self.job.state == "done", self.job.plan
        if plan is None or (newest := plan.propagations.newest) is None:
            return 0
        return LAST_FRAME if is_whole and newest == plan.clock.pictures - 1 else plan.clock.frame(newest)

    def found(self) -> dict[str, Found]:
        """What is known by now, by names that stay the same while the job goes on."""
        plan = self.job.plan
        if plan is None:
            return {}
        tracks = plan.propagations.tracks()
        found = {name: self._found(track, plan.propagations.found[name], plan) for name, track in tracks.items()}
        return {name: one for name, one in found.items() if one.items}

    def _found(self, track: Track, phrase: str, plan: Plan) -> Found:
        boxes = sampled(_WHOLE, track, plan.clock, plan.size, plan.clock.length)
        return Found(phrase, tuple(tracked(_WHOLE, boxes, self._bound)), float(np.nanmean(track.scores)))
