"""What `doctor` looks for beyond what runs: each told, or an error that mends it."""

from collections.abc import Mapping, Sequence
from importlib.metadata import packages_distributions
from typing import Any

from backend.commands.prepare import is_worked_on
from backend.errors import BadRequest, SettingsError, StudioError
from backend.labelstudio.client import REACHED
from backend.labelstudio.clock import Clock, same_rate
from backend.labelstudio.config import NUMBERS, VideoTag, field
from backend.video import Video


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


def connection(backends: Sequence[Mapping[str, Any]], project: int) -> str:
    """The model that a project's pages ask, as Label Studio sees it.

    Raises:
        StudioError: there is none, Label Studio does not reach it, or pages do not ask it.
    """
    way = f"Project {project} → Settings → Model"
    if not backends:
        raise StudioError(f"none is connected: {way} → Connect Model, with this server's address")
    for one in backends:
        url, state = one.get("url"), one.get("readable_state")
        if one.get("state") != "CO":
            raise StudioError(f"Label Studio says {state} of {url}: {REACHED}")
        if not one.get("is_interactive"):
            raise StudioError(f"pages do not ask {url}: {way} → Edit → Interactive preannotations on")
    return f"Label Studio reaches {', '.join(str(one.get('url')) for one in backends)}, and pages ask it"


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
    if given.startswith("$") and field(given, task["data"]) in (None, ""):
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
    length = Clock(video.times, video.end, tag.rate(task["data"])).length
    if numbers != sorted({number for number in numbers if isinstance(number, int) and 1 <= number <= length}):
        raise BadRequest(f"{NUMBERS} are not of this video, which has 1 to {length}: {prepare(task)}")
    return [str(picture) for picture in held]
