"""`sam3-backend project export`: write the tracks of a project or a file in other tools' formats."""

import argparse
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from backend.commands.arguments import Subparsers, add_command, add_settings_options, load_settings, parse_size
from backend.commands.console import print_message
from backend.commands.export_dataset import (
    add_dataset_options,
    export_dataset,
    read_dataset_options,
    takes_pictures,
)
from backend.datasets.options import DatasetOptions
from backend.datasets.pictures import cut_pictures
from backend.datasets.registry import DATASETS
from backend.datasets.source import TrackSource
from backend.errors import BackendError, BadRequest, SettingsError
from backend.formats.labelstudio_json import write_labelstudio
from backend.formats.mask_matching import MaskSource, attach_masks
from backend.formats.registry import FORMATS, LABELSTUDIO, NAMES, Format
from backend.formats.tasks import ChosenAnnotation, read_video_tracks, used_labels
from backend.formats.video_tracks import Size, VideoTracks, written_whole
from backend.settings import Settings
from backend.video import VideoInfo

_DESCRIPTION = """
Write the tracks of a project, or of a JSON file of tasks, in another format.

For each task, the ground truth is exported, or else the annotation submitted last.
Frames are numbered from 0 (from 1 in mot and mots) as in the video file. If the video
cannot be read, Label Studio's frame k becomes frame k - 1. csv and labelstudio contain
keyframes (with --dense, every frame); the other formats contain every frame.

Datasets have pictures, cut from the videos, and labels for them. An interrupted export of
a dataset goes on where it was if you start the same command again.
"""


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


def add_parser(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = add_command(
        subparsers,
        "export",
        _run,
        summary="write tracks in other tools' formats",
        description=_DESCRIPTION,
        examples=(
            "sam3-backend project export --project 1 --format yolo --split 80,10,10 -o dataset",
            "sam3-backend project export tasks.json --predictions --format csv -o tracks.csv",
        ),
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("file", nargs="?", type=Path, metavar="FILE", help="JSON from Label Studio or from track -o")
    source.add_argument("--project", type=int, metavar="N", help="number of the project")
    parser.add_argument(
        "--format",
        required=True,
        choices=(*NAMES, *DATASETS),
        help="mot, mots, davis, cvat and datasets write a folder, the others a file; mots and davis need masks",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the file, or a new folder")
    parser.add_argument("--dense", action="store_true", help="write every frame in csv and labelstudio, too")
    parser.add_argument(
        "--predictions", action="store_true", help="use the newest prediction of tasks without a submitted annotation"
    )
    parser.add_argument("--size", type=parse_size, metavar="WxH", help="size of videos whose size is unknown")
    parser.add_argument("--no-video", action="store_true", help="number frames as Label Studio does; open no video")
    add_settings_options(parser)
    add_dataset_options(parser)


def _run(options: argparse.Namespace) -> None:
    export_options = ExportOptions(
        options.format,
        options.output,
        options.dense,
        options.predictions,
        options.size,
        not options.no_video,
        read_dataset_options(options),
        takes_pictures(options),
    )
    source = options.file if options.project is None else options.project
    failed = run(load_settings(options, "data_dir"), source, export_options)
    if failed:
        raise BackendError(f"{failed} tasks were not exported: see above")


def run(
    settings: Settings,
    source: Path | int,
    options: ExportOptions,
    say: Callable[[str], None] = print_message,
) -> int:
    """Export the tasks of a file or of a Label Studio project.

    Masks come from the sidecar that `track` writes next to the file, or from the project's jobs in `data_dir`.

    Args:
        source: a JSON file of tasks, or a project's number.
        say: prints what was done, and each task that is skipped or whose video cannot be read.

    Returns:
        The number of tasks that were not exported.

    Raises:
        BackendError: no task can be exported, or the tasks cannot be read.
    """
    if options.pictures and not options.read_videos:
        raise SettingsError("--no-video leaves no pictures: leave out --pictures")
    _check_output(options)
    has_masks = _has_masks(options)
    if isinstance(source, Path):
        tracks = TrackSource.from_file(settings, source, options.predictions, has_masks)
    else:
        tracks = TrackSource.from_project(settings, source, options.predictions)
    if tracks.skipped:
        fix = "" if options.predictions else "; --predictions exports their predictions"
        say(f"{tracks.skipped} tasks have no submitted annotation and are skipped{fix}")
    if options.dataset:
        made_of = {"source": tracks.name, "format": options.format, **options.dataset.to_json()}
        made_of |= {"predictions": options.predictions, "no_video": not options.read_videos, "size": options.size}
        return export_dataset(
            tracks,
            options.format,
            options.dataset,
            options.output,
            made_of,
            say,
            size=options.size,
            read_videos=options.read_videos,
        )
    exporter = Exporter(tracks, options, say)
    exporter.write(tracks.annotations)
    return exporter.failed


def _has_masks(options: ExportOptions) -> bool:
    """Whether masks are read."""
    if options.dataset:
        return options.dataset.task == "segment"
    return options.format != LABELSTUDIO and FORMATS[options.format].has_masks


def _check_output(options: ExportOptions) -> None:
    """Reject a bad output path before anything is read."""
    output = options.output
    is_folder = options.format in DATASETS or (options.format != LABELSTUDIO and FORMATS[options.format].is_folder)
    if not output.absolute().parent.is_dir():
        raise SettingsError(f"{output.name} cannot be written: choose a path in an existing folder")
    if is_folder and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SettingsError(f"{output.name} is not an empty folder: choose a new one for {options.format}")
    if not is_folder and output.is_dir():
        raise SettingsError(f"{output.name} is a folder, but {options.format} is a file: add a file name")


@dataclass(slots=True)
class Exporter:
    """Writes tasks and reports what could not be exported.

    Attributes:
        failed: number of tasks that were not exported.
    """

    source: TrackSource
    options: ExportOptions
    say: Callable[[str], None]
    failed: int = 0
    _task: int = field(default=0, init=False)
    _tracks: int = field(default=0, init=False)
    _tracks_without_masks: int = field(default=0, init=False)
    _boxes_without_masks: int = field(default=0, init=False)
    _unread_videos: int = field(default=0, init=False)
    _unread_reason: str = field(default="", init=False)

    def write(self, annotations: Sequence[ChosenAnnotation]) -> None:
        """Write all tasks. If none can be written, no output is left behind.

        Raises:
            BackendError: no task can be written.
        """
        options = self.options
        with written_whole(options.output) as part:
            try:
                if options.format == LABELSTUDIO:
                    write_labelstudio(self._iterate(annotations), self.source.controls, part, options.dense)
                else:
                    self._write(annotations, FORMATS[options.format], part)
            except BackendError as error:
                raise type(error)(f"task {self._task}: {error}" if self._task else str(error)) from error
        tracks = "" if options.format == LABELSTUDIO else f", {self._tracks} tracks"
        self.say(f"{options.output.name}: {len(annotations) - self.failed} tasks{tracks}")
        if self._unread_videos:
            self.say(
                f"{self._unread_videos} tasks have Label Studio's frame numbers less one, because their video cannot "
                f"be read ({self._unread_reason})"
            )
        if self._tracks_without_masks:
            self.say(f"{self._tracks_without_masks} tracks have no masks and are not in {options.format}")
        if self._boxes_without_masks:
            self.say(f"{self._boxes_without_masks} other boxes have no matching mask and are skipped: track them again")

    def _write(self, annotations: Sequence[ChosenAnnotation], export_format: Format, part: Path) -> None:
        videos = self._read_tracks(annotations, export_format, part)
        first = next(videos, None)
        self._task = 0
        if first is None:
            raise SettingsError("no task can be exported: see above")
        if export_format.is_folder:
            part.mkdir(exist_ok=True)
        labels = used_labels(annotations, self.source.controls)
        export_format.write(chain([first], videos), labels, part, self.options.dense)

    def _iterate(self, annotations: Sequence[ChosenAnnotation]) -> Iterator[ChosenAnnotation]:
        for annotation in annotations:
            self._task = annotation.number
            yield annotation

    def _read_tracks(
        self, annotations: Sequence[ChosenAnnotation], export_format: Format, part: Path
    ) -> Iterator[VideoTracks]:
        """The tracks of each task that can be exported, read one at a time."""
        for annotation in self._iterate(annotations):
            try:
                info = self._read_info(annotation)
                video = read_video_tracks(annotation, self.source.controls, info, self.options.size)
                video = self._add_masks(video, export_format, self.source.find_masks(annotation))
                if self.options.pictures and export_format.picture_path:
                    self._cut_pictures(annotation, video, partial(export_format.picture_path, video.name), part)
            except BackendError as error:
                self.failed += 1
                self.say(f"task {annotation.number}: not exported: {error}")
                continue
            for reason in video.skipped:
                self.say(f"task {annotation.number}: {reason}")
            self._tracks += len(video.tracks)
            if export_format.needs == "masks":
                self._tracks_without_masks += len(video.tracks) - len(video.masked)
                self._boxes_without_masks += sum(len(track.frames) - len(track.masks) for track in video.masked)
            yield video

    def _add_masks(self, video: VideoTracks, export_format: Format, source: MaskSource) -> VideoTracks:
        """The video with its masks.

        Raises:
            BackendError: the format needs a size or masks that the video lacks, or the masks cannot be read.
        """
        _ = video.pixels  # raises if the size is unknown
        video = attach_masks(video, source) if export_format.has_masks and video.tracks else video
        if export_format.needs == "masks" and video.tracks and not video.masked:
            raise BadRequest("none of its tracks has masks: track with show_masks: true, or export boxes")
        return video

    def _cut_pictures(
        self, annotation: ChosenAnnotation, video: VideoTracks, path_of: Callable[[int], str], part: Path
    ) -> None:
        """Write every frame of a video. Raises BackendError: it cannot be read."""
        paths = {frame: path_of(frame) for frame in range(video.length)}
        with self.source.open_video(annotation.url(self.source.controls)) as opened:
            opened.close()
        folder = (part / paths[0]).parent
        folder.mkdir(parents=True)
        try:
            with tqdm(total=len(paths), unit="picture", desc=video.name) as bar:

                def write(name: str, data: bytes) -> None:
                    (part / name).write_bytes(data)
                    bar.update()

                cut_pictures(opened, paths, DatasetOptions(), write)
        except BackendError:
            shutil.rmtree(folder)
            raise

    def _read_info(self, annotation: ChosenAnnotation) -> VideoInfo | None:
        """The task's video; None if it is not read, so that Label Studio's frame numbers are used."""
        if not self.options.read_videos:
            return None
        try:
            with self.source.open_video(annotation.url(self.source.controls)) as video:
                return VideoInfo.from_video(video)
        except BackendError as error:
            self._unread_reason = self._unread_reason or f"task {annotation.number}: {error}"
            self._unread_videos += 1
            return None
