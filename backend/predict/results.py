"""Turns what jobs have computed into keyframes of regions, also while they run.

A person's keyframes never change. Frames that are not computed yet keep the boxes that the page shows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from backend.jobs.job import Job
from backend.jobs.spec import OBJECT_TRACK, FramePrompts, ResolvedJob
from backend.labelstudio.clicks import Click
from backend.labelstudio.keyframe import count_visible_frames
from backend.labelstudio.keyframes import (
    KeyframeSet,
    SampledTrack,
    choose_keyframes,
    fill_unlooked,
    sample_shown,
    sample_track,
)
from backend.labelstudio.region import Region
from backend.labelstudio.segments import Segment, kept_keyframes
from backend.settings import Settings
from backend.tracks.corrections import follow_corrections
from backend.tracks.frame_range import LAST_FRAME
from backend.tracks.prompts import Direction
from backend.tracks.track import Track

_WHOLE_VIDEO = Segment(None, None)


def frame_prompts(segments: Sequence[Segment], clicked: Mapping[int, Sequence[Click]]) -> tuple[FramePrompts, ...]:
    """The prompts to track these segments: the keyframes next to them, and the clicks by LS frame."""
    anchors = {key.frame: key for segment in segments for key in (segment.before, segment.after) if key}
    points = {
        frame: [(click.x, click.y, click.positive is not False) for click in clicks]
        for frame, clicks in clicked.items()
    }
    boxes = {frame: (key.x, key.y, key.width, key.height, key.rotation) for frame, key in anchors.items()}
    frames = sorted({*boxes, *points})
    return tuple(FramePrompts(frame, boxes.get(frame), tuple(points.get(frame, ()))) for frame in frames)


def prompt_intervals(
    segments: Sequence[Segment], clicked: Mapping[int, Sequence[Click]], direction: Direction
) -> tuple[tuple[int | None, int | None], ...]:
    """LS frames from one prompt to the next in these segments; None: the start or end of the video.

    Args:
        clicked: the clicks by LS frame.
        direction: where to track beyond the first and the last click of a segment.
    """
    intervals: list[tuple[int | None, int | None]] = []
    for segment in segments:
        inside = sorted(frame for frame in clicked if frame in segment.frames(LAST_FRAME))
        before = segment.before.frame if segment.before else None
        after = segment.after.frame if segment.after else None
        pairs = list(pairwise([before, *inside, after]))
        if inside and before is None and direction == "forward":
            pairs = pairs[1:]
        if inside and after is None and direction == "backward":
            pairs = pairs[:-1]
        intervals += pairs
    return tuple(intervals)


class RegionResult:
    """The keyframes of a region that a job tracks."""

    def __init__(self, job: Job, region: Region, segments: Sequence[Segment], settings: Settings) -> None:
        self.job = job
        self._region = region
        self._segments = segments
        self._settings = settings

    def progress(self) -> tuple[int, int]:
        """Frames done and in total; before the video is open, Label Studio's number of frames."""
        done, total = self.job.progress()
        return done, total or self._region.frames_count or 1

    def read(self) -> tuple[KeyframeSet, float | None]:
        """The backend's keyframes so far, and the mean score of the frames where the object is present."""
        # Read before the results: if the job ends in between, they are complete all the same.
        is_whole = self.job.state == "done"
        resolved = self.job.resolved
        region, segments = self._region, self._segments
        length = min(resolved.clock.length if resolved else LAST_FRAME, region.frames_count or LAST_FRAME)
        if resolved is None:
            if length == LAST_FRAME:  # the length of the video is not known yet
                return KeyframeSet(kept_keyframes(segments), region.iou), region.score
            return self._choose(lambda segment: sample_shown(segment, region.keyframes, length)), region.score
        buffer = resolved.propagation.target(OBJECT_TRACK)
        track, processed = self._follow_corrections(buffer.track(), resolved), buffer.processed_frames()

        def sample(segment: Segment) -> SampledTrack:
            new = sample_track(segment, track, processed, resolved.clock, resolved.size, length)
            return new if is_whole else fill_unlooked(segment, new, sample_shown(segment, region.keyframes, length))

        answer = self._choose(sample, resolved.size, is_whole=is_whole), self._score(track, resolved)
        self.job.is_fetched |= is_whole
        return answer

    def _choose(
        self, sample: Callable[[Segment], SampledTrack], size: tuple[int, int] | None = None, *, is_whole: bool = False
    ) -> KeyframeSet:
        prompted = [prompts.frame for prompts in self.job.row.spec.prompts]
        memo = self.job.resolved.memo if self.job.resolved else None
        chosen = choose_keyframes(self._segments, sample, self._settings, size, prompted, is_whole=is_whole, memo=memo)
        if is_whole and not any(segment.kept or segment.set_aside for segment in self._segments):
            return chosen
        ious = [iou for iou in (chosen.iou, self._region.iou) if iou is not None]
        return replace(chosen, iou=min(ious, default=None))

    def _follow_corrections(self, track: Track, resolved: ResolvedJob) -> Track:
        """The track, moved beside a person's corrections as these say."""
        if not self._region.corrections:
            return track
        humans = [key for key in self._region.keyframes if key.is_human]
        rows = resolved.clock.source_frames(np.array([key.frame for key in humans])) - track.start
        given = dict(zip(rows.tolist(), humans, strict=True))
        corrections = {
            row: key.box(*resolved.size).clip(*resolved.size)
            for row, key in given.items()
            if key.frame in self._region.corrections and key.enabled and not key.rotation
        }
        boxes = follow_corrections(track.boxes, corrections, given)
        return replace(track, boxes=np.clip(boxes, 0.0, np.tile(resolved.size, 2)))

    def _score(self, track: Track, resolved: ResolvedJob) -> float | None:
        """The mean of the tracked frames' scores, and of the region's earlier score for frames that are kept."""
        scores = track.scores[~np.isnan(track.scores)]
        kept_count = 0
        if self._region.score is not None:
            length = resolved.clock.length
            kept_count = sum(
                count_visible_frames(segment.kept, segment.frames(length).stop)
                for segment in self._segments
                if segment.kept
            )
        total, count = float(scores.sum()) + kept_count * (self._region.score or 0.0), len(scores) + kept_count
        return total / count if count else self._region.score


@dataclass(frozen=True, slots=True)
class TextDetection:
    """An object that a text prompt has found.

    Attributes:
        phrase: the phrase that it fits.
        track: its keyframes so far.
        score: mean over the frames where it is present.
    """

    phrase: str
    track: KeyframeSet
    score: float


class TextResult:
    """The objects that the job of a text prompt has found."""

    def __init__(self, job: Job, settings: Settings) -> None:
        self.job = job
        self._settings = settings

    @property
    def length(self) -> int | None:
        """LS frames of the video, once it is open."""
        resolved = self.job.resolved
        return resolved.clock.length if resolved else None

    def progress(self) -> tuple[int, int]:
        """Frames done and in total."""
        done, total = self.job.progress()
        return done, total or 1

    def last_frame(self) -> int:
        """The last LS frame that was searched; `LAST_FRAME` if the search reached the end of the video."""
        is_whole, resolved = self.job.state == "done", self.job.resolved
        if resolved is None or (newest := resolved.propagation.newest_frame) is None:
            return 0
        clock = resolved.clock
        return LAST_FRAME if is_whole and newest == clock.picture_count - 1 else clock.first_frame(newest)

    def detections(self) -> dict[str, TextDetection]:
        """The objects that were found so far, by names that do not change while the job runs."""
        is_whole = self.job.state == "done"
        detections = self.choose()
        self.job.is_fetched |= is_whole
        return {name: detection for name, detection in detections.items() if detection.track.keyframes}

    def choose(self) -> dict[str, TextDetection]:
        """Choose the keyframes of all objects so far, those of brief ones, too."""
        # Read before the results: if the job ends in between, they are complete all the same.
        is_whole, resolved = self.job.state == "done", self.job.resolved
        if resolved is None:
            return {}
        tracks = resolved.propagation.tracks()
        phrases = resolved.propagation.track_phrases
        return {
            name: self._detection(name, track, phrases[name], resolved, is_whole)
            for name, track in tracks.items()
            if name in phrases
        }

    def _detection(self, name: str, track: Track, phrase: str, resolved: ResolvedJob, is_whole: bool) -> TextDetection:
        """An object; it has no keyframes while it is brief, because it may be a mistake."""
        processed, length = resolved.propagation.processed_frames(name), resolved.clock.length
        sample = sample_track(_WHOLE_VIDEO, track, processed, resolved.clock, resolved.size, length)
        is_brief = np.count_nonzero(~np.isnan(sample.boxes[:, 0])) < self._settings.min_track_frames
        if is_brief and not is_whole:
            return TextDetection(phrase, KeyframeSet([]), 0.0)
        chosen = choose_keyframes(
            [_WHOLE_VIDEO],
            lambda _: sample,
            self._settings,
            resolved.size,
            is_whole=is_whole,
            memo=resolved.memo,
        )
        return TextDetection(phrase, chosen, float(np.nanmean(track.scores)))
