"""One region's job, and what has come of it as keyframes; a person's stay, and what is missing is as it was shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from backend.jobs.job import Job
from backend.jobs.spec import OBJECT_TRACK, FramePrompts, ResolvedJob
from backend.labelstudio.box_scale import UNKNOWN, BoxScale, mean_scale, measure_scale, scale_boxes, scales_to_json
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
from backend.tracks.frame_range import LAST_FRAME, FrameRange
from backend.tracks.geometry import Box
from backend.tracks.prompts import Direction
from backend.tracks.track import Track


def frame_prompts(segments: Sequence[Segment], clicked: Mapping[int, Sequence[Click]]) -> tuple[FramePrompts, ...]:
    """The prompts of the segments that are tracked: the keyframes beside them, and the clicks."""
    tracked = [segment for segment in segments if segment.is_tracked]
    anchors = {item.frame: item for one in tracked for item in (one.before, one.after) if item}
    points = {frame: [(one.x, one.y, one.positive is not False) for one in clicks] for frame, clicks in clicked.items()}
    boxes = {frame: (one.x, one.y, one.width, one.height, one.rotation) for frame, one in anchors.items()}
    frames = sorted({*boxes, *points})
    return tuple(FramePrompts(frame, boxes.get(frame), tuple(points.get(frame, ()))) for frame in frames)


def tracked_intervals(
    segments: Sequence[Segment], clicked: Mapping[int, Sequence[Click]], direction: Direction
) -> tuple[tuple[int | None, int | None], ...]:
    """LS frames from one prompt to the next in the segments that are tracked.

    Args:
        direction: where to go beyond the first and the last click of a segment.
    """
    found: list[tuple[int | None, int | None]] = []
    for segment in segments:
        if not segment.is_tracked:
            continue
        inside = sorted(frame for frame in clicked if frame in segment.frames(LAST_FRAME))
        before = segment.before.frame if segment.before else None
        after = segment.after.frame if segment.after else None
        pairs = list(pairwise([before, *inside, after]))
        if inside and before is None and direction == "forward":
            pairs = pairs[1:]
        if inside and after is None and direction == "backward":
            pairs = pairs[:-1]
        found += pairs
    return tuple(found)


def tracked_ranges(segments: Sequence[Segment]) -> tuple[FrameRange, ...]:
    """The parts of the video that the segments are tracked on."""
    return tuple(segment.within for segment in segments if segment.is_tracked)


class RegionResult:
    """A region and the job that makes it anew; the job goes on meanwhile."""

    def __init__(self, job: Job, region: Region, segments: Sequence[Segment], settings: Settings) -> None:
        self.job = job
        self._region = region
        self._segments = segments
        self._settings = settings

    def progress(self) -> tuple[int, int]:
        """Frames done and to do; before the file is open, what Label Studio says that there are."""
        done, total = self.job.progress()
        return done, total or self._region.frames_count or 1

    def answer(self) -> tuple[KeyframeSet, float | None]:
        """Our keyframes as far as they are known, and the mean score of the frames where the object is present.

        Frames that are still to be done again stay as the region showed them: a correction makes nothing vanish.
        """
        # Asked before the plan: it may end in between, and then its plan lacks nothing.
        is_whole = self.job.state == "done"
        plan = self.job.resolved
        region, segments = self._region, self._segments
        length = min(plan.clock.length if plan else LAST_FRAME, region.frames_count or LAST_FRAME)
        if plan is None:
            if length == LAST_FRAME:  # nobody knows yet how long the video is
                return KeyframeSet(kept_keyframes(segments), region.iou), region.score
            return self._made(lambda one: sample_shown(one, region.keyframes, length)), region.score
        target = plan.propagation.target(OBJECT_TRACK)
        track, looked = self._calibrated(target.track(), plan), target.processed_frames()

        def seen(segment: Segment) -> SampledTrack:
            new = sample_track(segment, track, looked, plan.clock, plan.size, length)
            return new if is_whole else fill_unlooked(segment, new, sample_shown(segment, region.keyframes, length))

        return self._made(seen, plan.size, is_whole=is_whole), self._score(track, plan)

    def _made(
        self, seen: Callable[[Segment], SampledTrack], size: tuple[int, int] | None = None, *, is_whole: bool = False
    ) -> KeyframeSet:
        prompted = [one.frame for one in self.job.row.spec.prompts]
        made = choose_keyframes(self._segments, seen, self._settings, size, prompted, is_whole=is_whole)
        if is_whole and not any(segment.kept or segment.set_aside for segment in self._segments):
            return made
        # What stays keeps what it kept.
        known = [one for one in (made.iou, self._region.iou) if one is not None]
        return replace(made, iou=min(known, default=None))

    def learned(self) -> dict[str, Any]:
        """What the region's `meta` is to keep of its corrections, beyond what it knows itself."""
        plan = self.job.resolved
        if plan is None or not self._region.corrections:
            return {}
        return {"corrected": scales_to_json(self._growths(plan.propagation.target(OBJECT_TRACK).track(), plan))}

    def _growths(self, track: Track, plan: ResolvedJob) -> dict[int, BoxScale]:
        """What is known of corrections, by LS frame, with those that the job was prompted with."""
        known = dict(self._region.corrections)
        for item in (item for item in self._region.keyframes if item.frame in known):
            (model,), _ = track.at(plan.clock.source_frames(range(item.frame, item.frame + 1)))
            if not np.isnan(model[0]):
                person = item.box(*plan.size).clip(*plan.size)
                known[item.frame] = UNKNOWN if item.rotation else measure_scale(person, Box(*model.tolist()))
        return known

    def _calibrated(self, track: Track, plan: ResolvedJob) -> Track:
        """The track with boxes as large as a person's, as far as corrections say how large these are."""
        if not self._region.corrections:
            return track
        by = mean_scale(list(self._growths(track, plan).values()))
        return replace(track, boxes=scale_boxes(track.boxes, by, plan.size))

    def _score(self, track: Track, plan: ResolvedJob) -> float | None:
        """What was tracked now, and the region's earlier score for the frames that were kept."""
        scores = track.scores[~np.isnan(track.scores)]
        count = 0
        if self._region.score is not None:
            stay = [segment for segment in self._segments if segment.kept]
            length = plan.clock.length
            count = sum(count_visible_frames(one.kept or (), one.frames(length).stop) for one in stay)
        total = float(scores.sum()) + count * (self._region.score or 0.0)
        return total / (len(scores) + count) if len(scores) + count else self._region.score
