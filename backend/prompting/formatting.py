"""What the prompting page reads, as JSON: LS frames, percent of the picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from backend.formats.tasks import assign_track_numbers
from backend.jobs.spec import FramePrompts
from backend.labelstudio.keyframe import boxes_to_percent, format_keyframes
from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.region import Region
from backend.predict.page_track import TrackPlan, region_prompts
from backend.prompting.page import Page
from backend.prompting.page_tracks import ListedTrack
from backend.tracks.frame_range import ALL_FRAMES, LAST_FRAME
from backend.tracks.masks import Rle
from backend.tracks.track import Observation


def format_regions(regions: Sequence[Region], config: LabelConfig) -> list[dict[str, Any]]:
    """The regions of the annotation, in its order."""
    seen = [region for region in regions if region.keyframes]
    numbers = assign_track_numbers([(region.track_id, region.keyframes[0].frame) for region in seen])
    return [
        {
            "id": region.id,
            "number": number,
            "label": next(iter(config.own_classes(region.labels)), ""),
            "score": region.score,
            "keyframes": format_keyframes(region.keyframes),
            "prompts": [_format_prompts(one) for one in region_prompts(region)],
        }
        for number, region in zip(numbers, seen, strict=True)
    ]


def format_track(one: ListedTrack, page: Page) -> dict[str, Any]:
    """A track of the page.

    `kept` are the keyframes of the region that it corrects, and `computed` the frames on which the job replaces them.
    """
    track, job = one.track, one.job
    done, total = job.progress()
    plan = None if track.found else track.plan(page.new_region(one.name, track.label))
    return {
        "id": one.name,
        "job": job.number,
        "label": track.label,
        "direction": track.direction,
        "range": [track.within.first, track.within.last] if track.within != ALL_FRAMES else None,
        "prompts": [_format_prompts(one) for one in track.prompts],
        "kept": format_keyframes(plan.region.keyframes) if plan and track.before else [],
        "computed": _computed(plan) if plan else [],
        "state": job.state,
        "error": str(job.error) if job.error else None,
        "done": done,
        "total": total,
        "offered": one.is_offered,
    }


def format_candidate(observation: Observation, size: tuple[int, int]) -> dict[str, Any]:
    """A candidate of a preview."""
    box = boxes_to_percent(np.array([observation.box]), *size)[0].round(4).tolist() if observation.box else None
    return {
        "score": round(observation.score, 4),
        "box": box,
        "mask": format_rle(observation.mask) if observation.mask else None,
    }


def format_rle(mask: Rle) -> dict[str, Any]:
    """Run lengths down the columns, the first of pixels outside."""
    return {"width": mask.width, "height": mask.height, "counts": mask.counts.tolist()}


def _computed(plan: TrackPlan) -> list[list[int]]:
    """The first and the last frame of each part that is tracked."""
    tracked = [(segment.frames(LAST_FRAME), segment.within) for segment in plan.segments if segment.is_tracked]
    return [[max(frames.start, within.first), min(frames.stop - 1, within.last)] for frames, within in tracked]


def _format_prompts(prompts: FramePrompts) -> dict[str, Any]:
    box = [*prompts.box[:4]] if prompts.box else None
    return {"frame": prompts.frame, "box": box, "points": [[*point] for point in prompts.points]}
