"""Clicks on the frame strip: Label Studio's `keypointlabels`, each with its LS frame and its sign."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.errors import BadRequest
from backend.labelstudio.json_values import is_number, read_frame
from backend.labelstudio.label_config import NUMBERS, PointsControl
from backend.labelstudio.task_data import read_field

TYPE = "keypointlabels"


@dataclass(frozen=True, slots=True)
class Click:
    """A point of a request.

    Attributes:
        id: Label Studio's id of the point.
        frame: LS frame.
        x, y: percent of the picture.
        positive: on the object (true) or not (false); None: unknown, as after a reload of the page (seen in 1.23.2).
    """

    id: str
    frame: int
    x: float
    y: float
    positive: bool | None


@dataclass(frozen=True, slots=True)
class ClickPrompt:
    """All clicks of one object: those with the same control and label."""

    control: str
    label: str
    clicks: tuple[Click, ...]


def parse_click_prompts(
    results: Sequence[Mapping[str, Any]], controls: Mapping[str, PointsControl], data: Mapping[str, Any]
) -> list[ClickPrompt]:
    """Read a request's points, grouped by object.

    Args:
        data: the task's data.

    Raises:
        BadRequest: a point has an unknown control, no position or no known frame.
    """
    objects: dict[tuple[str, str], list[Click]] = {}
    for result in results:
        if result.get("type") != TYPE:
            continue
        control = str(result.get("from_name"))
        if control not in controls:
            raise BadRequest(f'the points belong to the control "{control}", which is on no strip of frames')
        value = result.get("value")
        value = value if isinstance(value, Mapping) else {}
        labels = value.get(TYPE) or value.get("labels")
        label = str(labels[0]) if isinstance(labels, list) and labels else ""
        objects.setdefault((control, label), []).append(_click(result, value, controls[control], data))
    return [ClickPrompt(control, label, tuple(clicks)) for (control, label), clicks in objects.items()]


def _click(
    result: Mapping[str, Any], value: Mapping[str, Any], control: PointsControl, data: Mapping[str, Any]
) -> Click:
    x, y = value.get("x"), value.get("y")
    if not is_number(x) or not is_number(y):
        raise BadRequest("a point has no position: delete it and click again")
    if not (0 <= x <= 100 and 0 <= y <= 100):
        raise BadRequest("a point lies outside the picture: delete it and click on the object")
    positive = result.get("is_positive")
    return Click(
        id=str(result.get("id")),
        frame=_frame(result.get("item_index", 0), control, data),
        x=float(x),
        y=float(y),
        positive=positive if isinstance(positive, bool) else None,
    )


def _frame(index: object, control: PointsControl, data: Mapping[str, Any]) -> int:
    pictures, numbers = read_field(control.pictures, data), data.get(NUMBERS)
    if not isinstance(numbers, list) or (isinstance(pictures, list) and len(pictures) != len(numbers)):
        raise BadRequest(
            f"the task does not say which frames its pictures are ({NUMBERS}): run sam3-backend project prepare"
        )
    known = isinstance(index, int) and 0 <= index < len(numbers)
    frame = read_frame(numbers[index]) if known and isinstance(index, int) else None
    if frame is None:
        raise BadRequest(f"the task names no frame for picture {index}: run sam3-backend project prepare")
    return frame
