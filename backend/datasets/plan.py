"""What an export will write, before any picture is cut: videos, frames, splits and disk space."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from backend.datasets.frames import choose_frames
from backend.datasets.options import DatasetOptions
from backend.datasets.source import TrackSource
from backend.datasets.splits import assign_splits, read_split
from backend.errors import BackendError, SettingsError
from backend.formats.tasks import ChosenAnnotation, read_video_tracks
from backend.formats.video_tracks import Frames, Size, VideoTracks
from backend.video import Video, VideoInfo

_JPEG_BYTES = 0.35
"""Bytes a pixel of a detailed picture at quality 90; it doubles about every 7 steps of quality."""
_PNG_BYTES = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class PlannedVideo:
    """A task's video and the frames to take.

    Attributes:
        video: closed; None if it cannot be read and no pictures are wanted.
        times: shape (length,), seconds at which each frame appears.
    """

    annotation: ChosenAnnotation
    name: str
    size: Size
    frames: Frames
    times: NDArray[np.float64]
    video: Video | None
    split: str = "train"


@dataclass(slots=True)
class DatasetPlan:
    """What an export will write.

    Attributes:
        videos: those that give pictures.
        failures: why a task is not exported, by task number.
        unopened: numbers of tasks that are not exported because their video cannot be opened.
        empty: numbers of tasks that give no picture.
        skipped: what of a task cannot be read and is left out, a sentence each.
        unread: numbers of tasks whose video cannot be read, so that Label Studio's frame numbers are used.
    """

    options: DatasetOptions
    videos: list[PlannedVideo] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)
    unopened: list[int] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)
    unread: list[int] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def picture_count(self) -> int:
        """Number of pictures, or of frames if no pictures are written."""
        return sum(len(video.frames) for video in self.videos)

    @property
    def bytes(self) -> int:
        """About how many bytes the pictures take."""
        if self.options.pictures == "none":
            return 0
        return sum(len(video.frames) * estimate_bytes(video.size, self.options) for video in self.videos)


def estimate_bytes(size: Size, options: DatasetOptions) -> int:
    """About how many bytes a picture takes."""
    per_pixel = _PNG_BYTES if options.png else _JPEG_BYTES * 2 ** ((options.quality - 90) / 7)
    return round(size[0] * size[1] * per_pixel)


def plan_dataset(
    source: TrackSource, options: DatasetOptions, size: Size | None = None, read_videos: bool = True
) -> DatasetPlan:
    """Open every video, choose its frames, and split the videos.

    Args:
        size: of videos that are not read.
        read_videos: false only if no pictures are wanted.

    Raises:
        SettingsError: no task gives a picture.
    """
    plan = DatasetPlan(options)
    for annotation in source.annotations:
        try:
            planned = _plan_video(source, annotation, plan, size, read_videos)
        except BackendError as error:
            plan.failures[annotation.number] = str(error)
            continue
        if len(planned.frames):
            plan.videos.append(planned)
        else:
            plan.empty.append(annotation.number)
    if not options.split_field:
        addresses = [planned.annotation.url(source.controls) for planned in plan.videos]
        names = [planned.name for planned in plan.videos]
        splits = assign_splits(list(zip(names, addresses, strict=True)), options.split, options.seed)
        plan.videos = [replace(planned, split=split) for planned, split in zip(plan.videos, splits, strict=True)]
    return plan


def _plan_video(
    source: TrackSource, annotation: ChosenAnnotation, plan: DatasetPlan, size: Size | None, read_videos: bool
) -> PlannedVideo:
    """Raises BackendError: the task cannot be exported."""
    options, video = plan.options, None
    if options.checked is not None and annotation.kind != "annotations":
        raise SettingsError("nobody submitted an annotation: submit one, or leave out --checked")
    split = read_split(annotation.data, options.split_field) if options.split_field else "train"
    try:
        if read_videos:
            video = source.open_video(annotation.url(source.controls))
            video.close()
    except BackendError:
        if options.pictures != "none":
            plan.unopened.append(annotation.number)
            raise
        plan.unread.append(annotation.number)
    tracks = read_planned_tracks(source, annotation, video, size)
    plan.skipped += [f"task {annotation.number}: {reason}" for reason in tracks.skipped]
    times = video.times if video else np.arange(tracks.length) / tracks.rate
    frames = choose_frames(tracks, times, options)
    return PlannedVideo(annotation, tracks.name, tracks.pixels, frames, times, video, split)


def read_planned_tracks(
    source: TrackSource, annotation: ChosenAnnotation, video: Video | None, size: Size | None
) -> VideoTracks:
    """A task's tracks on all frames; the size of pictures is the video's own.

    Raises:
        BackendError: the tracks cannot be read.
    """
    info = VideoInfo.from_video(video) if video else None
    return read_video_tracks(annotation, source.controls, info, None if video else size)


def check_labels(labels: Sequence[str], options: DatasetOptions) -> list[str]:
    """The classes of the dataset, in order.

    Raises:
        SettingsError: the options name a class that does not exist.
    """
    if unknown := [label for label in options.labels if label not in labels]:
        raise SettingsError(f"there is no label {unknown[0]}: choose from {', '.join(labels)}")
    return [label for label in labels if not options.labels or label in options.labels]
