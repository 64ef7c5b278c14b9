"""A track of the prompting page: a person's prompts, the region that it corrects, and what is computed for it."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from backend.errors import BadRequest
from backend.jobs.job import Job
from backend.jobs.spec import FramePrompts
from backend.labelstudio.clicks import Click
from backend.labelstudio.keyframe import Keyframe
from backend.labelstudio.keyframes import KeyframeSet
from backend.labelstudio.region import TYPE, Region, fingerprint_keyframes, parse_region
from backend.labelstudio.region_results import build_region, format_region
from backend.labelstudio.segments import Segment, click_direction, segments_to_correct
from backend.predict.response_cache import parse_clicks
from backend.predict.results import RegionResult, frame_prompts, prompt_intervals
from backend.settings import Settings
from backend.tracks.frame_range import ALL_FRAMES, FrameRange
from backend.tracks.prompts import Direction, group_by_frame

PAGE_JOB = "page_job"
"""Key of a region's `meta`: the job of the prompting page whose result the region has."""


@dataclass(frozen=True, slots=True)
class PageTrack:
    """A track that was begun or corrected on the prompting page; values that are stored as JSON.

    Attributes:
        job: the number of the job that computes it.
        label: its class; empty: it has none.
        prompts: all prompts that were given on the page.
        added: those of them that the job adds to `before`.
        direction: where to track beyond the outer prompts.
        within: the frames to track.
        before: the region that the job corrects, as results; empty: the track is new.
        is_correction: the annotation had the region before.
        found: the object's name in a job that looks for words; empty: a person has prompted it.
        origin: the region that words have found, before it was corrected, as results.
        states: fingerprints of the region's keyframes on the annotator's page to which the job can be applied as it is.
    """

    job: int
    label: str
    prompts: tuple[FramePrompts, ...]
    added: tuple[FramePrompts, ...]
    direction: Direction
    within: FrameRange = ALL_FRAMES
    before: tuple[Mapping[str, Any], ...] = ()
    is_correction: bool = False
    found: str = ""
    origin: tuple[Mapping[str, Any], ...] = ()
    states: frozenset[str] = frozenset()

    @property
    def classes(self) -> tuple[str, ...]:
        """Its class, as a region has it."""
        return (self.label,) if self.label else ()

    def to_json(self) -> str:
        """The track as JSON."""
        return json.dumps(asdict(self) | {"states": sorted(self.states)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: the text is something else.
        """
        try:
            stored = dict(json.loads(text))
            prompts, added = (
                tuple(
                    FramePrompts(one["frame"], one["box"] and tuple(one["box"]), tuple(map(tuple, one["points"])))
                    for one in stored.pop(name)
                )
                for name in ("prompts", "added")
            )
            within, states = FrameRange(*stored.pop("within")), frozenset(stored.pop("states"))
            before, origin = tuple(stored.pop("before")), tuple(stored.pop("origin", ()))
            lists: dict[str, Any] = {"prompts": prompts, "added": added, "before": before, "origin": origin}
            return cls(**stored, **lists, within=within, states=states)
        except (TypeError, LookupError) as error:
            raise ValueError("this is not a track of the prompting page") from error

    def region(self, new: Region, shown: Region | None = None) -> Region:
        """The region that the job corrects.

        Args:
            new: as it is if there is none yet.
            shown: as the annotation has it; what is no part of the track stays as it is there.
        """
        before = parse_results(self.before, new)
        if shown is None:
            return before
        meta = {**before.meta, "track_id": shown.meta.get("track_id")}
        return replace(shown, keyframes=before.keyframes, meta=meta, score=before.score)

    def plan(self, new: Region) -> "TrackPlan":
        """What its job computes; the argument is that of `region`."""
        return plan_track(self.region(new), self.added, self.direction, self.within)


@dataclass(frozen=True, slots=True)
class TrackPlan:
    """What has to be computed for new prompts of a region.

    Attributes:
        region: with the new prompts: its boxes are a person's keyframes, its clicks are in `meta`.
        segments: of the region, those that are tracked and those that keep their keyframes.
        prompts, intervals, ranges: of the job.
    """

    region: Region
    segments: tuple[Segment, ...]
    prompts: tuple[FramePrompts, ...]
    intervals: tuple[tuple[int | None, int | None], ...]
    ranges: tuple[FrameRange, ...]

    @property
    def fixed(self) -> tuple[Keyframe, ...]:
        """A person's keyframes."""
        return self.region.humans

    def read(self, job: Job, settings: Settings, rate: float) -> tuple[Mapping[str, Any], ...]:
        """The region with what its job has computed, as results; without keyframes: the object was seen nowhere.

        Args:
            rate: frames per second that Label Studio counts with.
        """
        track, score = RegionResult(job, self.region, self.segments, settings).read()
        track = replace(track, keyframes=[*self.fixed, *track.keyframes])
        return build_results(self.region, track, score, job, rate)


def plan_track(
    region: Region, prompts: Sequence[FramePrompts], direction: Direction, within: FrameRange = ALL_FRAMES
) -> TrackPlan:
    """Plan what to compute for new prompts of a region: only what lies between the prompts next to them.

    Raises:
        BadRequest: there is nothing to track, or a click lies on a frame where a person set the box.
    """
    known = parse_clicks(region)
    humans = {key.frame for key in region.keyframes if key.is_human}
    for one in prompts:
        if one.box is None and one.frame in humans:
            raise BadRequest(f"a person has set the box on frame {one.frame}: draw a box there to change it")
    region = _add_prompts(region, prompts)
    frames = {one.frame for one in prompts}
    if region.keyframes and frames:
        direction = click_direction(region, frames, direction)
    segments = segments_to_correct(region, frames, {click.frame for click in known}, direction, within)
    tracked = [segment for segment in segments if segment.is_tracked]
    if not tracked:
        raise BadRequest("there is nothing to track: click on the object, or draw a box around it")
    clicks = group_by_frame(_clicks_of(tracked, parse_clicks(region)))
    return TrackPlan(
        region=region,
        segments=segments,
        prompts=frame_prompts(tracked, clicks),
        intervals=prompt_intervals(tracked, clicks, direction),
        ranges=tuple(segment.within for segment in tracked),
    )


def build_results(
    region: Region, track: KeyframeSet, score: float | None, job: Job, rate: float
) -> tuple[Mapping[str, Any], ...]:
    """A region with the track of a job, as results; none: it has no keyframe. `rate` is that of `TrackPlan.read`."""
    if not track.keyframes:
        return ()
    meta = {PAGE_JOB: job.number}
    built = build_region(region, track, track_id=region.track_id or 0, engine="", score=score, extra_meta=meta)
    return tuple(format_region(built, rate))


def parse_results(results: Sequence[Mapping[str, Any]], new: Region) -> Region:
    """The region of these results, or `new` if there are none."""
    if not results:
        return new
    found = next(result for result in results if result.get("type") == TYPE)
    return parse_region(found, [result for result in results if result is not found])


def region_prompts(region: Region) -> list[FramePrompts]:
    """The prompts that a region has: a person's keyframes, and clicks."""
    boxes = {key.frame: _box(key) for key in region.keyframes if key.is_human}
    points = group_by_frame(parse_clicks(region))
    return [
        FramePrompts(frame, boxes.get(frame), tuple(_point(click) for click in points.get(frame, ())))
        for frame in sorted({*boxes, *points})
    ]


def new_prompts(prompts: Sequence[FramePrompts], known: Sequence[FramePrompts]) -> tuple[FramePrompts, ...]:
    """The prompts without those that are known."""
    earlier = {one.frame: one for one in known}
    new = []
    for one in prompts:
        before = earlier.get(one.frame, FramePrompts(one.frame))
        box = None if one.box == before.box else one.box
        points = tuple(point for point in one.points if point not in before.points)
        if box or points:
            new.append(FramePrompts(one.frame, box, points))
    return tuple(new)


def state_of(region: Region | None) -> str:
    """Tells states of a region on the annotator's page apart; empty: it is not there."""
    return fingerprint_keyframes(region.keyframes) if region else ""


def _add_prompts(region: Region, prompts: Sequence[FramePrompts]) -> Region:
    keyframes = {key.frame: key for key in region.keyframes}
    points = dict(region.meta.get("points") or {}) if isinstance(region.meta.get("points"), Mapping) else {}
    for one in prompts:
        if one.box:
            keyframes[one.frame] = Keyframe(one.frame, True, *one.box)
        for x, y, positive in one.points:
            points[f"page {one.frame} {x:g} {y:g}"] = [one.frame, x, y, positive]
    meta = {**region.meta, "points": points} if points else region.meta
    return replace(region, keyframes=tuple(keyframes[frame] for frame in sorted(keyframes)), meta=meta)


def _clicks_of(segments: Collection[Segment], clicks: Collection[Click]) -> list[Click]:
    """The clicks in these segments, and on the keyframes next to them."""
    anchors = {key.frame for segment in segments for key in (segment.before, segment.after) if key}
    spans = [segment.frames(ALL_FRAMES.last) for segment in segments]
    return [click for click in clicks if click.frame in anchors or any(click.frame in span for span in spans)]


def _box(key: Keyframe) -> tuple[float, float, float, float, float]:
    return key.x, key.y, key.width, key.height, key.rotation


def _point(click: Click) -> tuple[float, float, bool]:
    return click.x, click.y, click.positive is not False
