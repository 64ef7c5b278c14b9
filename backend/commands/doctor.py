"""`sam3-backend doctor`: check the installation, and print a fix for each failure."""

import argparse
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

from backend import engines
from backend.commands import doctor_checks
from backend.commands.arguments import Subparsers, add_command, add_config_option, add_model_options, load_settings
from backend.commands.console import OK, WARN, Report, print_message
from backend.datasets.picture_folder import format_bytes
from backend.engines.base import FAILED_PREFIX, WAITING_PREFIX, Engine, watch_status
from backend.errors import BackendError, MediaError, SettingsError, explain_unwritable
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.label_config import NUMBERS, parse_label_config
from backend.labelstudio.videos import TaskVideos
from backend.settings import OPEN_HUB_IDS, Settings
from backend.video import Video

_MIN_FREE_BYTES = 2 * 2**30
"""With less, the next video may not fit."""
_POLL_SECONDS = 0.5
"""Interval at which the status of a loading model is checked."""
_DESCRIPTION = """
Check the settings, the model, the folders and Label Studio, and print a fix for each
failure. With --task or --url, also check a task or a video.
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = add_command(
        subparsers,
        "doctor",
        _run,
        summary="check the installation, Label Studio, and a task or a video",
        description=_DESCRIPTION,
        examples=(
            "sam3-backend doctor --config configs/default.yaml",
            "sam3-backend doctor --task 1",
        ),
    )
    subject = parser.add_mutually_exclusive_group()
    subject.add_argument("--task", type=int, metavar="N", help="also check this task in Label Studio")
    subject.add_argument("--url", metavar="U", help="also check the video at this URL")
    add_config_option(parser)
    add_model_options(parser)


def _run(options: argparse.Namespace) -> None:
    failed = run(partial(load_settings, options, "engine", "model_path", "device"), options.task, options.url)
    if failed:
        raise BackendError(f"{failed} checks failed")


def run(read_settings: Callable[[], Settings], task: int | None = None, url: str | None = None) -> int:
    """Run all checks, and print their results to standard output.

    Args:
        read_settings: reads the settings.
        task: number of a task to check, too.
        url: URL of a video to check, too.

    Returns:
        The number of failed checks.
    """
    report = Report()
    with report.check("settings") as say:
        settings = read_settings()
        say(_describe_settings(settings))
    if report.failed:
        return report.failed
    with report.check("model") as say:
        engine = engines.load_engine(settings)
        say(_wait_for_model(engine))
        if engine.name in ("sam3", *OPEN_HUB_IDS):
            with report.check("device") as say:
                say(*doctor_checks.check_device(settings, engine))
    with report.check("data_dir") as say:
        say(*_check_folder(settings.data_dir.expanduser()))
    with report.check("environment") as say:
        say(doctor_checks.check_opencv())
    with report.check("server") as say:
        say(*doctor_checks.check_server(settings))
    client = (
        LabelStudioClient(settings.label_studio_url, settings.label_studio_api_key, settings.use_proxy)
        if settings.label_studio_url
        else None
    )
    is_reached = _check_label_studio(report, client, task)
    if client and is_reached and task is not None:
        _check_task(report, settings, client, task)
    if url is not None:
        with report.check("video") as say, _open_video(url, client, TaskVideos(settings), say):
            pass
    return report.failed


def _describe_settings(settings: Settings) -> str:
    if settings.engine == "opencv":
        return "engine opencv (no model, no text prompts)"
    model, device = settings.shown()["model_path"], settings.device
    if not engines.knows_words(settings.engine):
        return f"engine {settings.engine}, model {model} (no text prompts), device {device}"
    demo = " (demo model for coloured shapes)" if settings.model_path == "shapes" else ""
    return f"engine {settings.engine}, model {model}{demo}, device {device}"


def _wait_for_model(engine: Engine) -> str:
    """Wait until the model is ready.

    Raises:
        SettingsError: it cannot be loaded.
    """
    for status in watch_status(engine, _POLL_SECONDS):
        if status.startswith(FAILED_PREFIX):
            raise SettingsError(status.removeprefix(FAILED_PREFIX))
        if status.startswith(WAITING_PREFIX):
            raise SettingsError(f"{status.partition('; ')[0]}: see whether this machine reaches it, or set HF_ENDPOINT")
        if status != "ready":
            print_message(f"{engine.name} is {status}")
    return f"{engine.name}-{engine.version} is ready"


def _check_folder(folder: Path) -> tuple[str, str]:
    """The text for a writable folder, and the mark."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(b"0")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise SettingsError(explain_unwritable(folder, error)) from error
    text = f"writable, {free / 2**30:.1f} GiB free"
    if free < _MIN_FREE_BYTES:
        return f"{text}: free some space, because downloaded videos are stored there", WARN
    return text, OK


def _check_label_studio(report: Report, client: LabelStudioClient | None, task: int | None) -> bool:
    """Whether Label Studio answers and accepts the key."""
    before = report.failed
    fix = "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"
    with report.check("Label Studio") as say:
        if client:
            say(f"version {client.release()} answers")
            client.check_key()
            say(f"accepts the key, {_describe_key(client)}")
            if task is None:
                with report.check("connection") as say:
                    say("not checked: add --task N to check whether Label Studio reaches this server", WARN)
        elif task is None:
            say(f"label_studio_url is not set: {fix}, or enable legacy tokens, which Label Studio then sends", WARN)
        else:
            raise SettingsError(f"label_studio_url is not set: {fix}")
    return report.failed == before


def _describe_key(client: LabelStudioClient) -> str:
    """The kind of key, and whether Label Studio accepts legacy tokens."""
    legacy = client.has_legacy_tokens() if client.auth.is_personal else None
    remark = {True: "; legacy tokens are enabled, too", False: "; legacy tokens are disabled, which is fine", None: ""}
    return f"a {'personal access' if client.auth.is_personal else 'legacy'} token{remark[legacy]}"


def _check_task(report: Report, settings: Settings, client: LabelStudioClient, number: int) -> None:
    before = report.failed
    with report.check("task") as say:
        task = client.task(number)
        project = client.project(task["project"])
        say(f"{number} in project {task['project']}")
        with report.check("label config") as say:
            config = parse_label_config(str(project.get("label_config") or ""))
            for line in config.describe():
                say(line, WARN if line in config.notes else OK)
    if report.failed > before:
        return
    with report.check("connection") as say:
        backends = client.backends(task["project"])
        if not backends:
            raise doctor_checks.no_model_error(task["project"])
        for model in backends:
            with report.check("connection") as say:
                say(*doctor_checks.check_connection(model, task["project"], settings, client.url))
    if config.panel:
        with report.check("live panel") as say:
            say(*doctor_checks.check_panel(task, config.panel, settings))
    tag, strip, videos = config.video, config.strip, TaskVideos(settings)
    with report.check("video") as say, _open_video(tag.url(task), client, videos, say) as video:
        with report.check("frame rate") as say:
            say(doctor_checks.check_frame_rate(task, tag, video))
        if strip.startswith("$"):
            with report.check("frames") as say:
                pictures = doctor_checks.check_pictures(task, strip[1:], tag, video)
                fix = doctor_checks.prepare_command(task)
                say(f"{len(pictures)} to click on, {_try_picture(pictures[0], client, videos, fix)}")


@contextmanager
def _open_video(
    url: str, client: LabelStudioClient | None, videos: TaskVideos, say: Callable[..., None]
) -> Iterator[Video]:
    """Find, fetch and open a video, a line for each step."""
    say(doctor_checks.describe_address(url, client.url if client else ""))
    say(f"fetched, {format_bytes(videos.fetch(url, client).stat().st_size)}")
    with videos.open(url, client) as video:
        say(*_describe_video(video))
        yield video


def _describe_video(video: Video) -> tuple[str, str]:
    """The text for a video, and the mark."""
    text = f"{video.width} x {video.height}, {len(video)} frames, {video.rate:g} frames/s"
    return (f"{text}; {video.damage}", WARN) if video.damage else (text, OK)


def _try_picture(picture: str, client: LabelStudioClient, videos: TaskVideos, fix: str) -> str:
    """Fetch a picture to click on, and describe the result.

    Raises:
        MediaError: it cannot be fetched.
    """
    if not (picture.startswith("/") or client.auth.serves(picture)):
        return "not stored in Label Studio, so not fetched"
    try:
        videos.try_picture(picture, client)
    except MediaError as error:
        raise MediaError(f"the first cannot be fetched: delete {NUMBERS} from the task's data, then {fix}") from error
    return "the first was fetched"
