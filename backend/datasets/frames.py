"""Which frames of a video become pictures, and which objects are on them."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from backend.datasets.options import DatasetOptions
from backend.formats.video_tracks import ExportTrack, Frames, VideoTracks
from backend.tracks.geometry import Boxes, box_iou

_SAME_IOU = 0.9
"""An object whose box overlaps its earlier one by less has moved."""
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
        video: with all its tracks.
        times: shape (length,), seconds at which each frame appears.

    Raises:
        SettingsError: the video's size is unknown.
    """
    filtered = filter_tracks(video, options)
    frames = np.arange(0, video.length, options.every)
    if options.rate is not None and len(times):
        due = np.arange(times[0], times[-1] + _TIE, 1 / options.rate)
        frames = np.unique(np.searchsorted(times, due + _TIE, side="right") - 1)
    if options.checked is not None:
        frames = frames[_is_near(frames, _human_frames(video), options.checked)]
    chosen = np.intersect1d(frames, _frames_with(filtered)) if options.pictures == "annotated" else frames
    if options.distinct:
        chosen = _select_distinct(filtered, chosen)
    if options.background:
        # What was left out for its score or size is no background.
        empty = np.setdiff1d(frames, _frames_with(filter_tracks(video, DatasetOptions(labels=options.labels))))
        wanted = round(len(chosen) * options.background / (100 - options.background))
        chosen = np.union1d(chosen, _spread(empty, wanted))
    return _spread(chosen, options.max_pictures).astype(np.int64)


def _frames_with(video: VideoTracks) -> Frames:
    """The frames with an object."""
    return np.unique(np.concatenate([np.empty(0, np.int64), *(track.frames for track in video.tracks)]))


def _human_frames(video: VideoTracks) -> Frames:
    """The frames on which a person set a keyframe."""
    frames = [track.frames[track.keys[track.human]] for track in video.tracks]
    return np.unique(np.concatenate([np.empty(0, np.int64), *frames]))


def _is_near(frames: Frames, others: Frames, distance: int) -> NDArray[np.bool_]:
    """Whether each frame is at most so many frames from one of the others, which are ascending."""
    first = np.searchsorted(others, frames - distance)
    return first < np.searchsorted(others, frames + distance, side="right")


def _spread(frames: Frames, count: int | None) -> Frames:
    """At most so many of the frames, evenly spaced; None: all."""
    if count is None or len(frames) <= count:
        return frames
    places = np.linspace(0, len(frames) - 1, count).round().astype(int)
    spread: Frames = frames[places]
    return spread


def _select_distinct(video: VideoTracks, frames: Frames) -> Frames:
    """The frames on which other objects are there than on the last frame taken, or one of them has moved."""
    boxes = np.full((video.length, len(video.tracks), 4), np.nan, np.float32)
    for place, track in enumerate(video.tracks):
        boxes[track.frames, place] = track.boxes
    chosen, last = list[int](), None
    for frame in frames.tolist():
        if last is None or _is_changed(boxes[last], boxes[frame]):
            chosen.append(frame)
            last = frame
    return np.array(chosen, np.int64)


def _is_changed(before: Boxes, after: Boxes) -> bool:
    there, is_there = ~np.isnan(before[:, 0]), ~np.isnan(after[:, 0])
    return bool((there != is_there).any() or (box_iou(before[there], after[there]) < _SAME_IOU).any())
