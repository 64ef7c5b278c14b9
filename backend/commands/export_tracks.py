"""`sam3-backend project export` to formats of tracks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TypeVar

from backend.commands.export_dataset import Say, open_picture_folder, unwritable
from backend.datasets.build import picture_settings
from backend.datasets.options import DatasetOptions
from backend.datasets.picture_cutter import PictureCutter
from backend.datasets.plan import PlannedVideo, plan_dataset
from backend.datasets.source import TrackSource
from backend.errors import BackendError, SettingsError
from backend.formats.labelstudio_json import format_task, write_labelstudio
from backend.formats.mask_matching import attach_masks
from backend.formats.registry import FORMATS, LABELSTUDIO
from backend.formats.tasks import ChosenAnnotation, read_video_tracks, used_labels
from backend.formats.video_tracks import Size, VideoTracks, written_whole
from backend.video import VideoInfo

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to write.

    Attributes:
        output: a file, or a folder that is empty or does not exist.
        dense: write every frame, also in formats that may contain keyframes only.
        predictions: use the newest prediction of tasks without a submitted annotation.
        size: of the video, used if neither the video nor the task gives it.
        read_videos: open the videos, so that frames are numbered as in the files.
        dataset: options of a dataset; None for other formats.
        pictures: write every frame as a picture where the format's readers look for them.
    """

    format: str
    output: Path
    dense: bool = False
    predictions: bool = False
    size: Size | None = None
    read_videos: bool = True
    dataset: DatasetOptions | None = None
    pictures: bool = False

    @property
    def is_folder(self) -> bool:
        """Whether tracks are written to a folder, not to a file."""
        return self.format != LABELSTUDIO and (self.pictures or FORMATS[self.format].is_folder)


def export_tracks(source: TrackSource, options: ExportOptions, say: Say) -> int:
    """Write the tracks of a source in a format of tracks, with pictures if the options ask for them.

    Returns:
        The number of tasks that were not exported.

    Raises:
        BackendError: no task can be exported.
    """
    exporter = TrackExporter(source, options, say)
    if options.pictures:
        exporter.write_with_pictures()
    else:
        exporter.write()
    return len(exporter.failures)


@dataclass(slots=True)
class TrackExporter:
    """Writes tasks and reports what could not be exported.

    Attributes:
        failures: why a task is not exported, by task number.
    """

    source: TrackSource
    options: ExportOptions
    say: Say
    failures: dict[int, str] = field(default_factory=dict)
    _written: list[int] = field(default_factory=list, init=False)
    _tracks: int = field(default=0, init=False)
    _tracks_without_masks: int = field(default=0, init=False)
    _boxes_without_masks: int = field(default=0, init=False)
    _unread: dict[int, str] = field(default_factory=dict, init=False)

    def write(self) -> None:
        """Write all tasks. If none can be written, no output is left behind.

        Raises:
            BackendError: no task can be written, or the disk is full.
        """
        options, annotations = self.options, self.source.annotations
        try:
            with written_whole(options.output) as part:
                if options.format == LABELSTUDIO:
                    write_labelstudio(self._require_one(self._format_all(annotations)), part)
                else:
                    self._write(self._read_all(annotations), part)
        except OSError as error:
            raise unwritable(options.output, error) from error
        self._report()

    def write_with_pictures(self) -> None:
        """Write all tasks and every frame of their videos. Pictures of an export that was interrupted are used again.

        Raises:
            BackendError: no task can be written, or the disk is full.
        """
        options, path_of = self.options, FORMATS[self.options.format].picture_path
        plan = plan_dataset(self.source, DatasetOptions(pictures="all"))
        self.failures = plan.failures
        if not plan.videos:
            self._require_one(iter(()))
        settings = picture_settings(options.format, plan.options)

        def find_path(planned: PlannedVideo, frame: int) -> str:
            return path_of(planned.name, frame) if path_of else ""

        with open_picture_folder(options.output, plan, find_path, settings, self.say) as (folder, advance):
            cutter = PictureCutter(plan, folder, advance)

            def read(planned: PlannedVideo) -> VideoTracks:
                info = VideoInfo.from_video(planned.video) if planned.video else None
                tracks = self._read(planned.annotation, info)
                cutter.cut(planned)
                return tracks

            self._write(cutter.run(read), folder.path)
        self._report()

    def _write(self, videos: Iterator[VideoTracks], part: Path) -> None:
        options, export_format = self.options, FORMATS[self.options.format]
        videos = self._require_one(videos)
        if options.is_folder:
            part.mkdir(exist_ok=True)
        labels = used_labels(self.source.annotations, self.source.controls)
        path = part / export_format.file if options.is_folder else part
        path.parent.mkdir(exist_ok=True)
        export_format.write(self._count_tracks(videos), labels, path, options.dense)

    def _require_one(self, items: Iterator[Item]) -> Iterator[Item]:
        """The same items. Raises SettingsError: there are none."""
        first = next(items, None)
        if first is None:
            self._say_failures()
            raise SettingsError("no task can be exported: see above")
        return chain([first], items)

    def _format_all(self, annotations: Sequence[ChosenAnnotation]) -> Iterator[str]:
        """The JSON of each task that can be exported."""
        for annotation in annotations:
            try:
                yield format_task(annotation, self.source.controls, self.options.dense)
                self._written.append(annotation.number)
            except BackendError as error:
                self.failures[annotation.number] = str(error)

    def _read_all(self, annotations: Sequence[ChosenAnnotation]) -> Iterator[VideoTracks]:
        """The tracks of each task that can be exported, read one at a time."""
        for annotation in annotations:
            try:
                yield self._read(annotation, self._read_info(annotation))
            except BackendError as error:
                self.failures[annotation.number] = str(error)

    def _read(self, annotation: ChosenAnnotation, info: VideoInfo | None) -> VideoTracks:
        """A task's tracks, with masks if the format has them.

        Raises:
            BackendError: they cannot be read, or the format cannot hold them.
        """
        export_format = FORMATS[self.options.format]
        video = read_video_tracks(annotation, self.source.controls, info, self.options.size)
        _ = video.pixels  # raises if the size is unknown
        if export_format.has_masks and video.tracks:
            video = attach_masks(video, self.source.find_masks(annotation))
        if export_format.check:
            export_format.check(video)
        return video

    def _read_info(self, annotation: ChosenAnnotation) -> VideoInfo | None:
        """The task's video; None if it is not read, so that Label Studio's frame numbers are used."""
        if not self.options.read_videos:
            return None
        try:
            with self.source.open_video(annotation.url(self.source.controls)) as video:
                return VideoInfo.from_video(video)
        except BackendError as error:
            self._unread[annotation.number] = str(error)
            return None

    def _count_tracks(self, videos: Iterator[VideoTracks]) -> Iterator[VideoTracks]:
        for video in videos:
            self._written.append(video.task)
            for reason in video.skipped:
                self.say(f"task {video.task}: {reason}")
            self._tracks += len(video.tracks)
            if FORMATS[self.options.format].needs_masks:
                self._tracks_without_masks += len(video.tracks) - len(video.masked)
                self._boxes_without_masks += sum(len(track.frames) - len(track.masks) for track in video.masked)
            yield video

    def _report(self) -> None:
        """Say what was written, and what is missing."""
        name, form = self.options.output.name, self.options.format
        if form == LABELSTUDIO:
            self.say(f"{name}: {len(self._written)} tasks")
        else:
            self.say(f"{name}: {len(self._written)} tasks, {self._tracks} tracks")
            self.say(f"{form} does not hold {FORMATS[form].loses}")
        if self._unread:
            number, reason = next(iter(self._unread.items()))
            self.say(
                f"{len(self._unread)} tasks have Label Studio's frame numbers less one, because their video cannot "
                f"be read (task {number}: {reason})"
            )
        if self._tracks_without_masks:
            self.say(f"{self._tracks_without_masks} tracks have no masks and are not in {form}")
        if self._boxes_without_masks:
            self.say(f"{self._boxes_without_masks} other boxes have no matching mask and are skipped: track them again")
        self._say_failures()

    def _say_failures(self) -> None:
        for number, reason in sorted(self.failures.items()):
            self.say(f"task {number}: not exported: {reason}")
