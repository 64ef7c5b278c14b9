"""`sam3-backend project export`: a project's tracks, or a file's, in the formats that others read."""

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from backend.commands.console import tell
from backend.errors import BackendError, BadRequest, SettingsError
from backend.formats.labelstudio_json import write_labelstudio
from backend.formats.mask_matching import Key, MaskSource, attach_masks
from backend.formats.mask_sidecar import Masks, SidecarMasks, read_sidecar
from backend.formats.registry import FORMATS, LABELSTUDIO, Format
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


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to write.

    Attributes:
        output: a file, or a folder that is empty or not there yet.
        dense: every frame, where the format may hold keyframes alone.
        predictions: tasks without a submitted annotation give their newest prediction.
        size: of all pictures, where neither the video nor the tasks tell it.
        looks: videos are opened, so that frames are the file's own.
    """

    format: str
    output: Path
    dense: bool = False
    predictions: bool = False
    size: Size | None = None
    looks: bool = True


def run(
    settings: Settings,
    source: Path | int,
    wanted: ExportOptions,
    say: Callable[[str], None] = tell,
) -> int:
    """Export the tasks of a file, or of a project of Label Studio.

    Masks are those that `track` left beside the file, or those of the project's jobs in `data_dir`.

    Args:
        source: a JSON file of tasks, or a project's number.
        say: is told what was done, and of each task that is left out or counts frames without its video.

    Returns:
        How many tasks could not be exported.

    Raises:
        BackendError: nothing can be, or the tasks cannot be had.
    """
    _check(wanted)
    keeps: Keeps
    if isinstance(source, Path):
        found, controls, look = load_tasks(source), ExportControls(), _beside(TaskVideos(settings))
        keeps = partial(_left, _masks(source, wanted))
    else:
        client = LabelStudioClient.from_settings(settings)
        found, controls = _project(client, source)
        look = partial(_fetched, TaskVideos(settings), client)
        keeps = partial(_Stored, settings.data_dir.expanduser() / "jobs.sqlite3", str(source), controls)
    chosen = _chosen(found, wanted.predictions, say)
    exporter = Exporter(controls, wanted, look, keeps, say)
    exporter.write(chosen)
    return exporter.failed


def _check(wanted: ExportOptions) -> None:
    """Say what is wrong with the place before anything is read."""
    output, is_folder = wanted.output, wanted.format != LABELSTUDIO and FORMATS[wanted.format].is_folder
    if not output.absolute().parent.is_dir():
        raise SettingsError(f"{output.name} cannot be written: give a place in a folder that is there")
    if is_folder and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SettingsError(f"{output.name} is not an empty folder: give a new one for {wanted.format}")
    if not is_folder and output.is_dir():
        raise SettingsError(f"{output.name} is a folder: {wanted.format} is one file, give its name")


def _project(client: LabelStudioClient, project: int) -> tuple[list[Mapping[str, Any]], ExportControls]:
    """All tasks, whole ones."""
    config = parse_label_config(str(client.project(project).get("label_config") or ""))
    # A list of tasks may come with annotations that lack their results (a feature flag of 1.23's).
    found = (task if _is_whole(task) else client.task(task["id"]) for task in client.tasks(project))
    return list(found), ExportControls.from_config(config)


def _is_whole(task: Mapping[str, Any]) -> bool:
    return all("result" in one for one in task.get("annotations") or () if isinstance(one, Mapping))


def _chosen(
    found: Sequence[Mapping[str, Any]], predictions: bool, say: Callable[[str], None]
) -> list[ChosenAnnotation]:
    """Of each task what counts.

    Raises:
        SettingsError: of no task anything does.
        BadRequest: two tasks have the same number.
    """
    each = [choose_annotation(task, number, predictions) for number, task in enumerate(found, start=1)]
    chosen = [one for one in each if one]
    twice = [number for number, times in Counter(one.number for one in chosen).items() if times > 1]
    if twice:
        raise BadRequest(f"two tasks have the number {twice[0]}: export the project anew, as one file")
    mend = "" if predictions else ", --predictions takes what was predicted there"
    if not chosen:
        raise SettingsError(f"no task has a submitted annotation: submit some{mend}")
    if left := len(found) - len(chosen):
        say(f"{left} tasks have no submitted annotation, and are left out{mend}")
    return chosen


Look = Callable[[str], VideoInfo]
"""What the video at an address tells, or a BackendError: it cannot be had or decoded."""


def _fetched(videos: TaskVideos, client: LabelStudioClient, address: str) -> VideoInfo:
    """Of a project's video."""
    with videos.open(address, client) as video:
        return VideoInfo.from_video(video)


def _beside(videos: TaskVideos) -> Look:
    """Of videos that a file names by their paths on this machine, as `track` does; nothing is fetched for a file."""

    def look(address: str) -> VideoInfo:
        with videos.local(address) as video:
            return VideoInfo.from_video(video)

    return look


Keeps = Callable[[ChosenAnnotation], MaskSource]
"""The masks that were kept of a task's video."""


def _masks(file: Path, wanted: ExportOptions) -> Masks:
    """Those beside a file, where the format holds some."""
    return read_sidecar(file) if wanted.format != LABELSTUDIO and FORMATS[wanted.format].has_masks else {}


def _left(masks: Masks, chosen: ChosenAnnotation) -> MaskSource:
    """Of a file's task."""
    return SidecarMasks.for_regions(masks, [str(one.get("id")) for one in chosen.results])


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the jobs of a project's task have kept, in the file that a server may be working in."""

    path: Path
    project: str
    controls: ExportControls
    chosen: ChosenAnnotation

    def boxes(self) -> Iterator[tuple[Key, Frames, Boxes]]:
        """As the tracks had them."""
        for job, way, block in self._blocks(()):
            frames = np.array(block.frames)
            for name, rows in zip(block.tracks, block.rows, strict=True):
                yield (job, way, name), frames, rows[:, :4].astype(float)

    def masks(self, wanted: Collection[Key]) -> Iterator[tuple[Key, Mapping[int, Rle]]]:
        """Of the jobs that are wanted."""
        for job, way, block in self._blocks({job for job, _, _ in wanted}):
            for name, masks in block.masks.items():
                yield (job, way, name), masks

    def _blocks(self, masks: Container[int]) -> Iterator[tuple[int, int, ResultBlock]]:
        # The same numbers may be another Label Studio's; its video has another address.
        url = self.controls.video(self.chosen.data)
        return read_mask_blocks(self.path, str(self.chosen.number), self.project, url, masks)


@dataclass(slots=True)
class Exporter:
    """Writes tasks, and tells what could not be done.

    Attributes:
        failed: tasks that are not in what was written.
    """

    controls: ExportControls
    wanted: ExportOptions
    look: Look
    keeps: Keeps
    say: Callable[[str], None]
    failed: int = 0
    _at: int = field(default=0, init=False)
    _tracks: int = field(default=0, init=False)
    _unmasked: int = field(default=0, init=False)
    _gaps: int = field(default=0, init=False)
    _counted: int = field(default=0, init=False)
    _blind: str = field(default="", init=False)

    def write(self, chosen: Sequence[ChosenAnnotation]) -> None:
        """Write all of them; nothing stays where none can be.

        Raises:
            BackendError: none can be written.
        """
        wanted = self.wanted
        with written_whole(wanted.output) as part:
            try:
                if wanted.format == LABELSTUDIO:
                    write_labelstudio(self._each(chosen), self.controls, part, wanted.dense)
                else:
                    self._write(chosen, FORMATS[wanted.format], part)
            except BackendError as error:
                raise type(error)(f"task {self._at}: {error}" if self._at else str(error)) from error
        told = "" if wanted.format == LABELSTUDIO else f", {self._tracks} tracks"
        self.say(f"{wanted.output.name}: {len(chosen) - self.failed} tasks{told}")
        if self._blind:
            self.say(
                f"frames of {self._counted} tasks are Label Studio's, less one: the video is not read ({self._blind})"
            )
        if self._unmasked:
            self.say(f"{self._unmasked} tracks have no masks, and are left out of {wanted.format}")
        if self._gaps:
            self.say(f"{self._gaps} boxes of the others have no mask that fits, and are left out: track them anew")

    def _write(self, chosen: Sequence[ChosenAnnotation], form: Format, part: Path) -> None:
        clips = self._clips(chosen, form)
        first = next(clips, None)
        self._at = 0
        if first is None:
            raise SettingsError("no task can be exported: see above")
        if form.is_folder:
            part.mkdir()
        form.write(chain([first], clips), used_labels(chosen, self.controls), part, self.wanted.dense)

    def _each(self, chosen: Sequence[ChosenAnnotation]) -> Iterator[ChosenAnnotation]:
        for one in chosen:
            self._at = one.number
            yield one

    def _clips(self, chosen: Sequence[ChosenAnnotation], form: Format) -> Iterator[VideoTracks]:
        """What can be written of them, one by one."""
        for one in self._each(chosen):
            try:
                clip = read_video_tracks(one, self.controls, self._video_info(one), self.wanted.size)
                clip = self._checked(clip, form, self.keeps(one))
            except BackendError as error:
                self.failed += 1
                self.say(f"task {one.number}: not exported: {error}")
                continue
            self._tracks += len(clip.tracks)
            if form.needs == "masks":
                self._unmasked += len(clip.tracks) - len(clip.masked)
                self._gaps += sum(len(trace.frames) - len(trace.masks) for trace in clip.masked)
            yield clip

    def _checked(self, clip: VideoTracks, form: Format, kept: MaskSource) -> VideoTracks:
        """The clip with its masks; refused is what would be written without its tracks, as if there were none.

        Raises:
            BackendError: the format needs what it has not, or what was kept cannot be read.
        """
        if form.needs != "nothing":
            _ = clip.pixels
        clip = attach_masks(clip, kept) if form.has_masks and clip.tracks else clip
        if form.needs == "masks" and clip.tracks and not clip.masked:
            raise BadRequest("none of its tracks has masks: track with show_masks: true, or export boxes")
        return clip

    def _video_info(self, chosen: ChosenAnnotation) -> VideoInfo | None:
        """What a task's video tells; None: it cannot be had, and frames are counted as the page counts them."""
        if not self.wanted.looks:
            return None
        try:
            return self.look(self.controls.video(chosen.data))
        except BackendError as error:
            self._blind = self._blind or f"task {chosen.number}: {error}"
            self._counted += 1
            return None
