"""Where exports come from: the tasks of a file or of a project, with their videos and masks."""

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from backend.errors import BadRequest, SettingsError
from backend.formats.mask_matching import Key, MaskSource
from backend.formats.mask_sidecar import Masks, SidecarMasks, read_sidecar
from backend.formats.tasks import ChosenAnnotation, ExportControls, choose_annotation, load_tasks
from backend.formats.video_tracks import Frames
from backend.jobs.saved_masks import read_mask_blocks
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.label_config import parse_label_config
from backend.labelstudio.videos import TaskVideos
from backend.settings import Settings
from backend.tracks.geometry import Boxes
from backend.tracks.masks import Rle
from backend.tracks.track import ResultBlock
from backend.video import Video


@dataclass(frozen=True, slots=True)
class TrackSource:
    """The tasks to export.

    Attributes:
        words: how `project export` names it: a file's name, or `--project` and a number.
        annotations: of each task that has one.
        skipped: number of tasks without one.
        open_video: opens the video at an address; raises a BackendError if it cannot be fetched or decoded.
        find_masks: finds the masks of a task's video.
    """

    words: tuple[str, ...]
    controls: ExportControls
    annotations: list[ChosenAnnotation]
    skipped: int
    open_video: Callable[[str], Video]
    find_masks: Callable[[ChosenAnnotation], MaskSource]

    @classmethod
    def from_file(cls, settings: Settings, file: Path, predictions: bool, has_masks: bool) -> Self:
        """The tasks of a file, which name their videos by path, as `track` writes them; nothing is downloaded.

        Args:
            predictions: use the newest prediction of tasks without a submitted annotation.
            has_masks: read the masks next to the file.

        Raises:
            BackendError: the file cannot be read, or no task has an annotation.
        """
        annotations, skipped = _choose_annotations(load_tasks(file), predictions)
        masks = read_sidecar(file) if has_masks else {}
        videos = TaskVideos(settings)
        return cls((file.name,), ExportControls(), annotations, skipped, videos.local, partial(_sidecar_masks, masks))

    @classmethod
    def from_project(cls, settings: Settings, project: int, predictions: bool) -> Self:
        """The tasks of a project of the Label Studio that the settings name; see `from_client`."""
        client = LabelStudioClient.connect(settings)
        return cls.from_client(client, TaskVideos(settings), settings.data_dir, project, predictions)

    @classmethod
    def from_client(
        cls, client: LabelStudioClient, videos: TaskVideos, data_dir: Path, project: int, predictions: bool
    ) -> Self:
        """The tasks of a Label Studio project. Masks are those of the project's jobs in `data_dir`.

        Raises:
            BackendError: Label Studio does not answer, or no task has an annotation.
        """
        config = parse_label_config(str(client.project(project).get("label_config") or ""))
        # With a feature flag of Label Studio 1.23, the list of tasks has annotations without their results.
        tasks = [task if _is_complete(task) else client.task(task["id"]) for task in client.tasks(project)]
        annotations, skipped = _choose_annotations(tasks, predictions)
        controls = ExportControls.from_config(config)
        masks = partial(_JobMasks, data_dir.expanduser() / "jobs.sqlite3", str(project), controls)
        open_video = partial(videos.open, client=client)
        return cls(("--project", str(project)), controls, annotations, skipped, open_video, masks)


def _is_complete(task: Mapping[str, Any]) -> bool:
    annotations = task.get("annotations") or ()
    return all("result" in annotation for annotation in annotations if isinstance(annotation, Mapping))


def _choose_annotations(tasks: Sequence[Mapping[str, Any]], predictions: bool) -> tuple[list[ChosenAnnotation], int]:
    """The annotation of each task that has one, and the number of tasks without.

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
    return annotations, len(tasks) - len(annotations)


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
