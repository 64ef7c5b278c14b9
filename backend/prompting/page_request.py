"""Reads what the prompting page sends: prompts in percent of the picture, on LS frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from backend.errors import BadRequest
from backend.jobs.spec import ExemplarBox, FramePrompts
from backend.labelstudio.json_values import read_frame, read_mappings, read_number
from backend.tracks.frame_range import ALL_FRAMES, FrameRange
from backend.tracks.prompts import Direction

_MAX_PROMPTS = 1000
"""Frames with prompts, and points on one frame."""
_MAX_ID = 64
_MAX_TEXT = 1000


@dataclass(frozen=True, slots=True)
class TrackRequest:
    """A track that the page asks for.

    Attributes:
        id: of a track that was begun on this page; empty: it is new.
        label: its class; empty: it has none.
        first, last: the LS frames to go through; None: to the end of the video.
    """

    id: str
    label: str
    prompts: tuple[FramePrompts, ...]
    direction: Direction
    first: int | None
    last: int | None


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """Words that the page looks for, or boxes whose like it looks for; then words may narrow that.

    Attributes:
        label: the class of what examples find; empty: it has none.
    """

    text: str
    label: str = ""
    examples: tuple[ExemplarBox, ...] = ()
    within: FrameRange = ALL_FRAMES


def parse_search(body: Mapping[str, Any], labels: Sequence[str]) -> SearchRequest:
    """Read the request for a search; the arguments are those of `parse_track`.

    Raises:
        BadRequest: something in it is not valid.
    """
    text = body.get("text", "")
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        raise BadRequest(f"text must be the words to look for, at most {_MAX_TEXT} characters")
    entries = [parse_frame_prompts(entry) for entry in read_mappings(body.get("examples"))]
    examples = tuple(ExemplarBox(one.frame, one.box) for one in entries if one.box)
    if not text.strip() and not examples:
        raise BadRequest("there is nothing to look for: write what to find, or draw a box around an example")
    first, last = parse_range(body)
    return SearchRequest(text.strip(), _label(body, labels), examples, FrameRange(first or 1, last or ALL_FRAMES.last))


def parse_range(body: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Read the LS frames to go through, `first` and `last`; None: from the start, to the end of the video.

    Raises:
        BadRequest: they are none, or in the wrong order.
    """
    first, last = (None if body.get(name) is None else _frame(body[name]) for name in ("first", "last"))
    if first is not None and last is not None and first > last:
        raise BadRequest("the first frame lies after the last: exchange them")
    return first, last


def parse_track(body: Mapping[str, Any], labels: Sequence[str]) -> TrackRequest:
    """Read the request for a track.

    Args:
        labels: the classes of the project.

    Raises:
        BadRequest: something in it is not valid.
    """
    label, direction = _label(body, labels), body.get("direction", "forward")
    if direction not in get_args(Direction):
        raise BadRequest(f"direction must be one of {', '.join(get_args(Direction))}")
    first, last = parse_range(body)
    entries = read_mappings(body.get("prompts"))
    if len(entries) > _MAX_PROMPTS:
        raise BadRequest(f"there are prompts on over {_MAX_PROMPTS} frames: prompt the object on fewer")
    prompts = tuple(parse_frame_prompts(entry) for entry in entries)
    if len({one.frame for one in prompts}) < len(prompts):
        raise BadRequest("two entries of prompts have the same frame: put them into one")
    return TrackRequest(parse_id(body.get("id", "")), label, prompts, direction, first, last)


def parse_frame_prompts(entry: Mapping[str, Any]) -> FramePrompts:
    """Read the prompts of an object on one frame: `frame`, `points` [[x, y, is on it]] and `box` [x, y, width, height].

    Raises:
        BadRequest: something in them is not valid, or there are none.
    """
    frame, points = _frame(entry.get("frame")), entry.get("points") or []
    if not isinstance(points, list) or len(points) > _MAX_PROMPTS:
        raise BadRequest(f"points must be a list of at most {_MAX_PROMPTS}")
    box = None if entry.get("box") is None else _box(entry["box"])
    if box is None and not points:
        raise BadRequest(f"there is no prompt on frame {frame}: click on the object, or draw a box around it")
    return FramePrompts(frame, box, tuple(_point(point) for point in points))


def parse_id(value: object) -> str:
    """Read the id of a track.

    Raises:
        BadRequest: it is none.
    """
    if not isinstance(value, str) or len(value) > _MAX_ID:
        raise BadRequest("id must be the text that the answer to an earlier request for this track has")
    return value


def parse_frames(value: object) -> list[int]:
    """Read a list of LS frames.

    Raises:
        BadRequest: it is none.
    """
    if not isinstance(value, list) or len(value) > _MAX_PROMPTS:
        raise BadRequest(f"frames must be a list of at most {_MAX_PROMPTS} frames")
    return [_frame(frame) for frame in value]


def _label(body: Mapping[str, Any], labels: Sequence[str]) -> str:
    label = body.get("label") or ""
    if not isinstance(label, str) or (label and label not in labels):
        raise BadRequest(f"the class is not in the label config, which has: {', '.join(labels) or 'none'}")
    return label


def _frame(value: object) -> int:
    frame = read_frame(value)
    if frame is None:
        raise BadRequest("a frame must be a number from 1 on, as Label Studio shows it")
    return frame


def _point(value: object) -> tuple[float, float, bool]:
    match value:
        case [x, y, bool(is_on)]:
            numbers = read_number(x, 1e6), read_number(y, 1e6)
            if numbers[0] is not None and numbers[1] is not None:
                return numbers[0], numbers[1], is_on
    raise BadRequest("a point must be [x, y, true or false], in percent of the picture")


def _box(value: object) -> tuple[float, float, float, float, float]:
    match value:
        case [x, y, width, height]:
            numbers = [read_number(one, 1e6) for one in (x, y, width, height)]
            if None not in numbers:
                left, top, wide, high = (number or 0.0 for number in numbers)
                return left, top, wide, high, 0.0
    raise BadRequest("a box must be [x, y, width, height], in percent of the picture")
