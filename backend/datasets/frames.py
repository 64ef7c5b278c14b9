"""Which frames of a video become pictures, and which objects are on them."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from backend.datasets.options import DatasetOptions
from backend.formats.video_tracks import ExportTrack, Frames, VideoTracks

_TIE = 1e-6
"""Seconds; a picture that appears exactly when one is due is taken."""


def filter_tracks(video: VideoTracks, options: DatasetOptions) -> VideoTracks:
    """The video's tracks without what the options leave out; boxes are clipped to the picture.

    Raises:
        SettingsError: the video's size is unknown.
    """
    tracks = [_clip(track, video, options.min_size) for track in video.tracks if _is_wanted(track, options)]
    return replace(video, tracks=tuple(track for track in tracks if len(track.frames)))


def _is_wanted(track: ExportTrack, options: DatasetOptions) -> bool:
    is_named = not options.labels or track.label in options.labels
    return is_named and (track.score is None or track.score >= options.min_score)


def _clip(track: ExportTrack, video: VideoTracks, min_size: float) -> ExportTrack:
    boxes = np.clip(track.boxes, 0, np.array([*video.pixels] * 2))
    keep = np.min(boxes[:, 2:] - boxes[:, :2], axis=1) >= max(min_size, 1.0)
    return replace(track, boxes=boxes).select(keep)


def choose_frames(video: VideoTracks, times: NDArray[np.float64], options: DatasetOptions) -> Frames:
    """The frames to take, ascending.

    Args:
        times: shape (length,), seconds at which each frame appears.
    """
    frames = np.arange(0, video.length, options.every)
    if options.rate is not None and len(times):
        due = np.arange(times[0], times[-1] + _TIE, 1 / options.rate)
        frames = np.unique(np.searchsorted(times, due + _TIE, side="right") - 1)
    if options.pictures == "annotated":
        annotated = np.unique(np.concatenate([np.empty(0, int), *(track.frames for track in video.tracks)]))
        frames = np.intersect1d(frames, annotated, assume_unique=True)
    if options.max_pictures is not None and len(frames) > options.max_pictures:
        frames = frames[np.linspace(0, len(frames) - 1, options.max_pictures).round().astype(int)]
    return frames.astype(np.int64)
