"""`sam3-backend project import`: tracks of other tools become predictions of a project's tasks, each once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backend.commands.console import tell
from backend.errors import BackendError, SettingsError, StudioError
from backend.formats.readers import READERS, ImportedVideo
from backend.formats.to_predictions import build_prediction, scale_tracks
from backend.formats.video_tracks import Size, folder_name
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.label_config import LabelConfig, parse_label_config
from backend.labelstudio.videos import TaskVideos
from backend.settings import Settings
from backend.video import VideoInfo


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What to read, and for which task.

    Attributes:
        task: its number; None: tasks are found by the names of their videos.
        label: the class of all tracks; None: as the file names them.
        size: of the pictures that the file's boxes are in, where neither it nor the video tells.
    """

    path: Path
    format: str
    task: int | None = None
    label: str | None = None
    size: Size | None = None


def run(settings: Settings, given: ImportOptions, project: int, say: Callable[[str], None] = tell) -> int:
    """Give tasks the tracks of a file as predictions.

    Args:
        say: is told what was done, a sentence for each video of the file.

    Returns:
        How many videos of the file could not be imported.

    Raises:
        BackendError: the file cannot be read, or Label Studio not be asked.
    """
    client = LabelStudioClient.from_settings(settings)
    recordings: list[ImportedVideo] = READERS[given.format](given.path)
    if given.task is not None and len(recordings) > 1:
        names = ", ".join(one.name for one in recordings[:5])
        raise SettingsError(
            f"{given.path.name} holds {len(recordings)} videos ({names}): give one, or leave out --task"
        )
    config = parse_label_config(str(client.project(project).get("label_config") or ""))
    tasks = [client.task(given.task)] if given.task is not None else list(client.tasks(project))
    loader, failed = Loader(settings, client, config, given), 0
    for recording in recordings:
        try:
            task = tasks[0] if given.task is not None else _task(recording, tasks, config)
            say(f"{recording.name}: {loader.load(recording, task)}")
        except StudioError:
            raise
        except BackendError as error:
            failed += 1
            say(f"{recording.name}: not imported: {error}")
    return failed


def _task(recording: ImportedVideo, tasks: Sequence[Mapping[str, Any]], config: LabelConfig) -> Mapping[str, Any]:
    """The task of a recording, by the name that our export gives it, or by its video's.

    Raises:
        SettingsError: there is none, or several.
    """
    field, names = config.video.value.removeprefix("$"), list[set[str]]()
    for task in tasks:
        stem = folder_name(0, str(task["data"].get(field) or "")).partition("-")[2]
        # Label Studio puts eight hex digits before the name of an upload.
        names.append({folder_name(task["id"], stem), stem, stem[9:] if stem[8:9] == "-" else stem})
    found = [task for task, known in zip(tasks, names, strict=True) if recording.name in known]
    if len(found) != 1:
        says = f"{len(found)} tasks have a video of this name" if found else "no task has a video of this name"
        raise SettingsError(f"{says}: say which by --task N")
    return found[0]


class Loader:
    """Makes predictions and posts them."""

    def __init__(
        self, settings: Settings, client: LabelStudioClient, config: LabelConfig, given: ImportOptions
    ) -> None:
        self._client, self._config, self._given = client, config, given
        self._videos, self._settings = TaskVideos(settings), settings

    def load(self, recording: ImportedVideo, task: Mapping[str, Any]) -> str:
        """Give a task the tracks of a recording, unless it has them, and say so.

        Raises:
            BackendError: they do not fit the task's video or the project's label config.
        """
        version = f"import-{self._given.path.stem}"
        if any(one.get("model_version") == version for one in self._client.predictions(task["id"])):
            return f"task {task['id']} has the prediction {version} already: left, delete that to import it anew"
        framerate = self._config.video.rate(task["data"])
        video_info, told = self._video_info(recording, task, framerate)
        result = build_prediction(recording, video_info, framerate, self._config, self._settings, self._given.label)
        scores = [track.score for track in recording.tracks if track.score is not None]
        score = {"score": round(float(np.mean(scores)), 4)} if scores else {}
        self._client.add_prediction(task["id"], {"model_version": version, **score, "result": result})
        return f"task {task['id']} has {len(recording.tracks)} tracks as the prediction {version}{told}"

    def _video_info(self, recording: ImportedVideo, task: Mapping[str, Any], framerate: float) -> tuple[VideoInfo, str]:
        """What is known of the video, and a remark where that is only what the file tells.

        Raises:
            SettingsError: the pictures' size is unknown.
        """
        size = recording.size or self._given.size
        try:
            with self._videos.open(self._config.video.url(task["data"]), self._client) as video:
                return scale_tracks(VideoInfo.from_video(video), size), ""
        except StudioError:
            raise
        except BackendError as error:
            if size is None:
                raise SettingsError(
                    f"the size of its pictures is unknown, give it as --size 1920x1080: {error}"
                ) from error
            told = f"; its video is not read, frames are taken for Label Studio's, less one: {error}"
            return VideoInfo.evenly_spaced(recording.length, framerate, size), told
