"""Tasks to export, and strategies for them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from backend.formats.tasks import ChosenAnnotation, ExportControls, choose_annotation, read_video_tracks
from backend.formats.video_tracks import VideoTracks
from backend.labelstudio.keyframe import boxes_at, parse_keyframes
from tests.labelstudio.bodies import drawn, keyframe

SIZE = (640, 360)
FRAMES = 100
"""As `drawn` has it."""
CAR = drawn(keyframe(1, 10), keyframe(50, 60, enabled=False), keyframe(70, 20), id="a", meta={"track_id": 3})
OTHER = drawn(keyframe(20, 5, 60), keyframe(90, 70, 60, enabled=False), id="b", meta={"track_id": 1})


def task(*results: dict[str, Any], id: int = 7, **more: Any) -> dict[str, Any]:
    """A task with one submitted annotation."""
    data = {"video": "/data/upload/1/0a1b2c3d-clip.mp4", "fps": 25}
    return {"id": id, "data": data, "annotations": [{"id": 1, "result": list(results)}], **more}


def clip(
    *results: dict[str, Any], video_info: Any = None, size: Any = SIZE, masks: Any = None, **more: Any
) -> VideoTracks:
    """What writers get of a task; masks by track id, then by frame."""
    made = read_video_tracks(chosen(task(*results, **more)), ExportControls(), video_info, size)
    return replace(made, tracks=tuple(replace(trace, masks=(masks or {}).get(trace.id, {})) for trace in made.tracks))


def chosen(task: dict[str, Any]) -> ChosenAnnotation:
    found = choose_annotation(task, 1, predictions=True)
    assert found
    return found


def kept(folder: Path, *listed: dict[str, Any]) -> Path:
    """A file of tasks."""
    path = folder / "tasks.json"
    path.write_text(json.dumps(listed))
    return path


def shown(region: dict[str, Any]) -> dict[int, list[float]]:
    """What the page shows of a region without rotations: pixels `x0 y0 x1 y1` by frame from 0 on."""
    frames = np.arange(1, FRAMES + 1)
    percent = boxes_at(parse_keyframes(region["value"]["sequence"]), frames)
    pixels = percent * np.array([*SIZE] * 2) / 100
    pixels[:, 2:] += pixels[:, :2]
    return {int(frame) - 1: row for frame, row in zip(frames, pixels.tolist(), strict=True) if row[0] == row[0]}


def traced(clip: VideoTracks) -> list[dict[int, list[float]]]:
    """The boxes of each track by frame."""
    return [dict(zip(trace.frames.tolist(), trace.boxes.tolist(), strict=True)) for trace in clip.tracks]


@st.composite
def regions(draw: st.DrawFn) -> dict[str, Any]:
    """A region with gaps, one that ends or goes on to the last frame."""
    frames = draw(st.lists(st.integers(1, FRAMES), min_size=1, max_size=8, unique=True))
    sides, corners = st.floats(1, 40), st.floats(0, 60)
    keyframes = [
        keyframe(frame, draw(corners), draw(corners), draw(sides), draw(sides), enabled=draw(st.booleans()))
        for frame in sorted(frames)
    ]
    label = draw(st.sampled_from(["Car", "Person", 'a, "b" 100%', "größe"]))
    return drawn(*keyframes, id=draw(st.uuids()).hex, labels=(label,))


several = st.lists(regions(), min_size=1, max_size=4)
