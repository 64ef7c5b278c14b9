"""`sam3-backend project prepare`: create tasks for videos and complete existing tasks; annotations never change."""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from backend.commands.arguments import Subparsers, add_command, add_settings_options, load_settings
from backend.commands.console import format_count, print_message, summarize
from backend.errors import BackendError, SettingsError, StudioError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.examples import fit_examples
from backend.labelstudio.frame_strip import SignedPage, SignedTask, SignedVideo, Signer, strip_frames
from backend.labelstudio.label_config import NUMBERS, LabelConfig, parse_label_config
from backend.labelstudio.task_data import read_field, write_field
from backend.labelstudio.videos import TaskVideos
from backend.settings import Settings
from backend.video import Video, encode_jpeg
from backend.video.frame_clock import FrameClock, same_rate

_WORK = ("total_annotations", "cancelled_annotations", "total_predictions", "draft_exists", "drafts")
"""Fields of a task that show that somebody worked on it, with the frame rate it had."""
_PREFIX = len("12345678-")
"""Length of what Label Studio puts before the name of an upload."""
_MAX_PATH, _SUFFIX = 100, len("_1234567")
"""Maximum length of an upload's path, and length of the end of a shortened name."""
# Label Studio lets no link in such a text be followed, but forms are sent (seen in 1.23.2).
_LINK_HTML = (
    '<form action="{url}" target="_blank" style="margin: 0">{fields}'
    '<button style="all: unset; cursor: pointer; text-decoration: underline; font-size: 12px; white-space: nowrap">'
    "{content}</button></form>"
)
_PICTURE_HTML = (
    '<img src="{picture}" width="640" height="44" style="display: block" '
    'alt="The SAM3 backend does not answer: prompts will not be answered until it runs.">'
)
# A lazy picture that is folded away is not loaded: its stream begins when somebody opens it.
_FRAME_HTML = (
    '<details{attribute}><summary style="cursor: pointer; font-size: 12px; line-height: 16px">Newest frame</summary>'
    '<img src="{picture}/frame" loading="lazy" width="480" height="270" style="object-fit: contain" '
    'alt="No picture of the newest frame."></details>'
)
_NO_PANEL = "no live panel: set public_url to the backend's address for browsers"
_DESCRIPTION = """
Create a task for each new video, and add what the project's tasks lack for prompts: the
frame rate, and the frames to click on. Annotations are never changed.
"""


def is_worked_on(task: Mapping[str, Any]) -> bool:
    """Whether the task has work that depends on its frame rate and its frames to click on."""
    return any(task.get(work) for work in _WORK)


def add_parser(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = add_command(
        subparsers,
        "prepare",
        _run,
        summary="create tasks for videos, and complete tasks for prompts",
        description=_DESCRIPTION,
        examples=(
            "sam3-backend project prepare --project 1",
            "sam3-backend project prepare --project 1 clip.mp4 https://example.com/other.mp4",
        ),
    )
    parser.add_argument("videos", nargs="*", metavar="VIDEO", help="a file to upload, or a URL")
    parser.add_argument("--project", type=int, required=True, metavar="N", help="number of the project")
    add_settings_options(parser)


def _run(options: argparse.Namespace) -> None:
    failed = run(load_settings(options, "data_dir"), options.project, options.videos)
    if failed:
        raise BackendError(f"{format_count(failed, 'task')} not prepared: see above")


def run(settings: Settings, project: int, videos: Sequence[str], say: Callable[[str], None] = print_message) -> int:
    """Create tasks for these videos, and prepare all tasks of the project.

    Args:
        videos: files to upload, or URLs.
        say: prints what was done, one line for each video and task.

    Returns:
        The number of tasks that were not prepared.

    Raises:
        BackendError: Label Studio does not answer, or the project's label config is not supported.
    """
    client = LabelStudioClient.connect(settings)
    xml = str(client.project(project).get("label_config") or "")
    config = parse_label_config(xml)
    if (fitting := fit_examples(xml)) != xml:
        client.set_label_config(project, fitting)
        say("the examples in the label config are the project's own labels")
    for note in config.notes:
        say(note)
    preparer = Preparer(settings, client, project, config)
    for video in videos:
        say(preparer.add(video))
    done = failed = 0
    for task in client.tasks(project):
        try:
            say(f"task {task['id']}: {preparer.prepare(task)}")
            done += 1
        except StudioError:
            raise
        except BackendError as error:
            failed += 1
            say(f"task {task['id']}: not prepared: {error}")
    say(summarize("prepared", "task", done, failed))
    return failed


class Preparer:
    """Creates tasks, and adds what tasks lack."""

    def __init__(self, settings: Settings, client: LabelStudioClient, project: int, config: LabelConfig) -> None:
        self._settings, self._client, self._project = settings, client, project
        self._videos, self._signer = TaskVideos(settings), Signer.from_settings(settings)
        self._tag, self._strip, self._panel = config.video, config.strip, config.panel

    def add(self, video: str) -> str:
        """Create a task for a video unless the project has one, and return what was done."""
        if "://" in video:
            known, address = video in self._addresses, video
        else:
            path = Path(video)
            if not path.is_file():
                raise SettingsError(f"there is no file {path.name}: give the path of a video or its address")
            known = self._is_uploaded(path)
            address = "" if known else self._client.upload(self._project, [(path.name, path)])[0]
        if known:
            return f"{Path(video).name}: already in the project"
        self._addresses.add(address)
        added = self._client.add_task(self._project, write_field(self._tag.value, {}, address))
        return f"{Path(video).name}: task {added}"

    @cached_property
    def _addresses(self) -> set[str]:
        """The videos of the project's tasks."""
        return {str(read_field(self._tag.value, task["data"])) for task in self._client.tasks(self._project)}

    def _is_uploaded(self, path: Path) -> bool:
        size = path.stat().st_size
        uploads = {
            f"/data/{upload['file']}"
            for upload in self._client.uploads(self._project)
            if upload["size"] == size and _has_name(upload["file"], path.name)
        }
        return bool(uploads & self._addresses)

    def prepare(self, task: Mapping[str, Any]) -> str:
        """Add what a task lacks, and return what was done.

        Raises:
            BackendError: its video cannot be fetched or decoded.
        """
        data = dict(task["data"])
        remarks = self._set_panel(task, data)
        with self._videos.open(self._tag.url(task), self._client) as video:
            remarks += self._set_rate(task, data, video)
            remarks += self._set_pictures(task, data, video)
            hidden = FrameClock(video.times, video.end, self._tag.rate(data)).describe_hidden()
            remarks += [hidden] if hidden else []
            remarks += [video.damage] if video.damage else []
        if data != task["data"]:
            self._client.set_data(task["id"], data)
        return ", ".join(remarks) or "nothing to do"

    def _set_rate(self, task: Mapping[str, Any], data: dict[str, Any], video: Video) -> list[str]:
        """Add a missing frame rate, and correct a wrong one unless somebody worked with it."""
        attribute, rate = self._tag.framerate or "", round(video.rate, 6)
        current, ls_rate = read_field(attribute, data), self._tag.rate(data)
        is_right, is_missing = same_rate(ls_rate, rate), current is None or current == ""
        if not attribute.startswith("$"):
            config = f"the label config says {attribute}" if attribute else f"Label Studio assumes {ls_rate:g}"
            fix = 'set framerate="$fps" in the label config'
            return [] if is_right else [f"the video has {rate:g} frames/s, but {config}: {fix}"]
        name = attribute[1:]
        if not is_right and is_worked_on(task):
            value = f"missing, so Label Studio assumes {ls_rate:g}" if is_missing else f"{ls_rate:g}"
            return [f"{name} is {value}, but the video has {rate:g}: unchanged, because existing work depends on it"]
        if is_missing:
            data |= write_field(attribute, data, rate)
            return [f"{name} set to {rate:g}"]
        if is_right:
            return []
        data |= write_field(attribute, data, rate)
        return [f"{name} corrected from {ls_rate:g} to {rate:g}"]

    def _set_panel(self, task: Mapping[str, Any], data: dict[str, Any]) -> list[str]:
        """Add the live panel, if the label config shows one and browsers reach the backend."""
        if not self._panel:
            return []
        html = panel_html(self._settings, self._project, task["id"])
        if (read_field(self._panel, data) or "") == html:
            return [] if html else [_NO_PANEL]
        data |= write_field(self._panel, data, html)
        return ["live panel" if html else _NO_PANEL]

    def _set_pictures(self, task: Mapping[str, Any], data: dict[str, Any], video: Video) -> list[str]:
        if not self._strip.startswith("$"):
            return []
        clock = FrameClock(video.times, video.end, self._tag.rate(data))
        numbers = strip_frames(clock.whole_frames, self._settings.frames_per_strip)
        name, current = self._strip[1:], read_field(self._strip, data)
        served = self._picture_urls(task, data, numbers) if self._settings.public_url else None
        was_served = isinstance(current, list) and "/frames/" in "".join(map(str, current[:1]))
        if data.get(NUMBERS) == numbers and isinstance(current, list) and len(current) == len(numbers):
            if current == served if served else not was_served:
                return []
        elif current and is_worked_on(task):
            return [f"{name} has other pictures than it would get now: unchanged, because points refer to their order"]
        elif current and NUMBERS not in data:
            return [f"{name} has your own pictures: unchanged; add {NUMBERS} to the task's data, or remove {name}"]
        if not served:
            files = [(f"frame-{number}.jpg", encode_jpeg(video.read(clock.source_frame(number)))) for number in numbers]
            served = self._client.upload(self._project, files)
        data |= {**write_field(self._strip, data, served), NUMBERS: numbers}
        return [f"{len(numbers)} frames to click on"]

    def _picture_urls(self, task: Mapping[str, Any], data: Mapping[str, Any], numbers: Sequence[int]) -> list[str]:
        key = self._signer.key(SignedVideo(self._tag.url(task), self._tag.rate(data)))
        return [f"{self._settings.public_url.rstrip('/')}/frames/{key}/{number}.jpg" for number in numbers]


def panel_html(settings: Settings, project: int, task: int) -> str:
    """The task's live panel for Label Studio's page; empty if browsers do not reach the backend."""
    url = settings.browser_url
    if not url:
        return ""
    signer, names = Signer.from_settings(settings), (str(project), str(task))
    key = signer.key(SignedTask(*names))
    links = [
        _link_html(f"{url}/tasks/{task}", _PICTURE_HTML.format(picture=f"{url}/panel/{key}")),
        _link_html(f"{url}/prompt/{signer.key(SignedPage(*names))}/", "Click on the video"),
        _link_html(f"{url}/export", "Export", project=str(project)),
    ]
    html = f'<div style="display: flex; align-items: center; gap: 12px">{"".join(links)}</div>'
    if settings.panel_frame != "off":
        attribute = " open" if settings.panel_frame == "open" else ""
        html += _FRAME_HTML.format(attribute=attribute, picture=f"{url}/panel/{key}")
    return html


def _link_html(url: str, content: str, **query: str) -> str:
    fields = (f'<input type="hidden" name="{name}" value="{value}">' for name, value in query.items())
    return _LINK_HTML.format(url=url, fields="".join(fields), content=content)


def _has_name(upload: str, name: str) -> bool:
    """Whether an upload's path is that of a file with this name.

    Label Studio 1.23.2 puts eight letters and a hyphen before the name and removes special characters. It shortens a
    path that is too long, and puts an underscore and seven letters at the end of the name.
    """
    stored, clean = Path(upload).name[_PREFIX:], re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))
    if len(upload) - len(stored) + len(clean) <= _MAX_PATH:
        return stored == clean
    is_cut = len(upload) == _MAX_PATH
    return is_cut and clean.startswith(Path(stored).stem[:-_SUFFIX]) and clean.endswith(Path(stored).suffix)
