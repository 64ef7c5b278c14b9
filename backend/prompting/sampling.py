"""The tracks of the prompting page on every frame, as it draws them."""

import numpy as np

from backend.labelstudio.keyframe import boxes_at, boxes_to_percent
from backend.labelstudio.region import Region
from backend.prompting.page import Page
from backend.prompting.page_tracks import ListedTrack
from backend.prompting.review import ReviewedTrack


def review_region(region: Region, page: Page, length: int) -> ReviewedTrack:
    """A region of the annotation on `length` LS frames; nobody knows the scores of its frames."""
    name = _name(region.track_id, next(iter(page.config.own_classes(region.labels)), ""))
    boxes = boxes_at(region.keyframes, np.arange(1, length + 1))
    return ReviewedTrack(region.id, name, boxes, np.full(length, np.nan))


def review_track(one: ListedTrack, page: Page, length: int) -> ReviewedTrack:
    """A track of the page: what its job has computed, and elsewhere the region that it corrects."""
    region, frames = one.track.region(page.new_region(one.name, one.track.label)), np.arange(1, length + 1)
    boxes, scores = np.full((length, 4), np.nan), np.full(length, np.nan)
    if region.keyframes:
        boxes = boxes_at(region.keyframes, frames)
    if computed := one.computed():
        resolved, track, looked = computed
        sources = resolved.clock.source_frames(frames)
        tracked, confidence = track.at(sources)
        is_here = looked[sources]
        boxes[is_here] = boxes_to_percent(tracked, *resolved.size)[is_here]
        scores[is_here] = confidence[is_here]
    return ReviewedTrack(one.name, _name(region.track_id, one.track.label), boxes, scores)


def _name(number: int | None, label: str) -> str:
    return " ".join(filter(None, (str(number or ""), label or "no class")))
