"""Builds a dataset: cuts pictures, several videos at a time, and hands the labels to the format's writer in order."""

import csv
import io
import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backend import __version__
from backend.datasets.frames import filter_tracks
from backend.datasets.options import DatasetOptions
from backend.datasets.picture_cutter import PictureCutter, PictureOutput
from backend.datasets.plan import DatasetPlan, PlannedVideo, read_planned_tracks
from backend.datasets.registry import DATASETS, DatasetFormat
from backend.datasets.samples import DatasetFile, LabeledObject, LabeledPicture, LabeledVideo, PicturePlace
from backend.datasets.source import TrackSource
from backend.datasets.splits import SPLITS
from backend.formats.mask_matching import attach_masks
from backend.formats.video_tracks import Size, VideoTracks
from backend.tracks.geometry import Box

_TRACK_COLUMNS = ("picture", "split", "object", "task", "frame", "time", "track", "label", "score")


@dataclass(slots=True)
class DatasetSummary:
    """What was written.

    Attributes:
        pictures: number of pictures by split.
        objects: number of objects by split and label.
        unmasked: number of objects that are written as their box, because they have no mask.
    """

    videos: int = 0
    pictures: Counter[str] = field(default_factory=Counter)
    objects: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    unmasked: int = 0

    def __str__(self) -> str:
        objects = sum(count for counts in self.objects.values() for count in counts.values())
        parts = [f"{self.videos} videos, {sum(self.pictures.values())} pictures, {objects} objects"]
        for split in SPLITS:
            if self.pictures[split]:
                counts = ", ".join(f"{label} {count}" for label, count in sorted(self.objects[split].items()))
                parts.append(f"{split} {self.pictures[split]} pictures ({counts or 'no objects'})")
        return "; ".join(parts)


@dataclass(slots=True)
class DatasetBuilder:
    """Builds one dataset.

    Attributes:
        name: of the format.
        settings: what the dataset is made of, for `export.json`.
        labels: the classes, in order.
        size: of videos that are not read.
    """

    source: TrackSource
    plan: DatasetPlan
    name: str
    labels: Sequence[str]
    settings: Mapping[str, Any]
    size: Size | None = None
    summary: DatasetSummary = field(default_factory=DatasetSummary)

    @property
    def form(self) -> DatasetFormat:
        """The format."""
        return DATASETS[self.name]

    def picture_path(self, planned: PlannedVideo, frame: int) -> str:
        """The path of a picture in the dataset."""
        return self.form.picture_path(self._place(planned, frame))

    def _place(self, planned: PlannedVideo, frame: int) -> PicturePlace:
        options = self.plan.options
        return PicturePlace(planned.name, frame, planned.split, options.suffix, options.layout)

    def build(self, output: PictureOutput, advance: Callable[[int], None]) -> None:
        """Write all files but those pictures that are there already.

        Args:
            advance: called with the number of pictures that are done, from several threads.
        """
        cutter = PictureCutter(self.plan, output, advance)

        def label(planned: PlannedVideo) -> LabeledVideo:
            tracks = self._read_tracks(planned)
            cutter.cut(planned)
            return self._label(planned, filter_tracks(tracks, self.plan.options))

        for name, data in self._label_files(cutter.run(label)):
            output.write(name, data)

    def losses(self) -> list[str]:
        """What the dataset does not hold, a sentence each; complete after `build`."""
        sentences = [f"{self.name} does not hold {self.form.loses}"] if self.form.loses else []
        if self.summary.unmasked:
            count = self.summary.unmasked
            sentences.append(f"{count} objects have no mask and are written as their box: track with show_masks: true")
        if self.name == "yolo" and not self.summary.pictures["val"]:
            sentences.append(
                "there is no video for val, so its pictures are those of train: export more videos to measure"
            )
        return sentences

    def _label_files(self, videos: Iterator[LabeledVideo]) -> Iterator[DatasetFile]:
        """All files but pictures."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(_TRACK_COLUMNS)
        yield from self.form.format((self._record(video, table) for video in videos), self.labels, self.plan.options)
        yield "tracks.csv", text.getvalue().encode()
        settings = json.dumps({"version": __version__, **self.settings}, indent=2, ensure_ascii=False)
        yield "export.json", f"{settings}\n".encode()

    def _record(self, video: LabeledVideo, table: Any) -> LabeledVideo:
        """Count a video and write its tracks to `tracks.csv`."""
        self.summary.videos += 1
        self.summary.pictures[video.split] += len(video.pictures)
        for picture in video.pictures:
            for place, item in enumerate(picture.objects):
                label = self.labels[item.label]
                self.summary.objects[video.split][label] += 1
                self.summary.unmasked += self.plan.options.task == "segment" and item.mask is None
                score = "" if item.score is None else f"{item.score:.4f}"
                where = (picture.path, video.split, place, video.task, picture.frame, f"{picture.time:.6f}")
                table.writerow((*where, item.track, label, score))
        return video

    def _read_tracks(self, planned: PlannedVideo) -> VideoTracks:
        """A video's tracks, with masks if they are needed. Raises BackendError: they cannot be read."""
        tracks = read_planned_tracks(self.source, planned.annotation, planned.video, self.size)
        if self.plan.options.task == "segment" and tracks.tracks:
            return attach_masks(tracks, self.source.find_masks(planned.annotation))
        return tracks

    def _label(self, planned: PlannedVideo, tracks: VideoTracks) -> LabeledVideo:
        objects = group_objects(tracks, self.labels, set(planned.frames.tolist()))
        video = LabeledVideo(planned.annotation.number, planned.name, planned.split, planned.size)
        for frame in planned.frames.tolist():
            place, time = self._place(planned, frame), float(planned.times[frame])
            path = self.form.picture_path(place)
            video.pictures.append(LabeledPicture(place.name, frame, time, path, tuple(objects.get(frame, ()))))
        return video


def group_objects(video: VideoTracks, labels: Sequence[str], frames: set[int]) -> dict[int, list[LabeledObject]]:
    """The objects on each of these frames, by track id."""
    numbers = {label: number for number, label in enumerate(labels)}
    objects: defaultdict[int, list[LabeledObject]] = defaultdict(list)
    for track in video.tracks:
        for row, frame in enumerate(track.frames.tolist()):
            if frame not in frames:
                continue
            box = Box(*track.boxes[row].tolist())
            corners = box_corners(box) if track.corners is None else track.corners[row]
            number, mask = numbers[track.label], track.masks.get(frame)
            objects[frame].append(LabeledObject(number, track.id, track.score, box, corners, mask))
    return objects


def box_corners(box: Box) -> Any:
    """The corners of an upright box, clockwise from the upper left one; shape (4, 2)."""
    x0, y0, x1, y1 = box
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def export_command(source: TrackSource, name: str, flags: Sequence[str]) -> str:
    """The command that makes an export again.

    Args:
        name: of the format.
    """
    return f"sam3-backend {shlex.join(['project', 'export', *source.words, '--format', name, *flags, '-o', 'dataset'])}"


def describe_export(source: TrackSource, name: str, options: DatasetOptions, more: Sequence[str]) -> dict[str, Any]:
    """For `export.json`: the command that makes the dataset again, and what it is made of.

    Args:
        name: of the format.
        more: flags of the command that are no options of datasets.
    """
    command = export_command(source, name, [*options.to_flags(), *more])
    return {"command": command, "format": name, **options.to_json()}


def picture_settings(name: str, options: DatasetOptions) -> dict[str, Any]:
    """What the bytes and places of all pictures depend on."""
    return {
        "version": __version__,
        "format": name,
        "layout": options.layout,
        "png": options.png,
        "quality": options.quality,
    }
