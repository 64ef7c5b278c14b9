"""The tracks of the prompting page on every frame, as it draws them."""

import numpy as np

from backend.labelstudio.keyframe import boxes_at
from backend.labelstudio.region import Region
from backend.prompting.page import Page
from backend.prompting.page_tracks import ListedTrack
from backend.prompting.review import ReviewedTrack
from backend.tracks.geometry import Boxes


def review_region(region: Region, page: Page, length: int) -> ReviewedTrack:
    """A region of the annotation on `length` LS frames; nobody knows the scores of its frames."""
    name = _name(region.track_id, next(iter(page.config.own_classes(region.labels)), ""))
    boxes = boxes_at(region.keyframes, np.arange(1, length + 1))
    return ReviewedTrack(region.id, name, boxes, np.full(length, np.nan))


def review_track(one: ListedTrack, boxes: Boxes) -> ReviewedTrack:
    """A track of the page, with its boxes on every LS frame as the annotation will show them."""
    scores = np.full(len(boxes), np.nan)
    if computed := one.computed():
        resolved, track, looked = computed
        sources = resolved.clock.source_frames(np.arange(1, len(boxes) + 1))
        _, confidence = track.at(sources)
        scores[looked[sources]] = confidence[looked[sources]]
    return ReviewedTrack(one.name, one.track.label or "no class", boxes, scores)


def _name(number: int | None, label: str) -> str:
    return " ".join(filter(None, (str(number or ""), label or "no class")))
