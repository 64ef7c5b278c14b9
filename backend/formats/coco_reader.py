"""Reads COCO files: COCO-VID and TAO, ByteTrack's form, CVAT's COCO with one video in it, and datasets of pictures.

Boxes without a track id are detections.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from backend.errors import BadRequest, SettingsError
from backend.formats.imported_tracks import Detection, ImportedTrack, ImportedVideo, Skip, check_boxes
from backend.formats.picture_names import split_picture_name
from backend.formats.text_files import read_text
from backend.labelstudio.json_values import read_mappings, read_number

_Fields = Mapping[str, Any]
_ONLY = "the only video"
"""Stands for the video's id in files without videos."""


def read_coco_vid(path: Path, skip: Skip = lambda reason: None) -> list[ImportedVideo]:
    """Read the videos in a COCO file.

    Args:
        skip: called for each box, track or video that cannot be read.

    Raises:
        BadRequest: it is no such file.
        SettingsError: it cannot be opened.
    """
    try:
        content = json.loads(read_text(path))
    except OSError as error:
        raise SettingsError(f"{path.name} cannot be read: give a COCO-VID file") from error
    except ValueError:
        content = None
    if not isinstance(content, Mapping) or not isinstance(content.get("images"), list):
        raise _no_coco(path)
    images, rows = read_mappings(content["images"]), read_mappings(content.get("annotations"))
    videos = read_mappings(content.get("videos"))
    if not videos:
        videos, images = _videos_of_pictures(images, path.stem)
    by_video: defaultdict[Any, list[_Fields]] = defaultdict(list)
    for image in images:
        by_video[_key(image.get("video_id", videos[0].get("id") if len(videos) == 1 else None))].append(image)
    owners = {_key(image.get("id")): video for video, group in by_video.items() for image in group}
    groups: defaultdict[Any, list[_Fields]] = defaultdict(list)
    for row in rows:
        groups[owners.get(_key(row.get("image_id")))].append(row)
    known = {_key(video.get("id")) for video in videos}
    if lost := sum(len(group) for video, group in groups.items() if video not in known):
        skip(f"{lost} boxes are skipped: their image or its video is not in {path.name}")
        if lost == len(rows):
            raise _no_coco(path)
    names = {_key(one.get("id")): str(one.get("name", "")) for one in read_mappings(content.get("categories"))}
    return [
        _read_video(video, by_video[key], groups[key], names, skip)
        for video in videos
        if (key := _key(video.get("id")))
    ]


def _videos_of_pictures(images: list[_Fields], name: str) -> tuple[list[_Fields], list[_Fields]]:
    """The videos of a file without any: what its pictures are named after, else it has one of this name.

    Returns:
        Videos, and the pictures with their video's id.
    """
    parts = [split_picture_name(PurePosixPath(str(image.get("file_name", ""))).stem) for image in images]
    named = {part[0] for part in parts if part}
    # Our exports say the frame of a picture, so that their names are sure to be of this form.
    if not all(parts) or (len(named) < 2 and not all("frame" in image for image in images)) or not images:
        return [{"id": _ONLY, "name": name}], images
    videos: list[_Fields] = [{"id": video, "name": video or name} for video in sorted(named)]
    return videos, [{**image, "video_id": part[0]} for image, part in zip(images, parts, strict=True) if part]


def _no_coco(path: Path) -> BadRequest:
    return BadRequest(
        f"{path.name} is no COCO-VID: it needs images with video_id and frame_id or a numbered file_name, and "
        "annotations with image_id and bbox"
    )


def _key(value: object) -> str:
    """An id, which some tools write as a number and some as a text."""
    return str(value)


def _read_video(
    video: _Fields, images: Sequence[_Fields], rows: Sequence[_Fields], names: Mapping[str, str], skip: Skip
) -> ImportedVideo:
    name = str(video.get("name") or video.get("file_name") or video.get("id"))
    frames = _frames(video, images)
    tracks: defaultdict[Any, list[_Fields]] = defaultdict(list)
    for row in rows:
        tracks[_track_key(row)].append(row)
    detections = _read_detections(tracks.pop(None, []), frames, names)
    found = [
        _read_track(number, group, frames, names, f"track {key} of {name}", skip)
        for (key, group), number in zip(tracks.items(), _numbers(list(tracks)), strict=True)
    ]
    length = max(_whole(video.get("length")), max(frames.values(), default=-1) + 1)
    sides = [(_whole(one.get("width")), _whole(one.get("height"))) for one in (video, *images[:1])]
    size = next((pair for pair in sides if all(pair)), None)
    ordered = sorted((track for track in found if track), key=lambda track: track.id)
    return ImportedVideo(name, length, read_number(video.get("fps")) or None, size, tuple(ordered), detections)


def _read_detections(
    rows: Sequence[_Fields], frames: Mapping[str, int], names: Mapping[str, str]
) -> tuple[Detection, ...]:
    """The boxes without a track id; those that are empty are left out."""
    found = []
    for row in rows:
        x, y, width, height = _box(row.get("bbox"))
        label, score = names.get(_key(row.get("category_id")), ""), read_number(row.get("score"))
        if width > 0 and height > 0:
            place = frames[_key(row.get("image_id"))]
            found.append(Detection(place, label, (x, y, x + width, y + height), score))
    return tuple(found)


def _frames(video: _Fields, images: Sequence[_Fields]) -> dict[str, int]:
    """The frame of each image, from 0 on: as it says itself, else as its file name does, else in their order."""
    told = [
        next((image[key] for key in ("frame_id", "frame_index", "frame") if key in image), None) for image in images
    ]
    named = [_last_number(str(image.get("file_name", ""))) for image in images]
    counts: list[Any] = list(range(len(images)))
    numbers = next(some for some in (told, named, counts) if all(isinstance(number, int) for number in some))
    # ByteTrack's files count from 1. Only their first number, or a last one after the end, shows it.
    length = _whole(video.get("length")) or len(images)
    first = 1 if min(numbers, default=0) == 1 and max(numbers) >= length else 0
    return {_key(image.get("id")): number - first for image, number in zip(images, numbers, strict=True)}


def _last_number(name: str) -> int | None:
    numbers = re.findall(r"\d+", name.rpartition(".")[0] or name)
    return int(numbers[-1][:12]) if numbers else None


def _track_key(row: _Fields) -> Any:
    attributes = row.get("attributes")
    for holder in (row, attributes if isinstance(attributes, Mapping) else {}):
        for key in ("instance_id", "track_id"):
            if isinstance(holder.get(key), int | str):
                return holder[key]
    return None


def _numbers(keys: Sequence[int | str]) -> list[int]:
    """Track ids: those of the file if all are numbers, else 1, 2, 3…"""
    texts = [str(key) for key in keys]
    is_numbered = all(re.fullmatch(r"-?\d{1,12}", text) for text in texts)
    return [int(text) for text in texts] if is_numbered else list(range(1, len(keys) + 1))


def _read_track(
    number: int, rows: Sequence[_Fields], frames: Mapping[str, int], names: Mapping[str, str], name: str, skip: Skip
) -> ImportedTrack | None:
    boxes = np.array([_box(row.get("bbox")) for row in rows], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    places = np.array([frames[_key(row.get("image_id"))] for row in rows], np.int64)
    kept = check_boxes(name, places, boxes, skip)
    if not len(kept):
        skip(f"{name} is skipped: it has no box")
        return None
    used = [rows[place] for place in kept.tolist()]
    scores = [score for row in used if (score := read_number(row.get("score"))) is not None]
    label = names.get(_key(used[0].get("category_id")), "")
    return ImportedTrack(number, label, places[kept], boxes[kept], float(np.mean(scores)) if scores else None)


def _box(value: object) -> list[float]:
    numbers = [read_number(number, 1e9) for number in value] if isinstance(value, list) else []
    return [np.nan if number is None else number for number in numbers] if len(numbers) == 4 else [np.nan] * 4


def _whole(value: object) -> int:
    number = read_number(value)
    return int(number) if number is not None and number > 0 else 0
