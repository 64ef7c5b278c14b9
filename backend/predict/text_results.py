"""A job for words, and what it has found so far as keyframes."""

from dataclasses import dataclass

import numpy as np

from backend.jobs.job import Job
from backend.jobs.spec import ResolvedJob
from backend.labelstudio.keyframes import KeyframeSet, choose_keyframes, sample_track
from backend.labelstudio.segments import Segment
from backend.settings import Settings
from backend.tracks.frame_range import LAST_FRAME
from backend.tracks.track import Track

_WHOLE = Segment(None, None)


@dataclass(frozen=True, slots=True)
class TextDetection:
    """One object that was found, as far as it is known.

    Attributes:
        phrase: the words that it answers to.
        made: its keyframes.
        score: mean over the frames where it is present.
    """

    phrase: str
    made: KeyframeSet
    score: float


class TextResult:
    """What a job for words has found; it goes on meanwhile."""

    def __init__(self, job: Job, settings: Settings) -> None:
        self.job = job
        self._settings = settings

    @property
    def length(self) -> int | None:
        """LS frames of the video, once it is open."""
        plan = self.job.resolved
        return plan.clock.length if plan else None

    def progress(self) -> tuple[int, int]:
        """Frames done and to do."""
        done, total = self.job.progress()
        return done, total or 1

    def until(self) -> int:
        """The last LS frame that was looked at; the last of all where the video's end was."""
        is_whole, plan = self.job.state == "done", self.job.resolved
        if plan is None or (newest := plan.propagation.newest_frame) is None:
            return 0
        return LAST_FRAME if is_whole and newest == plan.clock.picture_count - 1 else plan.clock.first_frame(newest)

    def detections(self) -> dict[str, TextDetection]:
        """What is known by now, by names that stay the same while the job goes on."""
        # Asked before the plan: it may end in between, and then its plan lacks nothing.
        is_whole, plan = self.job.state == "done", self.job.resolved
        if plan is None:
            return {}
        tracks = plan.propagation.tracks()
        phrases = plan.propagation.track_phrases
        found = {name: self._found(name, track, phrases[name], plan, is_whole) for name, track in tracks.items()}
        return {name: one for name, one in found.items() if one.made.keyframes}

    def _found(self, name: str, track: Track, phrase: str, plan: ResolvedJob, is_whole: bool) -> TextDetection:
        """One object. One that is only seen for a moment has no keyframes, unless it may be seen on; then it waits."""
        looked, length = plan.propagation.processed_frames(name), plan.clock.length
        seen = sample_track(_WHOLE, track, looked, plan.clock, plan.size, length)
        is_short = np.count_nonzero(~np.isnan(seen.boxes[:, 0])) < self._settings.min_track_frames
        if is_short and not is_whole:
            return TextDetection(phrase, KeyframeSet([]), 0.0)
        made = choose_keyframes([_WHOLE], lambda _: seen, self._settings, plan.size, is_whole=is_whole)
        return TextDetection(phrase, made, float(np.nanmean(track.scores)))
