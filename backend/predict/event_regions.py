"""Recognises regions that Label Studio's page made of a track that an interactive event started.

The page gives such a region an id of its own and writes each mask that it got as a keyframe, without a word about the
session; what tells the track is where its keyframes are.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from backend.jobs.job import Job
from backend.jobs.spec import OBJECT_TRACK
from backend.labelstudio.keyframe import Keyframe, mark_as_ours
from backend.labelstudio.region import Region
from backend.predict.request_context import RequestContext

_NEAR = 1.5
"""Most pixels between an edge on the page and the edge of the track's box: the page's is of whole pixels."""
_LEAST, _SHARE = 2, 0.5
"""How many keyframes, and which share of the region's, have to be the track's, the prompted one among them."""
_MAX_JOBS = 64
"""How many of the newest jobs of a task's regions are looked at."""
_SESSION = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class EventRegion:
    """A region with the job of its track.

    Attributes:
        region: its keyframes are a person's where they are not the track's, and on the prompted frame.
        is_corrected: a person has changed or added keyframes since.
    """

    region: Region
    job: Job
    is_corrected: bool


def recognise_region(context: RequestContext, region: Region) -> EventRegion | None:
    """The job whose track a region shows; None: it is none that an event started."""
    if region.track_id is not None or region.is_tracked or len(region.keyframes) < _LEAST:
        return None
    found = [one for job in _event_jobs(context) if (one := _match(region, job))]
    return max(found, key=lambda one: sum(not key.is_human for key in one.region.keyframes), default=None)


def find_begun(context: RequestContext, region: Region) -> list[Job]:
    """The jobs of tracks that the page has begun from a region's only box.

    With Auto-Annotation on, Label Studio also asks about such a region itself, before or after the page does.
    """
    if region.track_id is not None or region.is_tracked or len(region.keyframes) != 1:
        return []
    (key,) = region.keyframes
    prompts = ((job, job.row.spec.prompts[0]) for job in _event_jobs(context))
    return [job for job, one in prompts if one.frame == key.frame and one.box and np.allclose(one.box, _corners(key))]


def _corners(key: Keyframe) -> tuple[float, ...]:
    return key.x, key.y, key.width, key.height, key.rotation


def _event_jobs(context: RequestContext) -> Iterator[Job]:
    jobs = context.scheduler.newest_under(context.key("")[:-1], _MAX_JOBS)
    return (job for job in jobs if job.row.spec.project == context.project and _is_event_job(job))


def _is_event_job(job: Job) -> bool:
    name, spec = json.loads(job.row.key)[-1], job.row.spec
    return bool(_SESSION.fullmatch(name)) and len(spec.prompts) == 1 and not spec.phrases


def _match(region: Region, job: Job) -> EventRegion | None:
    resolved, prompt = job.resolved, job.row.spec.prompts[0].frame
    if resolved is None or all(key.frame != prompt for key in region.keyframes):
        return None
    length, (width, height) = resolved.clock.length, resolved.size
    keys = [key for key in region.keyframes if key.frame <= length]
    sources = resolved.clock.source_frames(np.array([key.frame for key in keys], np.int64))
    tracked, _ = resolved.propagation.target(OBJECT_TRACK).track().at(sources)
    boxes = [key.box(width, height) for key in keys]
    is_near = np.abs(np.array(boxes) - tracked).max(1) <= _NEAR  # NaN is not
    ours, before, is_prompt = dict[int, Keyframe](), None, False
    for key, box, near in zip(keys, boxes, is_near.tolist(), strict=True):
        # The page ends a track by a copy of its last box that hides it.
        is_end = not key.enabled and before is not None and np.allclose(box, before)
        if key.frame == prompt:
            is_prompt = near
        elif near or is_end:
            ours[key.frame] = mark_as_ours(key)
        before = box
    if len(ours) + is_prompt < max(_LEAST, _SHARE * len(region.keyframes)):
        return None
    keyframes = tuple(ours.get(key.frame, key) for key in region.keyframes)
    is_corrected = len(ours) < len(region.keyframes) - 1
    return EventRegion(replace(region, keyframes=keyframes), job, is_corrected)
