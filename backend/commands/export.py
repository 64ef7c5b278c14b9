"""`sam3-backend project export`: write the tracks of a project or a file in other tools' formats."""

import argparse
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from backend.commands.arguments import Subparsers, add_command, add_settings_options, load_settings, parse_size
from backend.commands.console import print_message
from backend.errors import BackendError, BadRequest, SettingsError
from backend.formats.labelstudio_json import write_labelstudio
from backend.formats.mask_matching import Key, MaskSource, attach_masks
from backend.formats.mask_sidecar import Masks, SidecarMasks, read_sidecar
from backend.formats.registry import FORMATS, LABELSTUDIO, NAMES, Format
from backend.formats.tasks import (
    ChosenAnnotation,
    ExportControls,
    choose_annotation,
    load_tasks,
    read_video_tracks,
    used_labels,
)
from backend.formats.video_tracks import Frames, Size, VideoTracks, written_whole
from backend.jobs.saved_masks import read_mask_blocks
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.label_config import parse_label_config
from backend.labelstudio.videos import TaskVideos
from backend.settings import Settings
from backend.tracks.geometry import Boxes
from backend.tracks.masks import Rle
from backend.tracks.track import ResultBlock
from backend.video import VideoInfo

_DESCRIPTION = """
Write the tracks of a project, or of a JSON file of tasks, in another format.

For each task, the ground truth is exported, or else the annotation submitted last.
Frames are numbered from 0 (from 1 in mot and mots) as in the video file. If the video
cannot be read, Label Studio's frame k becomes frame k - 1. csv and labelstudio contain
keyframes (with --dense, every frame); the other formats contain every frame.
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
    """

    format: str
    output: Path
    dense: bool = False
    predictions: bool = False
    size: Size | None = None
    read_videos: bool = True


def add_parser(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = add_command(
        subparsers,
        "export",
        _run,
        summary="write tracks in other tools' formats",
        description=_DESCRIPTION,
        examples=(
            "sam3-backend project export --project 1 --format coco-vid -o tracks.json",
            "sam3-backend project export tasks.json --predictions --format csv -o tracks.csv",
        ),
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("file", nargs="?", type=Path, metavar="FILE", help="JSON from Label Studio or from track -o")
    source.add_argument("--project", type=int, metavar="N", help="number of the project")
    parser.add_argument(
        "--format",
        required=True,
        choices=NAMES,
        help="mot, mots, yolo and davis write a folder, the others a file; mots and davis need masks",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the file, or a new folder")
    parser.add_argument("--dense", action="store_true", help="write every frame in csv and labelstudio, too")
    parser.add_argument(
        "--predictions", action="store_true", help="use the newest prediction of tasks without a submitted annotation"
    )
    parser.add_argument("--size", type=parse_size, metavar="WxH", help="size of videos whose size is unknown")
    parser.add_argument("--no-video", action="store_true", help="number frames as Label Studio does; open no video")
    add_settings_options(parser)


def _run(options: argparse.Namespace) -> None:
    export_options = ExportOptions(
        options.format, options.output, options.dense, options.predictions, options.size, not options.no_video
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
    _check_output(options)
    mask_source: MaskSourceFactory
    if isinstance(source, Path):
        tasks, controls, read_info = load_tasks(source), ExportControls(), partial(_read_local, TaskVideos(settings))
        mask_source = partial(_sidecar_masks, _read_masks(source, options))
    else:
        client = LabelStudioClient.from_settings(settings)
        tasks, controls = _read_project(client, source)
        read_info = partial(_fetch_info, TaskVideos(settings), client)
        mask_source = partial(_JobMasks, settings.data_dir.expanduser() / "jobs.sqlite3", str(source), controls)
    annotations = _choose_annotations(tasks, options.predictions, say)
    exporter = Exporter(controls, options, read_info, mask_source, say)
    exporter.write(annotations)
    return exporter.failed


def _check_output(options: ExportOptions) -> None:
    """Reject a bad output path before anything is read."""
    output, is_folder = options.output, options.format != LABELSTUDIO and FORMATS[options.format].is_folder
    if not output.absolute().parent.is_dir():
        raise SettingsError(f"{output.name} cannot be written: choose a path in an existing folder")
    if is_folder and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SettingsError(f"{output.name} is not an empty folder: choose a new one for {options.format}")
    if not is_folder and output.is_dir():
        raise SettingsError(f"{output.name} is a folder, but {options.format} is a file: add a file name")


def _read_project(client: LabelStudioClient, project: int) -> tuple[list[Mapping[str, Any]], ExportControls]:
    config = parse_label_config(str(client.project(project).get("label_config") or ""))
    # With a feature flag of Label Studio 1.23, the list of tasks has annotations without their results.
    tasks = (task if _is_complete(task) else client.task(task["id"]) for task in client.tasks(project))
    return list(tasks), ExportControls.from_config(config)


def _is_complete(task: Mapping[str, Any]) -> bool:
    annotations = task.get("annotations") or ()
    return all("result" in annotation for annotation in annotations if isinstance(annotation, Mapping))


def _choose_annotations(
    tasks: Sequence[Mapping[str, Any]], predictions: bool, say: Callable[[str], None]
) -> list[ChosenAnnotation]:
    """The annotation of each task that has one.

    Raises:
        SettingsError: no task has one.
        BadRequest: two tasks have the same number.
    """
    choices = [choose_annotation(task, number, predictions) for number, task in enumerate(tasks, start=1)]
    annotations = [choice for choice in choices if choice]
    counts = Counter(annotation.number for annotation in annotations)
    if duplicates := [number for number, count in counts.items() if count > 1]:
        raise BadRequest(f"two tasks have the number {duplicates[0]}: export the project again, as one file")
    if not annotations:
        fix = "" if predictions else ", or add --predictions to export predictions"
        raise SettingsError(f"no task has a submitted annotation: submit one{fix}")
    if skipped := len(tasks) - len(annotations):
        fix = "" if predictions else "; --predictions exports their predictions"
        say(f"{skipped} tasks have no submitted annotation and are skipped{fix}")
    return annotations


InfoReader = Callable[[str], VideoInfo]
"""Reads the video at an address; raises a BackendError if it cannot be fetched or decoded."""


def _fetch_info(videos: TaskVideos, client: LabelStudioClient, address: str) -> VideoInfo:
    with videos.open(address, client) as video:
        return VideoInfo.from_video(video)


def _read_local(videos: TaskVideos, address: str) -> VideoInfo:
    """Tasks of a file name their videos by path, as `track` writes them; nothing is downloaded."""
    with videos.local(address) as video:
        return VideoInfo.from_video(video)


MaskSourceFactory = Callable[[ChosenAnnotation], MaskSource]
"""Finds the masks of a task's video."""


def _read_masks(file: Path, options: ExportOptions) -> Masks:
    """The masks next to a file, if the format stores masks."""
    return read_sidecar(file) if options.format != LABELSTUDIO and FORMATS[options.format].has_masks else {}


def _sidecar_masks(masks: Masks, annotation: ChosenAnnotation) -> MaskSource:
    return SidecarMasks.for_regions(masks, [str(result.get("id")) for result in annotation.results])


@dataclass(frozen=True, slots=True)
class _JobMasks:
    """The masks of a project's task, from the database of jobs; a server may be using it at the same time."""

    path: Path
    project: str
    controls: ExportControls
    annotation: ChosenAnnotation

    def boxes(self) -> Iterator[tuple[Key, Frames, Boxes]]:
        """The boxes as tracked."""
        for job, direction, block in self._read_blocks(()):
            frames = np.array(block.frames)
            for name, rows in zip(block.tracks, block.rows, strict=True):
                yield (job, direction, name), frames, rows[:, :4].astype(float)

    def masks(self, wanted: Collection[Key]) -> Iterator[tuple[Key, Mapping[int, Rle]]]:
        """The masks of these jobs."""
        for job, direction, block in self._read_blocks({job for job, _, _ in wanted}):
            for name, masks in block.masks.items():
                yield (job, direction, name), masks

    def _read_blocks(self, masks: Container[int]) -> Iterator[tuple[int, int, ResultBlock]]:
        # Another Label Studio may use the same numbers, but its video has another address.
        url = self.annotation.url(self.controls)
        return read_mask_blocks(self.path, str(self.annotation.number), self.project, url, masks)


@dataclass(slots=True)
class Exporter:
    """Writes tasks and reports what could not be exported.

    Attributes:
        failed: number of tasks that were not exported.
    """

    controls: ExportControls
    options: ExportOptions
    read_info: InfoReader
    mask_source: MaskSourceFactory
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
                    write_labelstudio(self._iterate(annotations), self.controls, part, options.dense)
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
        videos = self._read_tracks(annotations, export_format)
        first = next(videos, None)
        self._task = 0
        if first is None:
            raise SettingsError("no task can be exported: see above")
        if export_format.is_folder:
            part.mkdir()
        labels = used_labels(annotations, self.controls)
        export_format.write(chain([first], videos), labels, part, self.options.dense)

    def _iterate(self, annotations: Sequence[ChosenAnnotation]) -> Iterator[ChosenAnnotation]:
        for annotation in annotations:
            self._task = annotation.number
            yield annotation

    def _read_tracks(self, annotations: Sequence[ChosenAnnotation], export_format: Format) -> Iterator[VideoTracks]:
        """The tracks of each task that can be exported, read one at a time."""
        for annotation in self._iterate(annotations):
            try:
                info = self._read_info(annotation)
                video = read_video_tracks(annotation, self.controls, info, self.options.size)
                video = self._add_masks(video, export_format, self.mask_source(annotation))
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
        if export_format.needs != "nothing":
            _ = video.pixels
        video = attach_masks(video, source) if export_format.has_masks and video.tracks else video
        if export_format.needs == "masks" and video.tracks and not video.masked:
            raise BadRequest("none of its tracks has masks: track with show_masks: true, or export boxes")
        return video

    def _read_info(self, annotation: ChosenAnnotation) -> VideoInfo | None:
        """The task's video; None if it is not read, so that Label Studio's frame numbers are used."""
        if not self.options.read_videos:
            return None
        try:
            return self.read_info(annotation.url(self.controls))
        except BackendError as error:
            self._unread_reason = self._unread_reason or f"task {annotation.number}: {error}"
            self._unread_videos += 1
            return None
