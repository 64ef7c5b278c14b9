"""Tracks as other tools' files have them: MOTChallenge and COCO-VID."""

import configparser
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.errors import BadRequest, SettingsError
from backend.formats.video_tracks import Frames, Size
from backend.tracks.geometry import Boxes


@dataclass(frozen=True, slots=True, eq=False)
class ImportedTrack:
    """One track.

    Attributes:
        label: its class; empty: the file names none.
        frames: shape (n,), from 0 on, ascending.
        boxes: shape (n, 4), pixels.
        score: mean of the file's, 0..1, where it tells some.
    """

    id: int
    label: str
    frames: Frames
    boxes: Boxes
    score: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ImportedVideo:
    """One video's tracks; `length` and `rate` as far as the file tells them."""

    name: str
    length: int
    rate: float | None
    size: Size | None
    tracks: tuple[ImportedTrack, ...]


def read_mot(path: Path) -> list[ImportedVideo]:
    """A `gt.txt` (or a tracker's file), a sequence's folder, or a folder of those.

    Raises:
        BadRequest: a line cannot be read.
        SettingsError: there is none.
    """
    if path.is_file():
        is_truth = path.parent.name in ("gt", "det")
        sequence = path.parent.parent if is_truth else path.with_suffix("")
        return [_mot(path, sequence.name, sequence)]
    folders = [path, *sorted(one for one in path.iterdir() if one.is_dir())] if path.is_dir() else []
    found = [_mot(one / "gt" / "gt.txt", one.name, one) for one in folders if (one / "gt" / "gt.txt").is_file()]
    if not found:
        raise SettingsError(f"{path.name} holds no gt/gt.txt: give that file, or the folder of its sequence")
    return found


def _mot(file: Path, name: str, folder: Path) -> ImportedVideo:
    table = _numbers(file)
    # Of a ground truth's lines those marked 0 do not count.
    table = table[table[:, 6] != 0] if table.shape[1] > 6 else table
    labels = _classes(folder)
    tracks = []
    for number in np.unique(table[:, 1]).astype(int).tolist():
        rows = table[table[:, 1] == number]
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        boxes = np.hstack([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]])
        place = int(rows[0, 7]) if rows.shape[1] > 7 else -1
        label = labels[place - 1] if 1 <= place <= len(labels) else ""
        tracks.append(_found(number, label, rows[:, 0].astype(int) - 1, boxes, name))
    length, rate, size = _info(folder / "seqinfo.ini")
    seen = max((int(track.frames[-1]) + 1 for track in tracks), default=0)
    return ImportedVideo(name, max(length, seen), rate, size, tuple(tracks))


def _numbers(file: Path) -> NDArray[np.float64]:
    """The lines of a file; shape (n, at least 6)."""
    try:
        lines = [line.replace(",", " ").split() for line in file.read_text(encoding="utf-8").splitlines()]
        table = np.array([line for line in lines if line], float)
    except (OSError, ValueError) as error:
        raise BadRequest(f"{file.name} is no MOT file: lines are frame,id,left,top,width,height,...") from error
    if table.size == 0:
        return np.empty((0, 6))
    if table.shape[1] < 6 or not np.isfinite(table[:, :6]).all():
        raise BadRequest(f"{file.name} is no MOT file: lines are frame,id,left,top,width,height,...")
    return table


def _classes(folder: Path) -> list[str]:
    """The names of classes, as our export writes them beside the sequences."""
    for file in (folder / "labels.txt", folder.parent / "labels.txt"):
        if file.is_file():
            return file.read_text(encoding="utf-8").splitlines()
    return []


def _info(file: Path) -> tuple[int, float | None, Size | None]:
    """Length, frame rate and picture size, where they are told."""
    ini = configparser.ConfigParser(interpolation=None)
    try:
        ini.read(file, encoding="utf-8")
        told = ini["Sequence"] if ini.has_section("Sequence") else {}
        size = int(told.get("imWidth", 0)), int(told.get("imHeight", 0))
        return int(told.get("seqLength", 0)), float(told.get("frameRate", 0)) or None, size if all(size) else None
    except (configparser.Error, ValueError) as error:
        raise BadRequest(f"{file.name} cannot be read: correct its numbers, or remove it") from error


def read_coco_vid(path: Path) -> list[ImportedVideo]:
    """A COCO-VID file: the videos in it.

    Raises:
        BadRequest: it is none.
        SettingsError: there is no such file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return _videos(found)
    except OSError as error:
        raise SettingsError(f"{path.name} cannot be read: give a COCO-VID file") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BadRequest(
            f"{path.name} is no COCO-VID: it needs videos, images with video_id and frame_id, and annotations with "
            "image_id, bbox and instance_id or track_id"
        ) from error


def _videos(found: Mapping[str, Any]) -> list[ImportedVideo]:
    names = {one["id"]: str(one["name"]) for one in found.get("categories", ())}
    images: defaultdict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for image in found["images"]:
        images[image["video_id"]].append(image)
    rows: defaultdict[Any, defaultdict[int, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    owners = {image["id"]: image["video_id"] for image in found["images"]}
    for row in found["annotations"]:
        track = row["instance_id"] if "instance_id" in row else row["track_id"]
        rows[owners[row["image_id"]]][int(track)].append(row)
    return [_video(video, images[video["id"]], rows[video["id"]], names) for video in found["videos"]]


def _video(
    video: Mapping[str, Any],
    images: Sequence[Mapping[str, Any]],
    rows: Mapping[int, Sequence[Mapping[str, Any]]],
    names: Mapping[Any, str],
) -> ImportedVideo:
    frames = {image["id"]: int(image.get("frame_id", image.get("frame_index"))) for image in images}
    sides = video.get("width"), video.get("height")
    if not all(sides) and images:
        sides = images[0].get("width"), images[0].get("height")
    name, tracks = str(video["name"]), []
    for track, listed in sorted(rows.items()):
        ordered = sorted(listed, key=lambda row: frames[row["image_id"]])
        boxes = np.array([row["bbox"] for row in ordered], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        scores = [float(row["score"]) for row in ordered if "score" in row]
        places = np.array([frames[row["image_id"]] for row in ordered])
        label = names.get(ordered[0].get("category_id"), "")
        tracks.append(_found(track, label, places, boxes, name, float(np.mean(scores)) if scores else None))
    length = max(int(video.get("length") or 0), max(frames.values(), default=-1) + 1)
    size = (int(sides[0]), int(sides[1])) if sides[0] and sides[1] else None
    return ImportedVideo(name, length, float(video.get("fps") or 0) or None, size, tuple(tracks))


def _found(
    number: int, label: str, frames: Frames, boxes: Boxes, name: str, score: float | None = None
) -> ImportedTrack:
    """A track, checked.

    Raises:
        BadRequest: it is twice on a frame, before the first one, or a box is empty.
    """
    if frames[0] < 0 or (np.diff(frames) == 0).any():
        raise BadRequest(f"track {number} of {name} has a frame twice, or one before the first: correct the file")
    if not np.isfinite(boxes).all() or (boxes[:, 2:] <= boxes[:, :2]).any():
        raise BadRequest(f"track {number} of {name} has an empty box: correct the file")
    return ImportedTrack(number, label, frames, boxes, score)


READERS: Mapping[str, Any] = {"mot": read_mot, "coco-vid": read_coco_vid}


def renumber_tracks(tracks: Iterable[ImportedTrack]) -> dict[int, int]:
    """The ids that people see, from 1 on: those of the file, moved where it counts from 0."""
    ids = [track.id for track in tracks]
    first = min(ids, default=1)
    return {number: number + (0 if first >= 1 else 1 - first) for number in ids}
