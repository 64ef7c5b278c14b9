"""`sam3-backend doctor`: what works, what does not, and what mends it, a line each."""

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile

from backend import engines
from backend.commands import doctor_checks
from backend.commands.console import OK, WARN, Report, tell
from backend.engines.base import FAILED_PREFIX, Engine, watch_status
from backend.errors import MediaError, SettingsError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.label_config import NUMBERS, parse_label_config
from backend.labelstudio.videos import TaskVideos
from backend.settings import Settings
from backend.video import Video

_ROOM = 2 * 2**30
"""Free bytes below which the next video may not fit."""
_LOOK = 0.5
"""Seconds between two looks at a model that is loading."""


def run(load: Callable[[], Settings], task: int | None = None, url: str | None = None) -> int:
    """Look at everything, and tell on standard output.

    Args:
        load: reads the settings.
        task: the number of a task to look at, too.
        url: the address of a video to look at, too.

    Returns:
        How many checks failed.
    """
    report = Report()
    with report.check("settings") as say:
        settings = load()
        say(_named(settings))
    if report.failed:
        return report.failed
    with report.check("model") as say:
        engine = engines.load_engine(settings)
        say(_ready(engine))
        if engine.name == "sam3":
            with report.check("device") as say:
                say(*doctor_checks.device(settings, engine))
    with report.check("data_dir") as say:
        say(*_room(settings.data_dir.expanduser()))
    with report.check("environment") as say:
        say(doctor_checks.opencv())
    with report.check("server") as say:
        say(*doctor_checks.server(settings))
    client = (
        LabelStudioClient(settings.label_studio_url, settings.label_studio_api_key)
        if settings.label_studio_url
        else None
    )
    is_reached = _look_at_studio(report, client, task)
    if client and is_reached and task is not None:
        _look_at_task(report, settings, client, task)
    if url is not None:
        with report.check("video") as say, TaskVideos(settings).open(url, client) as video:
            say(_described(video))
    return report.failed


def _named(settings: Settings) -> str:
    if settings.engine == "opencv":
        return "engine opencv, a stand-in that needs no model and knows no words"
    toy = ", a toy that knows coloured shapes" if settings.model_path == "shapes" else ""
    return f"engine {settings.engine}, model {settings.shown()['model_path']}{toy}, device {settings.device}"


def _ready(engine: Engine) -> str:
    """Wait for the model; a SettingsError says why it could not be loaded."""
    for status in watch_status(engine, _LOOK):
        if status.startswith(FAILED_PREFIX):
            raise SettingsError(status.removeprefix(FAILED_PREFIX))
        if status != "ready":
            tell(f"{engine.name} is {status}")
    return f"{engine.name}-{engine.version} is ready"


def _room(folder: Path) -> tuple[str, str]:
    """What is told of a folder that can be written, and the mark."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(b"0")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise SettingsError(
            f"it cannot be written ({error.strerror}): set data_dir to a folder that the backend may write to"
        ) from error
    told = f"can be written, {free / 2**30:.1f} GiB are free"
    return (f"{told}: make room, downloaded videos are kept there", WARN) if free < _ROOM else (told, OK)


def _look_at_studio(report: Report, client: LabelStudioClient | None, task: int | None) -> bool:
    """Whether it can be asked for more."""
    before = report.failed
    mend = "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"
    with report.check("Label Studio") as say:
        if client:
            say(f"version {client.release()} answers")
            client.check_key()
            say(f"it accepts the key, {_kind(client)}")
            if task is None:
                with report.check("connection") as say:
                    say("whether Label Studio reaches this server is a project's: give --task N to look at one", WARN)
        elif task is None:
            say(f"label_studio_url is not set: {mend}, or have legacy tokens enabled, which its pages then send", WARN)
        else:
            raise SettingsError(f"label_studio_url is not set: {mend}")
    return report.failed == before


def _kind(client: LabelStudioClient) -> str:
    """The key's kind, and whether Label Studio would take the other one."""
    legacy = client.has_legacy_tokens() if client.is_personal else None
    told = {True: "; legacy ones are enabled, too", False: "; legacy ones are disabled, which does no harm", None: ""}
    return f"a {'personal access' if client.is_personal else 'legacy'} token{told[legacy]}"


def _look_at_task(report: Report, settings: Settings, client: LabelStudioClient, number: int) -> None:
    before = report.failed
    with report.check("task") as say:
        task = client.task(number)
        project = client.project(task["project"])
        say(f"{number}, of project {task['project']}")
        with report.check("label config") as say:
            config = parse_label_config(str(project.get("label_config") or ""))
            for line in config.describe():
                say(line, WARN if line in config.notes else OK)
    if report.failed > before:
        return
    with report.check("connection") as say:
        backends = client.backends(task["project"])
        if not backends:
            raise doctor_checks.none_connected(task["project"])
        for one in backends:
            with report.check("connection") as say:
                say(*doctor_checks.connection(one, task["project"], settings, client.url))
    tag, strip, videos = config.video, config.strip, TaskVideos(settings)
    with report.check("video") as say, videos.open(tag.url(task["data"]), client) as video:
        say(_described(video))
        with report.check("frame rate") as say:
            say(doctor_checks.rate(task, tag, video))
        if strip.startswith("$"):
            with report.check("frames") as say:
                pictures = doctor_checks.pictures(task, strip[1:], tag, video)
                say(f"{len(pictures)} to click on, {_tried(pictures[0], client, videos, doctor_checks.prepare(task))}")


def _described(video: Video) -> str:
    return f"{video.width} x {video.height}, {len(video)} frames, {video.rate:g} frames/s"


def _tried(picture: str, client: LabelStudioClient, videos: TaskVideos, mend: str) -> str:
    """What came of fetching a picture of the strip."""
    if not (picture.startswith("/") or client.serves(picture)):
        return "which Label Studio does not keep: not fetched"
    try:
        videos.try_picture(picture, client)
    except MediaError as error:
        raise MediaError(f"the first cannot be fetched: delete {NUMBERS} from the task's data, then {mend}") from error
    return "of which the first was fetched"
