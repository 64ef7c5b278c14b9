"""Annotations to manage."""

from typing import Any

import numpy as np

from backend.formats.tasks import ExportControls
from backend.labelstudio.keyframe import boxes_at
from backend.labelstudio.label_config import parse_label_config
from backend.track_editor.track_table import TrackTable
from tests.formats.made import FRAMES, chosen, task
from tests.labelstudio.bodies import CONFIG, drawn, keyframe


def roster(*results: dict[str, Any], config: str | None = None) -> TrackTable:
    """Of one annotation of 100 frames, with the labels of a config or without one."""
    return TrackTable.from_annotation(
        chosen(task(*results)), ExportControls.from_config(parse_label_config(config)) if config else ExportControls()
    )


def crossing() -> list[dict[str, Any]]:
    """Car 1 on frames 1 to 50, car 3 on 60 to 90, person 2 on all, who was tracked, and a note on person 2."""
    car = drawn(keyframe(1), keyframe(50, x=30, enabled=False), id="a", score=0.9, meta={"track_id": 1})
    later = drawn(keyframe(60, x=33), keyframe(90, x=40, enabled=False), id="b", score=0.6, meta={"track_id": 3})
    told = {
        "track_id": 2,
        "text": ["mind the hat", "track 2 · sam3 · 0.80"],
        "seal": "x",
        "human": [1, 70],
        "ends": [70],
        "points": {},
        **{"score": 0.8, "iou": 0.96, "interpolated": 0.9},
    }
    person = drawn(keyframe(1, y=60), keyframe(70, y=40, human=True), id="c", labels=("Person",), meta=told)
    note = {"id": "c", "type": "choices", "from_name": "who", "to_name": "video", "value": {"choices": ["child"]}}
    return [car, later, person, note]


def boxes(roster: TrackTable) -> dict[int, list[list[float]]]:
    """What each frame shows, of all tracks, in an order of its own."""
    frames, found = np.arange(1, FRAMES + 1), dict[int, list[list[float]]]()
    for entry in roster.rows:
        for frame, row in zip(frames.tolist(), boxes_at(entry.items, frames).tolist(), strict=True):
            if row[0] == row[0]:
                found.setdefault(frame, []).append([round(value, 3) for value in row])
    return {frame: sorted(rows) for frame, rows in found.items()}


__all__ = ["CONFIG", "boxes", "crossing", "drawn", "keyframe", "roster"]
