"""Reads and writes the fields of a task's data that the attributes of a label config stand for."""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

CLOUD_SCHEMES = ("s3", "gs", "azure-blob")
"""Schemes of addresses in cloud storage. Label Studio sends them to backends as they are (seen in 1.23.2)."""
_FIELD = re.compile(r"\$[\w\[\].{}]+")
_KEY = re.compile(r"[^.\[\]]+")


def read_field(value: str, data: Mapping[str, Any]) -> Any:
    """The value of a tag's attribute for a task, as Label Studio reads it (seen in 1.23.2).

    `$name`, `$a.b` and `$list[0]` stand for fields of the task's data; a text around them stays as it is.
    """
    if _FIELD.fullmatch(value):
        return _look_up(data, value[1:])
    return _FIELD.sub(lambda field: str(found) if (found := _look_up(data, field[0][1:])) is not None else "", value)


def write_field(value: str, data: Mapping[str, Any], new: object) -> dict[str, Any]:
    """A task's data with a new value for the field that an attribute stands for, as in `read_field`."""
    return dict(_replace(data, _KEY.findall(value[1:]), new))


def _replace(data: Any, keys: Sequence[str], new: object) -> Any:
    if not keys:
        return new
    if isinstance(data, list) and keys[0].isdecimal() and int(keys[0]) < len(data):
        place = int(keys[0])
        return [*data[:place], _replace(data[place], keys[1:], new), *data[place + 1 :]]
    known = data if isinstance(data, Mapping) else {}
    return {**known, keys[0]: _replace(known.get(keys[0]), keys[1:], new)}


def _look_up(data: Any, path: str) -> Any:
    if isinstance(data, Mapping) and path in data:
        return data[path]
    for key in _KEY.findall(path):
        if isinstance(data, Mapping):
            data = data.get(key)
        elif isinstance(data, list) and key.isdecimal():
            data = data[int(key)] if int(key) < len(data) else None
        else:
            return None
    return data


def read_framerate(value: object) -> float | None:
    """Frames per second, as Label Studio's page reads a framerate (seen in 1.23.2); None: it uses its default.

    Below 1, it is the seconds of one frame.
    """
    try:
        rate = float(str(value).strip())
    except ValueError:
        return None
    if not rate or math.isnan(rate):
        return None
    return 1 / rate if rate < 1 else rate


def file_address(address: str, task: object) -> str:
    """Where a file of a task can be fetched: Label Studio serves files of the cloud storage that it is connected to.

    Args:
        address: as in the task's data.
        task: the task's id.
    """
    if address.partition("://")[0] not in CLOUD_SCHEMES or not str(task).isdecimal():
        return address
    return f"/tasks/{task}/resolve/?fileuri={base64.urlsafe_b64encode(address.encode(errors='replace')).decode()}"
