"""Links detections to tracks with the library Norfair, which an extra installs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from backend.errors import SettingsError
from backend.formats.imported_tracks import Detection, ImportedVideo, build_track

_MAX_DISTANCE = 0.7
"""1 - IoU of a detection with where its track is expected; farther ones start a new track."""
_MEMORY = 15
"""For so many pictures a track without detections waits for the next one."""


def link_detections(video: ImportedVideo) -> ImportedVideo:
    """The video with its detections as tracks, numbered after those that it has.

    Only detections of one class are linked. A track has no box on pictures where the detector saw nothing.

    Raises:
        SettingsError: Norfair is not installed.
    """
    if not video.detections:
        return video
    groups, number = _link(video.detections), max((track.id for track in video.tracks), default=0)
    tracks = [*video.tracks]
    for group in groups:
        track = build_track(number + 1, group, video.name, lambda reason: None)
        if track:
            number += 1
            tracks.append(track)
    return replace(video, tracks=tuple(tracks), detections=())


def _link(detections: Sequence[Detection]) -> list[list[Detection]]:
    """The detections of each track, by the first frame."""
    try:
        import norfair
    except ImportError as error:
        raise SettingsError(
            "its boxes have no track ids: pip install 'sam3-backend[link]', which links them to tracks"
        ) from error
    by_frame = defaultdict[int, list[Detection]](list)
    for detection in detections:
        by_frame[detection.frame].append(detection)
    frames = np.array(sorted(by_frame))
    # Where every n-th picture was looked at, the pictures in between say nothing.
    step = int(np.gcd.reduce(np.diff(frames))) if len(frames) > 1 else 1
    tracker: Any = norfair.Tracker("iou", _MAX_DISTANCE, _MEMORY, initialization_delay=0, past_detections_length=0)
    groups = defaultdict[int, list[Detection]](list)
    for frame in range(int(frames[0]), int(frames[-1]) + 1, step):
        boxes = [
            norfair.Detection(np.reshape(item.box, (2, 2)), data=item, label=item.label) for item in by_frame[frame]
        ]
        for tracked in tracker.update(boxes):
            if tracked.last_detection.data.frame == frame:
                groups[tracked.id].append(tracked.last_detection.data)
    return list(groups.values())
