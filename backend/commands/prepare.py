"""`sam3-backend project prepare`: tasks from videos, and what existing tasks lack; no annotation is touched."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backend.errors import BackendError, SettingsError, StudioError
from backend.labelstudio import config as label_config
from backend.labelstudio import strip
from backend.labelstudio.client import Client
from backend.labelstudio.clock import Clock
from backend.labelstudio.config import NUMBERS, LabelConfig, field
from backend.labelstudio.media import Media
from backend.labelstudio.strip import Signed, Signer
from backend.settings import Settings
from backend.video import Video, VideoLimits, jpeg

_CLOSE = 1e-4
"""Of two frame rates, as a share: boxes drift by less than a frame in 10,000."""


def run(settings: Settings, project: int, videos: Sequence[str]) -> int:
    """Prepare all tasks of a project, and new ones of these videos.

    Args:
        videos: files on this machine, which are uploaded, or addresses.

    Returns:
        How many tasks could not be prepared.

    Raises:
        BackendError: Label Studio cannot be asked, or the project's label config cannot be prompted.
    """
    if not settings.label_studio_url:
        raise SettingsError("label_studio_url is not set: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
    client = Client(settings.label_studio_url, settings.label_studio_api_key)
    config = label_config.parse(str(client.project(project).get("label_config") or ""))
    for note in config.notes:
        _say(note)
    preparer = Preparer(settings, client, project, config)
    for video in videos:
        preparer.add(video)
    failed = 0
    for task in client.tasks(project):
        try:
            _say(f"task {task['id']}: {preparer.prepare(task)}")
        except StudioError:
            raise
        except BackendError as error:
            failed += 1
            _say(f"task {task['id']}: not prepared: {error}")
    return failed


class Preparer:
    """Measures videos and writes what tasks lack."""

    def __init__(self, settings: Settings, client: Client, project: int, config: LabelConfig) -> None:
        self._settings, self._client, self._project, self._config = settings, client, project, config
        limits, folder = settings.limits, settings.data_dir.expanduser()
        self._media = Media(folder / "media", limits.bytes, limits.seconds)
        self._video_limits = VideoLimits(limits.pixels, limits.frames)
        self._signer = Signer(folder / "secret")
        self._tag = config.videos[next(iter(config.rectangles.values()))]
        self._strip = next((one.pictures for one in config.points.values()), "")

    def add(self, video: str) -> None:
        """Make a task of a video, unless the project has one of it."""
        name = self._tag.value.removeprefix("$")
        if "://" in video:
            known = any(task["data"].get(name) == video for task in self._client.tasks(self._project))
            address = video
        else:
            path = Path(video)
            if not path.is_file():
                raise SettingsError(f"there is no file {path.name}: give the path of a video or its address")
            known = self._is_uploaded(path, name)
            address = "" if known else self._client.upload(self._project, [(path.name, path)])[0]
        if known:
            _say(f"{Path(video).name}: the project has it")
        else:
            _say(f"{Path(video).name}: task {self._client.add_task(self._project, {name: address})}")

    def _is_uploaded(self, path: Path, name: str) -> bool:
        """Label Studio names an upload `<eight letters>-<name>`, with some characters of the name replaced."""
        size = path.stat().st_size
        ends = re.sub(r"[^\w.-]", "_", path.name)
        kept = {
            f"/data/{one['file']}"
            for one in self._client.uploads(self._project)
            if one["size"] == size and re.sub(r"[^\w.-]", "_", one["file"]).endswith(f"-{ends}")
        }
        return any(task["data"].get(name) in kept for task in self._client.tasks(self._project))

    def prepare(self, task: Mapping[str, Any]) -> str:
        """Give a task what it lacks, and say what that was.

        Raises:
            BackendError: its video cannot be had or decoded.
        """
        data, told = dict(task["data"]), []
        path = self._media.fetch(self._tag.url(data), self._client)
        with Video(path, self._video_limits) as video:
            told += self._rate(task, data, video)
            told += self._pictures(data, video)
        if data != task["data"]:
            self._client.set_data(task["id"], data)
        return ", ".join(told) or "has everything"

    def _rate(self, task: Mapping[str, Any], data: dict[str, Any], video: Video) -> list[str]:
        """The frame rate: written where it lacks, mended where it is wrong and nobody has worked by it."""
        given, rate = self._tag.framerate or "", round(video.rate, 6)
        known = field(given, data)
        if not given.startswith("$"):
            wrong = _is_wrong(self._tag.rate(data), rate)
            counts = given or f"{self._tag.rate(data):g} by default"
            return (
                [f'it has {rate:g} frames/s, but the config counts {counts}: write framerate="$fps"'] if wrong else []
            )
        if known is None or known == "":
            data[given[1:]] = rate
            return [f"{given[1:]} {rate:g} written"]
        counted = self._tag.rate(data)
        if not _is_wrong(counted, rate):
            return []
        if task.get("total_annotations") or task.get("draft_exists") or task.get("total_predictions"):
            return [f"{given[1:]} is {counted:g}, but the video has {rate:g}: left, since it was annotated by that"]
        data[given[1:]] = rate
        return [f"{given[1:]} was {counted:g}, mended to {rate:g}"]

    def _pictures(self, data: dict[str, Any], video: Video) -> list[str]:
        if not self._strip.startswith("$"):
            return []
        clock = Clock(video.times, video.end, self._tag.rate(data))
        numbers = strip.numbers(clock.length, self._settings.frames_per_strip)
        name, known = self._strip[1:], data.get(self._strip[1:])
        is_served = self._settings.public_url != ""
        served = self._served(data, numbers) if is_served else None
        is_whole = data.get(NUMBERS) == numbers and isinstance(known, list) and len(known) == len(numbers)
        if is_whole and served in (None, known):
            return []
        if served:
            data[name] = served
        else:
            made = [(f"frame-{number}.jpg", jpeg(video.read(clock.source(number)))) for number in numbers]
            data[name] = self._client.upload(self._project, made)
        data[NUMBERS] = numbers
        return [f"{len(numbers)} frames to click on"]

    def _served(self, data: Mapping[str, Any], numbers: Sequence[int]) -> list[str]:
        key = self._signer.key(Signed(self._tag.url(data), self._tag.rate(data)))
        return [f"{self._settings.public_url.rstrip('/')}/frames/{key}/{number}.jpg" for number in numbers]


def _is_wrong(counted: float, rate: float) -> bool:
    return abs(counted - rate) > _CLOSE * rate


def _say(sentence: str) -> None:
    print(f"sam3-backend: {sentence}", file=sys.stderr)
