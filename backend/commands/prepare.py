"""`sam3-backend project prepare`: tasks from videos, and what existing tasks lack; no annotation is touched."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from backend.commands.console import tell
from backend.errors import BackendError, SettingsError, StudioError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.frame_strip import SignedVideo, Signer, strip_frames
from backend.labelstudio.label_config import NUMBERS, LabelConfig, parse_label_config, read_field
from backend.labelstudio.videos import TaskVideos
from backend.settings import Settings
from backend.video import Video, encode_jpeg
from backend.video.frame_clock import FrameClock, same_rate

_WORK = ("total_annotations", "cancelled_annotations", "total_predictions", "draft_exists", "drafts")
"""A task's fields that tell of work on it, which went by the frame rate that it had."""
_BEFORE = len("12345678-")
"""Letters that Label Studio puts before the name of an upload."""
_LONGEST, _BEHIND = 100, len("_1234567")
"""Letters of an upload's path at most, and those that stand at the end of a name that was cut."""


def is_worked_on(task: Mapping[str, Any]) -> bool:
    """Somebody's work on the task counts by its frame rate and by its pictures."""
    return any(task.get(work) for work in _WORK)


def run(settings: Settings, project: int, videos: Sequence[str], say: Callable[[str], None] = tell) -> int:
    """Prepare all tasks of a project, and new ones of these videos.

    Args:
        videos: files on this machine, which are uploaded, or addresses.
        say: is told what was done, a sentence for each video and task.

    Returns:
        How many tasks could not be prepared.

    Raises:
        BackendError: Label Studio cannot be asked, or the project's label config cannot be prompted.
    """
    client = LabelStudioClient.from_settings(settings)
    config = parse_label_config(str(client.project(project).get("label_config") or ""))
    for note in config.notes:
        say(note)
    preparer = Preparer(settings, client, project, config)
    for video in videos:
        say(preparer.add(video))
    failed = 0
    for task in client.tasks(project):
        try:
            say(f"task {task['id']}: {preparer.prepare(task)}")
        except StudioError:
            raise
        except BackendError as error:
            failed += 1
            say(f"task {task['id']}: not prepared: {error}")
    return failed


class Preparer:
    """Measures videos and writes what tasks lack."""

    def __init__(self, settings: Settings, client: LabelStudioClient, project: int, config: LabelConfig) -> None:
        self._settings, self._client, self._project = settings, client, project
        self._videos, self._signer = TaskVideos(settings), Signer.from_settings(settings)
        self._tag, self._strip = config.video, config.strip

    def add(self, video: str) -> str:
        """Make a task of a video, unless the project has one of it, and say so."""
        if "://" in video:
            known, address = video in self._addresses, video
        else:
            path = Path(video)
            if not path.is_file():
                raise SettingsError(f"there is no file {path.name}: give the path of a video or its address")
            known = self._is_uploaded(path)
            address = "" if known else self._client.upload(self._project, [(path.name, path)])[0]
        if known:
            return f"{Path(video).name}: the project has it"
        self._addresses.add(address)
        added = self._client.add_task(self._project, {self._tag.value.removeprefix("$"): address})
        return f"{Path(video).name}: task {added}"

    @cached_property
    def _addresses(self) -> set[str]:
        """Of the videos that the project has tasks of."""
        name = self._tag.value.removeprefix("$")
        return {str(task["data"].get(name)) for task in self._client.tasks(self._project)}

    def _is_uploaded(self, path: Path) -> bool:
        size = path.stat().st_size
        kept = {
            f"/data/{one['file']}"
            for one in self._client.uploads(self._project)
            if one["size"] == size and _is_named(one["file"], path.name)
        }
        return bool(kept & self._addresses)

    def prepare(self, task: Mapping[str, Any]) -> str:
        """Give a task what it lacks, and say what that was.

        Raises:
            BackendError: its video cannot be had or decoded.
        """
        data, told = dict(task["data"]), []
        with self._videos.open(self._tag.url(data), self._client) as video:
            told += self._rate(task, data, video)
            told += self._pictures(task, data, video)
        if data != task["data"]:
            self._client.set_data(task["id"], data)
        return ", ".join(told) or "has everything"

    def _rate(self, task: Mapping[str, Any], data: dict[str, Any], video: Video) -> list[str]:
        """The frame rate: written where it lacks, mended where it is wrong and nobody has worked by it."""
        given, rate = self._tag.framerate or "", round(video.rate, 6)
        known = read_field(given, data)
        if not given.startswith("$"):
            wrong = not same_rate(self._tag.rate(data), rate)
            counts = given or f"{self._tag.rate(data):g} by default"
            return (
                [f'it has {rate:g} frames/s, but the config counts {counts}: write framerate="$fps"'] if wrong else []
            )
        name, counted, is_missing = given[1:], self._tag.rate(data), known is None or known == ""
        if not same_rate(counted, rate) and is_worked_on(task):
            says = f"missing, which counts as {counted:g}" if is_missing else f"{counted:g}"
            return [f"{name} is {says}, but the video has {rate:g}: left, since it was annotated by that"]
        if is_missing:
            data[name] = rate
            return [f"{name} {rate:g} written"]
        if same_rate(counted, rate):
            return []
        data[name] = rate
        return [f"{name} was {counted:g}, mended to {rate:g}"]

    def _pictures(self, task: Mapping[str, Any], data: dict[str, Any], video: Video) -> list[str]:
        if not self._strip.startswith("$"):
            return []
        clock = FrameClock(video.times, video.end, self._tag.rate(data))
        numbers = strip_frames(clock.length, self._settings.frames_per_strip)
        name, known = self._strip[1:], data.get(self._strip[1:])
        served = self._served(data, numbers) if self._settings.public_url else None
        was_served = isinstance(known, list) and "/frames/" in "".join(map(str, known[:1]))
        if data.get(NUMBERS) == numbers and isinstance(known, list) and len(known) == len(numbers):
            if known == served if served else not was_served:
                return []
        elif known and is_worked_on(task):
            return [f"its pictures are others than {name} would get: left, since points on them count by their order"]
        elif known and NUMBERS not in data:
            return [f"{name} holds pictures of your own: left, add {NUMBERS} to it or take it out"]
        if served:
            data[name] = served
        else:
            made = [(f"frame-{number}.jpg", encode_jpeg(video.read(clock.source_frame(number)))) for number in numbers]
            data[name] = self._client.upload(self._project, made)
        data[NUMBERS] = numbers
        return [f"{len(numbers)} frames to click on"]

    def _served(self, data: Mapping[str, Any], numbers: Sequence[int]) -> list[str]:
        key = self._signer.key(SignedVideo(self._tag.url(data), self._tag.rate(data)))
        return [f"{self._settings.public_url.rstrip('/')}/frames/{key}/{number}.jpg" for number in numbers]


def _is_named(upload: str, name: str) -> bool:
    """Whether a file of this name is kept under the path of this upload (seen in 1.23.2).

    Label Studio writes eight letters before the name and takes out what it will not have in one. A path that gets too
    long is cut to the most letters, with seven others at the name's end.
    """
    kept, ours = Path(upload).name[_BEFORE:], re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))
    if len(upload) - len(kept) + len(ours) <= _LONGEST:
        return kept == ours
    is_cut = len(upload) == _LONGEST
    return is_cut and ours.startswith(Path(kept).stem[:-_BEHIND]) and ours.endswith(Path(kept).suffix)
