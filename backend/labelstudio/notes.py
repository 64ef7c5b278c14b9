"""Tells the backend's lines from a person's, in text controls and in a region's Info panel (`meta.text`)."""

import re
from collections.abc import Iterable, Mapping

from backend.labelstudio.json_values import read_lines

MARK = "▶ "
"""Prefix of the lines that the backend writes into text controls."""
_TRACK = re.compile(r"track \d+(?= ·|$)")
_REFUSAL = "not tracked: "
_OUR_NOTE = re.compile(f"{_TRACK.pattern}|{_REFUSAL}")
"""How the backend's lines begin in the Info panel."""


def typed_lines(lines: object) -> str | None:
    """The prompt in a text control: its last line, unless the backend wrote it."""
    texts = read_lines(lines)
    return texts[-1] if texts and not texts[-1].startswith(MARK) else None


def person_lines(lines: object) -> list[str]:
    """The lines of a text control that a person wrote."""
    return [line for line in read_lines(lines) if not line.startswith(MARK)]


def read_notes(text: object) -> list[str]:
    """The lines of `meta.text` that a person wrote."""
    return [line for line in read_lines(text) if line and not _OUR_NOTE.match(line)]


def note_refusal(meta: Mapping[str, object], reason: str) -> list[str]:
    """`meta.text` with the reason why the region is not tracked."""
    return [*read_notes(meta.get("text")), f"{_REFUSAL}{reason}"]


def note_track(meta: Mapping[str, object], track_id: int, details: Iterable[str]) -> list[str]:
    """`meta.text` with a track's id and details."""
    return [*read_notes(meta.get("text")), " · ".join((f"track {track_id}", *details))]


def renumber_notes(text: object, track_id: int) -> list[str]:
    """The lines of `meta.text` with another track id."""
    lines = [_TRACK.sub(f"track {track_id}", line) for line in read_lines(text)]
    return lines if any(map(_TRACK.match, lines)) else [*lines, f"track {track_id}"]
