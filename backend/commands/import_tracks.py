"""`sam3-backend project import`: add the tracks of other tools to a project's tasks as predictions."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backend.commands.arguments import Subparsers, add_command, add_settings_options, load_settings, parse_size
from backend.commands.console import format_count, print_message, summarize
from backend.errors import BackendError, SettingsError, StudioError
from backend.formats.imported_tracks import ImportedVideo, scale_video
from backend.formats.link_detections import link_detections
from backend.formats.readers import READERS
from backend.formats.to_predictions import build_prediction, scale_tracks
from backend.formats.video_tracks import Size, folder_name
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.label_config import LabelConfig, parse_label_config
from backend.labelstudio.videos import TaskVideos
from backend.settings import Settings
from backend.video import VideoInfo

_DESCRIPTION = """
Add the tracks of a file to tasks as predictions. Importing a file again adds nothing.

Without --task, the task of each video is found by the name of its video, or by the name
of the folder that export writes. Boxes without track ids are linked to tracks, which needs
the extra link: pip install 'sam3-backend[link]'.
"""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What to read, and for which task.

    Attributes:
        task: number of the task; None: find tasks by the names of their videos.
        label: class of all tracks; None: the classes in the file.
        size: of the video, used if neither the file nor the video gives it.
    """

    path: Path
    format: str
    task: int | None = None
    label: str | None = None
    size: Size | None = None


def add_parser(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = add_command(
        subparsers,
        "import",
        _run,
        summary="add tracks of other tools to tasks as predictions",
        description=_DESCRIPTION,
        examples=(
            "sam3-backend project import gt.txt --project 1 --task 7 --format mot --label Person",
            "sam3-backend project import runs/detect/track/labels --project 1 --format yolo",
        ),
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a file or folder of this format")
    parser.add_argument("--project", type=int, required=True, metavar="N", help="number of the project")
    parser.add_argument("--task", type=int, metavar="N", help="number of the task; the file must have one video")
    parser.add_argument("--format", required=True, choices=tuple(READERS), help="format of the file")
    parser.add_argument("--label", metavar="L", help="class of all tracks (default: the classes in the file)")
    parser.add_argument("--size", type=parse_size, metavar="WxH", help="size of videos whose size is unknown")
    add_settings_options(parser)


def _run(options: argparse.Namespace) -> None:
    import_options = ImportOptions(options.file, options.format, options.task, options.label, options.size)
    failed = run(load_settings(options, "data_dir"), import_options, options.project)
    if failed:
        raise BackendError(f"{format_count(failed, 'video')} not imported: see above")


def run(settings: Settings, options: ImportOptions, project: int, say: Callable[[str], None] = print_message) -> int:
    """Add the tracks of a file to tasks as predictions.

    Args:
        say: prints what was done, one line for each video of the file.

    Returns:
        The number of videos that were not imported.

    Raises:
        BackendError: the file cannot be read, or Label Studio does not answer.
    """
    client = LabelStudioClient.connect(settings)
    videos = READERS[options.format](options.path, say)
    if options.task is not None and len(videos) > 1:
        names = ", ".join(video.name for video in videos[:5])
        raise SettingsError(
            f"{options.path.name} has {len(videos)} videos ({names}): import them one by one, or leave out --task"
        )
    config = parse_label_config(str(client.project(project).get("label_config") or ""))
    tasks = [client.task(options.task)] if options.task is not None else list(client.tasks(project))
    importer, failed = Importer(settings, client, config, options), 0
    for video in videos:
        try:
            task = tasks[0] if options.task is not None else _find_task(video, tasks, config)
            say(f"{video.name}: {importer.add(video, task)}")
        except StudioError:
            raise
        except BackendError as error:
            failed += 1
            say(f"{video.name}: not imported: {error}")
    say(summarize("imported", "video", len(videos) - failed, failed))
    return failed


def _find_task(video: ImportedVideo, tasks: Sequence[Mapping[str, Any]], config: LabelConfig) -> Mapping[str, Any]:
    """The task whose video, or whose folder in an export, has this name.

    Raises:
        SettingsError: there is no such task, or there are several.
    """
    names = list[set[str]]()
    for task in tasks:
        stem = folder_name(0, config.video.address(task["data"])).partition("-")[2]
        # Label Studio puts eight hex digits and a hyphen before the name of an upload.
        names.append({folder_name(task["id"], stem), stem, stem[9:] if stem[8:9] == "-" else stem})
    matches = [task for task, known in zip(tasks, names, strict=True) if video.name in known]
    if len(matches) != 1:
        count = f"{len(matches)} tasks have" if matches else "no task has"
        raise SettingsError(f"{count} a video of this name: choose the task with --task N")
    return matches[0]


class Importer:
    """Builds predictions and sends them to Label Studio."""

    def __init__(
        self, settings: Settings, client: LabelStudioClient, config: LabelConfig, options: ImportOptions
    ) -> None:
        self._client, self._config, self._options = client, config, options
        self._videos, self._settings = TaskVideos(settings), settings

    def add(self, video: ImportedVideo, task: Mapping[str, Any]) -> str:
        """Add a video's tracks to a task unless it has them, and return what was done.

        Raises:
            BackendError: the tracks do not fit the task's video or the project's label config.
        """
        version = f"import-{self._options.path.stem}"
        if any(prediction.get("model_version") == version for prediction in self._client.predictions(task["id"])):
            return f"task {task['id']} already has the prediction {version}: delete it to import again"
        framerate = self._config.video.rate(task["data"])
        video_info, remark = self._video_info(video, task, framerate)
        video = link_detections(scale_video(video, video_info.size))
        result = build_prediction(video, video_info, framerate, self._config, self._settings, self._options.label)
        scores = [track.score for track in video.tracks if track.score is not None]
        score = {"score": round(float(np.mean(scores)), 4)} if scores else {}
        self._client.add_prediction(task["id"], {"model_version": version, **score, "result": result})
        return f"{len(video.tracks)} tracks added to task {task['id']} as the prediction {version}{remark}"

    def _video_info(self, video: ImportedVideo, task: Mapping[str, Any], framerate: float) -> tuple[VideoInfo, str]:
        """The task's video, or what the file says of it, with a remark in the second case.

        Raises:
            SettingsError: the video's size is unknown.
        """
        size = video.size or self._options.size
        try:
            with self._videos.open(self._config.video.url(task), self._client) as file:
                return scale_tracks(VideoInfo.from_video(file), size), ""
        except StudioError:
            raise
        except BackendError as error:
            if size is None:
                raise SettingsError(
                    f"the size of the video is unknown, give it as --size 1920x1080: {error}"
                ) from error
            remark = f"; frames are Label Studio's frame numbers less one, because the video cannot be read: {error}"
            return VideoInfo.evenly_spaced(video.length, framerate, size), remark
