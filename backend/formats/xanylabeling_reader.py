"""Reads X-AnyLabeling's JSON files: a folder is a video, `group_id` is the track."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backend.errors import BadRequest, SettingsError
from backend.formats.imported_tracks import Detection, ImportedTrack, ImportedVideo, Skip, build_track
from backend.formats.picture_names import number_frames, split_picture_name
from backend.formats.text_files import read_text
from backend.formats.video_tracks import Size
from backend.labelstudio.json_values import read_mappings, read_number

_SHAPES = ("rectangle", "rotation", "polygon", "quadrilateral")
"""Shapes with an area; a box is drawn around each."""
_Document = Mapping[str, Any]


def read_xanylabeling(path: Path, skip: Skip = lambda reason: None) -> list[ImportedVideo]:
    """Read a folder of JSON files, or a folder of such folders.

    Args:
        skip: called for each shape, file or track that cannot be read.

    Raises:
        BadRequest: nothing can be read.
        SettingsError: there is no such folder.
    """
    files = sorted(path.rglob("*.json")) if path.is_dir() else []
    if not files:
        raise SettingsError(f"{path.name} holds no JSON files: give the folder that X-AnyLabeling opened")
    folders = defaultdict[Path, list[tuple[str, _Document]]](list)
    for file in files:
        document, name = _read_document(file), split_picture_name(file.stem)
        if document and name:
            folders[file.parent].append((name[1], document))
        elif document:
            skip(f"{file.name} is skipped: its name does not end with the number of a frame")
    if not folders:
        raise BadRequest(f"{path.name} holds no files of X-AnyLabeling: they have shapes and imagePath")
    return [_read_video(folder.absolute().name, documents, skip) for folder, documents in folders.items()]


def _read_document(file: Path) -> _Document | None:
    try:
        content = json.loads(read_text(file))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, Mapping) and isinstance(content.get("shapes"), list) else None


def _read_video(name: str, documents: list[tuple[str, _Document]], skip: Skip) -> ImportedVideo:
    frames, detections = number_frames([digits for digits, _ in documents]), list[Detection]()
    # Parts of one object have one track; the box is drawn around all of them.
    tracks, bad = defaultdict[int, dict[int, Detection]](dict), 0
    for frame, (_, document) in zip(frames, documents, strict=True):
        for shape in read_mappings(document["shapes"]):
            detection, number = _detection(frame, shape), shape.get("group_id")
            if detection is None:
                bad += 1
            elif isinstance(number, int) and not isinstance(number, bool):
                tracks[number][frame] = _join(tracks[number].get(frame), detection)
            else:
                detections.append(detection)
    if bad:
        skip(f"{name}: {bad} shapes are skipped: only shapes with an area are read")
    made = [build_track(number, list(tracks[number].values()), name, skip) for number in sorted(tracks)]
    kept: tuple[ImportedTrack, ...] = tuple(track for track in made if track)
    return ImportedVideo(name, max(frames) + 1, None, _size(documents[0][1]), kept, tuple(detections))


def _detection(frame: int, shape: Mapping[str, Any]) -> Detection | None:
    points, score = shape.get("points"), read_number(shape.get("score"), 1.001)
    if shape.get("shape_type", "polygon") not in _SHAPES or not isinstance(points, list):
        return None
    numbers = [read_number(number, 1e9) for point in points if isinstance(point, list) for number in point[:2]]
    if len(numbers) < 4 or len(numbers) % 2 or None in numbers:
        return None
    corners = np.array(numbers, float).reshape(-1, 2)
    (x0, y0), (x1, y1) = corners.min(0).tolist(), corners.max(0).tolist()
    return Detection(frame, str(shape.get("label") or ""), (x0, y0, x1, y1), score)


def _join(first: Detection | None, second: Detection) -> Detection:
    if first is None:
        return second
    (a, b, c, d), (x0, y0, x1, y1) = first.box, second.box
    return Detection(first.frame, first.label, (min(a, x0), min(b, y0), max(c, x1), max(d, y1)), first.score)


def _size(document: _Document) -> Size | None:
    width, height = document.get("imageWidth"), document.get("imageHeight")
    return (width, height) if isinstance(width, int) and isinstance(height, int) and min(width, height) > 0 else None
