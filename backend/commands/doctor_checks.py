"""Checks of `doctor`: each returns what to print, or raises an error that says how to fix the problem."""

from collections.abc import Mapping
from importlib.metadata import packages_distributions
from typing import Any
from urllib.parse import urlsplit

from backend import engines
from backend.commands.console import OK, WARN
from backend.commands.prepare import is_worked_on
from backend.engines.base import FAILED_PREFIX, Engine
from backend.errors import BadRequest, SettingsError, StudioError
from backend.labelstudio.client import fetch_backend_health
from backend.labelstudio.connection_errors import LOOSEN_GUARD, is_loopback, is_private
from backend.labelstudio.label_config import NUMBERS, VideoTag
from backend.labelstudio.task_data import read_field
from backend.settings import OPEN_HUB_IDS, Settings
from backend.video import Video
from backend.video.frame_clock import FrameClock, same_rate


def check_opencv() -> str:
    """Find the package that OpenCV comes from.

    Raises:
        SettingsError: several packages install OpenCV in the same place.
    """
    packages = sorted(set(packages_distributions().get("cv2", ())))
    if len(packages) > 1:
        raise SettingsError(
            f"{' and '.join(packages)} overwrite each other: pip uninstall {' '.join(packages)}, then pip install "
            "opencv-contrib-python-headless"
        )
    return f"one OpenCV, from {packages[0] if packages else 'an unknown package'}"


def check_device(settings: Settings, engine: Engine) -> tuple[str, str]:
    """The device of the model, and the mark."""
    from backend.engines.sam.device import select_device  # torch

    names, memory = [str(select_device(device)) for device in engines.list_devices(settings)], engine.memory()
    name = ", ".join(dict.fromkeys(names))
    if name == "cpu" and engine.name in OPEN_HUB_IDS:
        advice = engines.advise_size(settings)
        return (f"{name}: {advice}", WARN) if advice else (name, OK)
    if name == "cpu" and settings.model_path != "shapes":
        return "cpu, which takes over a minute per frame: set device: cuda on a machine with a GPU", WARN
    if name.startswith("cuda") and memory:
        used, total = memory
        return f"{name}, {(total - used) / 2**30:.1f} of {total / 2**30:.1f} GiB free", OK
    return name, OK


def check_server(settings: Settings) -> tuple[str, str]:
    """The server at the address in the settings, and the mark.

    Raises:
        SettingsError: another program uses the port, or the server's model failed to load.
    """
    listens_everywhere = not settings.host.strip("0.:")
    host = "localhost" if listens_everywhere else f"[{settings.host}]" if ":" in settings.host else settings.host
    health = fetch_backend_health(f"http://{host}:{settings.port}", settings.basic_auth_user, settings.basic_auth_pass)
    port = f"port {settings.port}"
    if health is None:
        return f"no server on {port}: start sam3-backend serve with the same settings", WARN
    if health.get("model_class") != "Sam3Backend":
        raise SettingsError(
            f"{port} is used by another program, or by a sam3-backend with another user and password: use the same "
            "settings for both, or set another port"
        )
    model, status = health.get("model_version"), str(health.get("model"))
    if status.startswith(FAILED_PREFIX):
        raise SettingsError(f"{model} on {port}: {status.removeprefix(FAILED_PREFIX)}")
    return f"{model} on {port} is {status}", OK


def check_connection(model: Mapping[str, Any], project: int, settings: Settings, studio_url: str) -> tuple[str, str]:
    """What Label Studio reports about a connected model, and the mark.

    Args:
        model: an entry of Label Studio's list of models.

    Raises:
        StudioError: Label Studio does not reach the model, or interactive preannotations are off.
    """
    parts = urlsplit(str(model.get("url")))
    url, edit = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), f"{_model_page(project)} → Edit"
    if model.get("state") != "CO":
        raise StudioError(_unreachable_reason(model, url, edit, settings))
    if not model.get("is_interactive"):
        raise StudioError(f"prompts are not sent to {url}: {edit} → turn on Interactive preannotations")
    text = f"Label Studio reaches {url} and sends prompts to it"
    host, is_local = parts.hostname or "", is_loopback(urlsplit(studio_url).hostname or "")
    if not (is_local and (is_loopback(host) or host == settings.host)):
        return f"{text}; doctor cannot tell whether it is this server", OK
    if (parts.port or 80) != settings.port:
        return f"{text}; but this server's port is {settings.port}: is the address right?", WARN
    return text, OK


def _unreachable_reason(model: Mapping[str, Any], url: str, edit: str, settings: Settings) -> str:
    if model.get("state") == "ER":
        return f"Label Studio reaches {url}, which fails with: {str(model.get('error_message'))[:200]}: see its log"
    text = f"Label Studio reports {model.get('readable_state')} for {url}"
    if fetch_backend_health(url) is None:
        return f"{text}, and it does not answer here, either: start sam3-backend serve, or correct the address: {edit}"
    if settings.basic_auth_user and model.get("auth_method") != "BASIC_AUTH":
        return f"{text}, which needs a user and a password: {edit} → Basic Authentication"
    fix = "use an address that Label Studio's machine can reach"
    if is_private(urlsplit(url).hostname or ""):
        fix = f"its guard may refuse this private address: {LOOSEN_GUARD}; or {fix}"
    return f"{text}, which answers here: {fix}"


def no_model_error(project: int) -> StudioError:
    """The error for a project without a connected model."""
    return StudioError(f"no model is connected: {_model_page(project)} → Connect Model, with this server's address")


def _model_page(project: int) -> str:
    return f"Project {project} → Settings → Model"


def prepare_command(task: Mapping[str, Any]) -> str:
    """The fix for a task that lacks something."""
    return f"run sam3-backend project prepare --project {task['project']}"


def check_panel(task: Mapping[str, Any], field: str, settings: Settings) -> tuple[str, str]:
    """Whether the task shows the live panel of this server, and the mark.

    Args:
        field: the HyperText's value in the label config.
    """
    url = settings.browser_url
    if not url:
        return "not shown: set public_url to this server's address for browsers", WARN
    if f'src="{url}/panel/' not in str(read_field(field, task["data"])):
        return f"the task does not show that of {url}: {prepare_command(task)}", WARN
    return f"browsers load it from {url}", OK


def describe_address(url: str, studio_url: str) -> str:
    """Where a task's video comes from, without what a signed address keeps secret."""
    if not url.startswith((studio_url, "/") if studio_url else "/"):
        return f"from {urlsplit(url).hostname or 'an address without a host'}"
    if "/resolve/?fileuri=" in url:
        return "in cloud storage, through Label Studio"
    kinds = {"/data/local-files/": "a local file of Label Studio", "/data/upload/": "an upload to Label Studio"}
    return next((kind for start, kind in kinds.items() if start in url), "a file of Label Studio")


def check_frame_rate(task: Mapping[str, Any], tag: VideoTag, video: Video) -> str:
    """The frame rate that Label Studio uses.

    Raises:
        BadRequest: it is missing, or differs from the file's.
    """
    attribute, ls_rate, fix = tag.framerate or "", tag.rate(task["data"]), prepare_command(task)
    name, wrong = attribute.removeprefix("$"), f"{ls_rate:g}, but the file has {video.rate:g} frames/s"
    if attribute.startswith("$") and read_field(attribute, task["data"]) in (None, ""):
        raise BadRequest(f"{name} is missing: {fix}")
    if same_rate(ls_rate, video.rate):
        return f"{ls_rate:g}, as in the file"
    if not attribute.startswith("$"):
        raise BadRequest(f'the label config gives {wrong}: set framerate="$fps" in it, then {fix}')
    if is_worked_on(task):
        raise BadRequest(f"{name} is {wrong}, and existing boxes depend on it: import it as a new task, then {fix}")
    raise BadRequest(f"{name} is {wrong}: {fix}")


def check_pictures(task: Mapping[str, Any], name: str, tag: VideoTag, video: Video) -> list[str]:
    """The URLs of the frames to click on, at least one.

    Args:
        name: field of the task's data that has them.

    Raises:
        BadRequest: they are missing, or their frame numbers are missing or wrong.
    """
    fix = prepare_command(task)
    urls, numbers = read_field(f"${name}", task["data"]), task["data"].get(NUMBERS)
    if not (isinstance(urls, list) and isinstance(numbers, list) and urls and numbers):
        raise BadRequest(f"{name} or {NUMBERS} is missing: {fix}")
    if len(urls) != len(numbers):
        raise BadRequest(f"{name} has {len(urls)} pictures, {NUMBERS} has {len(numbers)} numbers: {fix}")
    length = FrameClock(video.times, video.end, tag.rate(task["data"])).length
    if numbers != sorted({number for number in numbers if isinstance(number, int) and 1 <= number <= length}):
        raise BadRequest(f"{NUMBERS} do not fit the video, which has frames 1 to {length}: {fix}")
    return [str(picture) for picture in urls]
