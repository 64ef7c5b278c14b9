"""What `doctor` looks for in a task: its frame rate and its strip of frames, each told, or an error that mends it."""

from collections.abc import Mapping
from typing import Any

from backend.commands.prepare import is_worked_on
from backend.errors import BadRequest
from backend.labelstudio.clock import Clock, same_rate
from backend.labelstudio.config import NUMBERS, VideoTag, field
from backend.video import Video


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
