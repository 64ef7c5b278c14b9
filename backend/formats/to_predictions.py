"""Tracks of other tools as a prediction of Label Studio's: few keyframes, all other frames within a bound."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from backend.errors import BadRequest
from backend.formats.imported_tracks import ImportedKeyframe, ImportedTrack, ImportedVideo, renumber_tracks
from backend.formats.timing import FrameTiming
from backend.formats.video_tracks import UNNAMED, Size
from backend.labelstudio.keyframe import Keyframe, boxes_to_percent, mark_as_ours
from backend.labelstudio.keyframes import KeyframeSet, choose_keyframes, sample_track
from backend.labelstudio.label_config import LabelConfig
from backend.labelstudio.region import Region, new_region_id
from backend.labelstudio.region_results import build_region, format_region
from backend.labelstudio.segments import segments_between
from backend.settings import Settings
from backend.tracks.geometry import Boxes
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
    timing = FrameTiming.from_video(video_info, framerate)
    for found in recording.tracks:
        if found.keyframes:
            made = KeyframeSet(_convert_keyframes(found.keyframes, timing, video_info.size))
        else:
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


def _convert_keyframes(keyframes: Sequence[ImportedKeyframe], timing: FrameTiming, size: Size) -> list[Keyframe]:
    """The same keyframes in Label Studio's form: percent, rotated about the upper left corner."""
    converted = dict[int, Keyframe]()
    for item in keyframes:
        frame = min(max(int(timing.ls_frames[item.frame]), 1), timing.last)
        x, y, width, height = boxes_to_percent(np.array([_move_pivot(item)]), *size)[0].tolist()
        keyframe = Keyframe(frame, item.enabled, x, y, width, height, round(item.rotation, 4))
        converted[frame] = replace(keyframe, human=True) if item.human else mark_as_ours(keyframe)
    return list(converted.values())


def _move_pivot(item: ImportedKeyframe) -> Boxes:
    """The box that, rotated about its upper left corner, is where this one is, rotated about its centre; shape (4,)."""
    x0, y0, x1, y1 = item.box
    half, centre = np.array([x1 - x0, y1 - y0]) / 2, np.array([x0 + x1, y0 + y1]) / 2
    sine, cosine = math.sin(math.radians(item.rotation)), math.cos(math.radians(item.rotation))
    corner = centre - np.array([cosine * half[0] - sine * half[1], sine * half[0] + cosine * half[1]])
    return np.concatenate([corner, corner + 2 * half])


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
