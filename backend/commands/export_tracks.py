"""`sam3-backend project export` to formats of tracks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from backend.commands.export_dataset import Say, open_picture_folder, unwritable
from backend.datasets.build import picture_settings
from backend.datasets.options import DatasetOptions
from backend.datasets.plan import plan_dataset
from backend.datasets.source import TrackSource
from backend.datasets.track_builder import TrackBuilder, require_one
from backend.errors import BackendError, SettingsError
from backend.formats.labelstudio_json import format_task, write_labelstudio
from backend.formats.registry import FORMATS, LABELSTUDIO
from backend.formats.tasks import ChosenAnnotation
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
    _unread: dict[int, str] = field(default_factory=dict, init=False)

    def write(self) -> None:
        """Write all tasks. If none can be written, no output is left behind.

        Raises:
            BackendError: no task can be written, or the disk is full.
        """
        try:
            with written_whole(self.options.output) as part:
                if self.options.format == LABELSTUDIO:
                    self._write_labelstudio(part)
                else:
                    self._write_tracks(part)
        except OSError as error:
            raise unwritable(self.options.output, error) from error
        finally:
            self._say_failures()

    def write_with_pictures(self) -> None:
        """Write all tasks and every frame of their videos. Pictures of an export that was interrupted are used again.

        Raises:
            BackendError: no task can be written, or the disk is full.
        """
        options, builder = self.options, self._builder()
        plan = plan_dataset(self.source, DatasetOptions(pictures="all"))
        self.failures = plan.failures
        settings = picture_settings(options.format, plan.options)
        try:
            if not plan.videos:
                raise SettingsError("no task can be exported")
            with open_picture_folder(options.output, plan, builder.picture_path, settings, self.say) as (
                folder,
                advance,
            ):
                builder.write_with_pictures(plan, folder, folder.path, advance)
            self._report(builder)
        finally:
            self._say_failures()

    def _builder(self) -> TrackBuilder:
        return TrackBuilder(self.source, self.options.format, self.options.dense, self.options.size)

    def _write_labelstudio(self, part: Path) -> None:
        written = 0

        def format_one(annotation: ChosenAnnotation) -> str:
            nonlocal written
            text = format_task(annotation, self.source.controls, self.options.dense)
            written += 1
            return text

        write_labelstudio(require_one(self._try_each(format_one)), part)
        self.say(f"{self.options.output.name}: {written} tasks")

    def _write_tracks(self, part: Path) -> None:
        builder = self._builder()

        def read(annotation: ChosenAnnotation) -> VideoTracks:
            return builder.read(annotation, self._read_info(annotation))

        builder.write(self._try_each(read), part)
        self._report(builder)

    def _try_each(self, work: Callable[[ChosenAnnotation], Item]) -> Iterator[Item]:
        """What `work` returns for each task that can be exported, one at a time."""
        for annotation in self.source.annotations:
            try:
                yield work(annotation)
            except BackendError as error:
                self.failures[annotation.number] = str(error)

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

    def _report(self, builder: TrackBuilder) -> None:
        """Say what was written, and what is missing."""
        for sentence in (*builder.skipped, f"{self.options.output.name}: {builder.summary}", *builder.losses()):
            self.say(sentence)
        if self._unread:
            number, reason = next(iter(self._unread.items()))
            self.say(
                f"{len(self._unread)} tasks have Label Studio's frame numbers less one, because their video cannot "
                f"be read (task {number}: {reason})"
            )

    def _say_failures(self) -> None:
        for number, reason in sorted(self.failures.items()):
            self.say(f"task {number}: not exported: {reason}")
