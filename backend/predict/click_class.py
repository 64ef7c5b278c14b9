"""The class of an object that was clicked without one: that whose phrase finds it on the clicked frame.

A job of its own searches that frame for the phrases of all classes, before the track's job starts.
"""

from collections.abc import Iterable

import numpy as np

from backend import engines
from backend.jobs.job import Job
from backend.labelstudio.clicks import Click
from backend.labelstudio.keyframes import KeyframeSet
from backend.labelstudio.track_ids import TrackShape, shape_overlaps
from backend.predict.request_context import RequestContext
from backend.predict.results import TextResult
from backend.tracks.frame_range import FrameRange

_MAX_CLASSES = 32
"""With more classes none is searched for: each takes time, and the annotator waits."""


def submit_class_job(context: RequestContext, region_id: str, clicks: Iterable[Click]) -> Job | None:
    """The job that searches for the classes; None: there are too many, or the engine knows no words.

    Raises:
        BackendError: no job can be started now.
    """
    request, config = context.request, context.config
    phrases = tuple(dict.fromkeys(config.phrases[label] for label in config.labels.get(request.video, ())))
    frames = [click.frame for click in clicks if click.positive is not False]
    if not frames or not 1 < len(phrases) <= _MAX_CLASSES or not engines.knows_words(context.pool.name):
        return None
    frame = FrameRange(frames[0], frames[0])
    digest = context.digest(["class", request.url, request.framerate, phrases, frame])
    return context.submit(context.key(region_id, "class"), digest, phrases=phrases, ranges=(frame,), is_class=True)


def read_class(context: RequestContext, job: Job | None, track: KeyframeSet) -> tuple[str, ...]:
    """The class of a track; empty: no phrase finds it, or the job has not ended yet."""
    if job is None or job.state != "done":
        return ()
    detections = [*TextResult(job, context.settings).detections().values()]
    shapes = [TrackShape(detection.track.keyframes) for detection in detections]
    overlaps = shape_overlaps(shapes, [TrackShape(track.keyframes)])[:, 0] if shapes else np.zeros(0)
    scores = [overlap * detection.score for overlap, detection in zip(overlaps, detections, strict=True)]
    if not scores or max(scores) <= 0:
        return ()
    return context.config.classes_of_phrase(detections[int(np.argmax(scores))].phrase, context.request.video)
