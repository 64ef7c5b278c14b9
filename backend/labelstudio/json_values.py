"""Reads values of Label Studio's JSON that may have any type."""

from collections.abc import Mapping
from typing import Any, TypeGuard

from backend.tracks.frame_range import MAX_FRAMES


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a number of JSON, including NaN and infinity, which Python's parser accepts."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_number(value: object, limit: float = 1e12) -> float | None:
    """A number whose absolute value is below `limit`; None for anything else."""
    return float(value) if is_number(value) and -limit < value < limit else None


def read_frame(value: object) -> int | None:
    """An LS frame; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_FRAMES:
        return None
    return value


def read_mappings(value: object) -> list[Mapping[str, Any]]:
    """The objects in a list; anything else is skipped."""
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def read_lines(text: object) -> list[str]:
    """The lines of a text that Label Studio sends as a list or as one string."""
    lines = text if isinstance(text, list) else [text]
    return [line for line in lines if isinstance(line, str)]
