"""Tracks of other tools as a prediction of Label Studio's: few keyframes, all other frames within a bound."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from backend.errors import BadRequest
from backend.formats.imported_tracks import ImportedTrack, ImportedVideo, renumber_tracks
from backend.formats.video_tracks import UNNAMED, Size
from backend.labelstudio.keyframes import choose_keyframes, sample_track
from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.region import Region, new_region_id
from backend.labelstudio.region_results import build_region, format_region
from backend.labelstudio.segments import segments_between
from backend.settings import Settings
from backend.tracks.track import Track
from backend.video import VideoInfo
from backend.video.frame_clock import FrameClock

_BY = "import"


def build_prediction(
    recording: ImportedVideo,
    video_info: VideoInfo,
    framerate: float,
    config: LabelConfig,
    settings: Settings,
    label: str | None,
) -> list[dict[str, Any]]:
    """The regions of a recording's tracks.

    Args:
        video_info: of the task's video.
        framerate: what the page counts with.
        settings: how few keyframes there are. What the file says is so: no box is smoothed, none gone for being alone.
        label: the class of all; None: as the file names them.

    Raises:
        BadRequest: it is of another video, or a class is not in the label config.
    """
    if recording.length > len(video_info.times):
        raise BadRequest(
            f"{recording.name} has {recording.length} frames and the video {len(video_info.times)}: is it another one?"
        )
    clock, video = FrameClock(video_info.times, video_info.end, framerate), config.video.name
    as_filed = replace(settings.keyframes, px=0.0, smooth=0)
    settings = replace(settings, keyframes=as_filed, bridge_frames=0, min_track_frames=0)
    everywhere = np.ones(len(video_info.times), bool)
    ids, results = renumber_tracks(recording.tracks), []
    for found in recording.tracks:
        track = _track(found, len(video_info.times))
        seen = partial(
            sample_track, track=track, looked=everywhere, clock=clock, size=video_info.size, length=clock.length
        )
        made = choose_keyframes(segments_between([]), seen, settings, video_info.size)
        classes = _classes(label or found.label, config, video)
        region = Region(
            id=new_region_id(),
            from_name=config.region_control(video),
            to_name=video,
            labels=classes,
            keyframes=(),
            frames_count=round(video_info.duration * framerate),
            duration=video_info.duration,
        )
        if made.keyframes:
            region = build_region(region, made, track_id=ids[found.id], engine=_BY, score=found.score)
            results += format_region(region, framerate)
    return results


def scale_tracks(video_info: VideoInfo, size: Size | None) -> VideoInfo:
    """The video's info with another picture size, if there is one."""
    return video_info if size is None else replace(video_info, size=size)


def _classes(label: str, config: LabelConfig, video: str) -> tuple[str, ...]:
    if label in ("", UNNAMED) and label not in config.labels.get(video, ()):
        return ()
    return config.classes((label,), video)


def _track(found: ImportedTrack, length: int) -> Track:
    boxes, scores = np.full((length, 4), np.nan), np.full(length, np.nan)
    boxes[found.frames], scores[found.frames] = found.boxes, 1.0
    return Track.from_rows(boxes, scores, {})
