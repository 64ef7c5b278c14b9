"""What `doctor` looks for beyond what runs: each told, or an error that mends it."""

from collections.abc import Mapping
from importlib.metadata import packages_distributions
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from backend.commands.console import OK, WARN
from backend.commands.prepare import is_worked_on
from backend.engines.base import FAILED_PREFIX, Engine
from backend.errors import BadRequest, SettingsError, StudioError
from backend.labelstudio.client import fetch_backend_health
from backend.labelstudio.label_config import NUMBERS, VideoTag, read_field
from backend.settings import Settings
from backend.video import Video
from backend.video.frame_clock import FrameClock, same_rate


def opencv() -> str:
    """Which OpenCV there is.

    Raises:
        SettingsError: several are installed over each other.
    """
    found = sorted(set(packages_distributions().get("cv2", ())))
    if len(found) > 1:
        raise SettingsError(
            f"{' and '.join(found)} are installed over each other: pip uninstall {' '.join(found)}, then pip install "
            "opencv-contrib-python-headless"
        )
    return f"one OpenCV, of {found[0] if found else 'an unknown package'}"


def device(settings: Settings, engine: Engine) -> tuple[str, str]:
    """Where SAM3 computes, and the mark."""
    from backend.engines.sam3.device import select_device  # torch

    name, memory = str(select_device(settings.device)), engine.memory()
    if name == "cpu" and settings.model_path != "shapes":
        return "cpu, which takes over a minute a frame: set device: cuda on a machine with a GPU", WARN
    if name.startswith("cuda") and memory:
        held, total = memory
        return f"{name}, {(total - held) / 2**30:.1f} of {total / 2**30:.1f} GiB are free", OK
    return name, OK


def server(settings: Settings) -> tuple[str, str]:
    """What answers where the settings have `serve` listen, and the mark.

    Raises:
        SettingsError: it is of no use to Label Studio.
    """
    listens_everywhere = not settings.host.strip("0.:")
    host = "localhost" if listens_everywhere else f"[{settings.host}]" if ":" in settings.host else settings.host
    told = fetch_backend_health(f"http://{host}:{settings.port}", settings.basic_auth_user, settings.basic_auth_pass)
    where = f"port {settings.port}"
    if told is None:
        return f"nothing answers on {where}: start it with sam3-backend serve, and these settings", WARN
    if told.get("model_class") != "Sam3Backend":
        raise SettingsError(
            f"what answers on {where} is no sam3-backend, or has another user and password: give both the same "
            "settings, or set another port"
        )
    model, status = told.get("model_version"), str(told.get("model"))
    if status.startswith(FAILED_PREFIX):
        raise SettingsError(f"{model} on {where}: {status.removeprefix(FAILED_PREFIX)}")
    return f"{model} on {where} is {status}", OK


def connection(one: Mapping[str, Any], project: int, settings: Settings, studio: str) -> tuple[str, str]:
    """What Label Studio says of a model that a project is connected to, and the mark.

    Args:
        one: the model, as Label Studio lists it.
        studio: Label Studio's address.

    Raises:
        StudioError: Label Studio does not reach it, or pages do not ask it.
    """
    parts = urlsplit(str(one.get("url")))
    url, edit = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(), f"{_models(project)} → Edit"
    if one.get("state") != "CO":
        raise StudioError(_unreached(one, url, edit, settings))
    if not one.get("is_interactive"):
        raise StudioError(f"pages do not ask {url}: {edit} → Interactive preannotations on")
    says = f"Label Studio reaches {url}, and pages ask it"
    host, near = parts.hostname or "", _is_near(urlsplit(studio).hostname or "")
    if not (near and (_is_near(host) or host == settings.host)):
        return f"{says}; whether that is this server cannot be known from here", OK
    if (parts.port or 80) != settings.port:
        return f"{says}; the settings have this server listen on port {settings.port}: is it that one?", WARN
    return says, OK


def _unreached(one: Mapping[str, Any], url: str, edit: str, settings: Settings) -> str:
    if one.get("state") == "ER":
        return f"Label Studio reaches {url}, which answers: {str(one.get('error_message'))[:200]}: look into its log"
    says = f"Label Studio says {one.get('readable_state')} of {url}"
    if fetch_backend_health(url) is None:
        return f"{says}, and nothing answers there here, either: start sam3-backend serve, or mend the address: {edit}"
    if settings.basic_auth_user and one.get("auth_method") != "BASIC_AUTH":
        return f"{says}, which wants a user and a password: {edit} → Basic Authentication"
    mend = "give an address that Label Studio's machine reaches"
    if _is_private(urlsplit(url).hostname or ""):
        mend = f"start Label Studio with ML_BLOCK_LOCAL_IP=false, since the address is a private one, or {mend}"
    return f"{says}, which answers here: {mend}"


def none_connected(project: int) -> StudioError:
    """Where a project has no model."""
    return StudioError(f"none is connected: {_models(project)} → Connect Model, with this server's address")


def _models(project: int) -> str:
    return f"Project {project} → Settings → Model"


def _is_near(host: str) -> bool:
    """Whether it is the machine that asks."""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def _is_private(host: str) -> bool:
    """Whether Label Studio counts it as private; of a name with dots nobody here knows."""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host


def prepare(task: Mapping[str, Any]) -> str:
    """The command that gives a task what it lacks."""
    return f"run sam3-backend project prepare --project {task['project']}"


def rate(task: Mapping[str, Any], tag: VideoTag, video: Video) -> str:
    """The frame rate that Label Studio counts by.

    Raises:
        BadRequest: it is missing, or it is not the file's own.
    """
    given, counted, mend = tag.framerate or "", tag.rate(task["data"]), prepare(task)
    name, wrong = given.removeprefix("$"), f"{counted:g}, but the file has {video.rate:g} frames/s"
    if given.startswith("$") and read_field(given, task["data"]) in (None, ""):
        raise BadRequest(f"{name} is missing: {mend}")
    if same_rate(counted, video.rate):
        return f"{counted:g}, as in the file"
    if not given.startswith("$"):
        raise BadRequest(f'the label config counts {wrong}: write framerate="$fps" into it, then {mend}')
    if is_worked_on(task):
        raise BadRequest(f"{name} is {wrong}, and boxes were made by that: import it as a new task, then {mend}")
    raise BadRequest(f"{name} is {wrong}: {mend}")


def pictures(task: Mapping[str, Any], name: str, tag: VideoTag, video: Video) -> list[str]:
    """The addresses in a task's strip, at least one.

    Args:
        name: the field that holds them.

    Raises:
        BadRequest: it is missing, or is not told which of the video's frames it shows.
    """
    held, numbers = task["data"].get(name), task["data"].get(NUMBERS)
    if not (isinstance(held, list) and isinstance(numbers, list) and held and numbers):
        raise BadRequest(f"{name} or {NUMBERS} is missing: {prepare(task)}")
    if len(held) != len(numbers):
        raise BadRequest(f"{name} holds {len(held)} pictures, {NUMBERS} {len(numbers)} numbers: {prepare(task)}")
    length = FrameClock(video.times, video.end, tag.rate(task["data"])).length
    if numbers != sorted({number for number in numbers if isinstance(number, int) and 1 <= number <= length}):
        raise BadRequest(f"{NUMBERS} are not of this video, which has 1 to {length}: {prepare(task)}")
    return [str(picture) for picture in held]
