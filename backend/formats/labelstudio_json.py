"""Label Studio's own JSON: the annotations that count, without commands, status texts and command labels."""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from backend.errors import BadRequest
from backend.formats.tasks import ChosenAnnotation, ExportControls
from backend.formats.video_tracks import format_rows
from backend.labelstudio.json_values import read_lines, read_mappings
from backend.labelstudio.keyframe import boxes_at
from backend.labelstudio.notes import person_lines, read_notes
from backend.labelstudio.region import TYPE, Region, is_taken_away, parse_region


def write_labelstudio(tasks: Iterable[str], out: Path) -> None:
    """A list of tasks to import, each as `format_task` formats it."""
    with out.open("w", encoding="utf-8") as file:
        file.write("[")
        mark = "\n"
        for task in tasks:
            file.write(mark + task)
            mark = ",\n"
        file.write("\n]\n")


def format_task(chosen: ChosenAnnotation, controls: ExportControls, dense: bool) -> str:
    """A task with the one annotation (or prediction) that counts, JSON.

    Keyframes are as they were, to the digit; `dense` adds one of ours on every frame between. The task keeps its
    number and data.

    Raises:
        BackendError: a region cannot be read.
    """
    cleaned = [clean for result in chosen.results if (clean := _clean(result, controls))]
    # JSON is put together of texts: as dictionaries, half a million keyframes take three times as long.
    texts = [
        _filled(result, chosen, controls) if dense and result.get("type") == TYPE else _json(result)
        for result in cleaned
    ]
    entry = _with({key: value for key, value in chosen.entry.items() if key != "result"}, "result", _list(texts))
    kept = {key: value for key, value in chosen.task.items() if key in ("id", "data", "meta")}
    return _with(kept, chosen.kind, _list([entry]))


def _clean(result: Mapping[str, Any], controls: ExportControls) -> dict[str, Any] | None:
    """A result as it is written; None: nothing of it is an annotation."""
    value, kind = result.get("value"), result.get("type")
    if not isinstance(value, Mapping) or (kind == "textarea" and result.get("from_name") in controls.texts):
        return None
    if kind == TYPE and is_taken_away(result.get("meta")):
        return None
    if kind == "textarea":
        lines = read_lines(value.get("text"))
        notes = person_lines(lines)
        return {**result, "value": {**value, "text": notes}} if notes or not lines else None
    labelled = _labelled(value, controls)
    if kind == "labels" and value.get("labels") and "labels" not in labelled:
        return None
    meta = result.get("meta")
    untold = {"meta": _untold(meta)} if kind == TYPE and isinstance(meta, Mapping) else {}
    return {**result, **untold, "value": labelled}


def _labelled(value: Mapping[str, Any], controls: ExportControls) -> dict[str, Any]:
    """A result's value without command labels, and without any where none is left."""
    classes = [label for label in value.get("labels") or () if label not in controls.commands]
    others = {key: one for key, one in value.items() if key != "labels"}
    return others | ({"labels": classes} if classes else {})


def _untold(meta: Mapping[str, Any]) -> dict[str, Any]:
    """A region's meta without our lines to people."""
    if "text" not in meta:
        return dict(meta)
    others, notes = {key: value for key, value in meta.items() if key != "text"}, read_notes(meta["text"])
    return others | ({"text": notes} if notes else {})


def _filled(result: Mapping[str, Any], chosen: ChosenAnnotation, controls: ExportControls) -> str:
    """A region with a keyframe on every frame that shows its box, JSON: its own to the digit, between them ours.

    A region that cannot be read is as it was.
    """
    try:
        region = parse_region(result)
    except BadRequest:
        return _json(result)
    frames = {keyframe.frame for keyframe in region.keyframes}
    sequence = [item for item in read_mappings(result["value"]["sequence"]) if item.get("frame") in frames]
    given = {int(keyframe["frame"]): _json(keyframe) for keyframe in sequence}
    between = _between(region, given, controls.rate([region], chosen.data))
    texts = [text for _, text in sorted((given | between).items())]
    value = {key: one for key, one in result["value"].items() if key != "sequence"}
    others = {key: one for key, one in result.items() if key != "value"}
    return _with(others, "value", _with(value, "sequence", _list(texts)))


def _between(region: Region, given: Mapping[int, str], framerate: float) -> dict[int, str]:
    """Keyframes of ours on the other frames that show the box, by frame, as `Item.written` has them."""
    first, last = region.keyframes[0], region.keyframes[-1]
    frames = np.arange(first.frame, max(region.frames_count or 0, last.frame) + 1)
    boxes = boxes_at(region.keyframes, frames)
    turns = np.interp(frames, [item.frame for item in region.keyframes], [item.rotation for item in region.keyframes])
    wanted = ~np.isnan(boxes[:, 0]) & ~np.isin(frames, [*given])
    frames, table = frames[wanted], np.column_stack([boxes, np.round(turns, 4)])[wanted] + 0.0
    lines = format_rows("%d|1|%.4f|%.4f|%.4f|%.4f|%.4f\n", frames, table).splitlines()
    return dict(_keyframe(line, framerate) for line in lines)


def _keyframe(line: str, framerate: float) -> tuple[int, str]:
    """A keyframe of ours and its frame, JSON, from what its fingerprint is taken of."""
    frame, _, x, y, width, height, rotation = line.split("|")
    fp = sha256(line.encode()).hexdigest()[:8]
    return int(frame), (
        f'{{"frame": {frame}, "enabled": true, "x": {x}, "y": {y}, "width": {width}, "height": {height}, '
        f'"rotation": {rotation}, "time": {int(frame) / framerate}, "fp": "{fp}"}}'
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(texts)}]"


def _with(value: Mapping[str, Any], key: str, text: str) -> str:
    """An object of JSON with one more key, whose value is JSON already."""
    return f'{_json(value)[:-1]}{", " if value else ""}"{key}": {text}}}'
