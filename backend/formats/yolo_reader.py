"""Reads YOLO's text files: detections of `yolo predict save_txt`, tracks of `yolo track save_txt`, and datasets."""

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import yaml

from backend.errors import BadRequest, SettingsError
from backend.formats.imported_tracks import Detection, ImportedTrack, ImportedVideo, Skip, build_track
from backend.formats.picture_names import number_frames, split_picture_name
from backend.formats.text_files import read_text

_FORM = "lines are class x y width height [confidence] [id], in fractions of the picture"
_CLASSES = "classes.txt"
_Row = tuple[float, ...]


def read_yolo(path: Path, skip: Skip = lambda reason: None) -> list[ImportedVideo]:
    """Read a folder of text files, one for each picture, named after their video and its frame.

    Args:
        skip: called for each line, file or track that cannot be read.

    Raises:
        BadRequest: nothing can be read.
        SettingsError: there is no such folder.
    """
    files = [file for file in sorted(path.rglob("*.txt")) if file.name != _CLASSES] if path.is_dir() else []
    if not files:
        raise SettingsError(f"{path.name} holds no text files of labels: give the folder labels that yolo wrote")
    labels, videos = _read_labels(path), defaultdict[str, list[tuple[str, Path]]](list)
    nameless = 0
    for file in files:
        if name := split_picture_name(file.stem):
            folder = file.parent.parent if file.parent.name == "labels" else file.parent
            videos[name[0] or folder.name].append((name[1], file))
        else:
            nameless += 1
    if nameless:
        skip(f"{nameless} files are skipped: their name does not end with the number of a frame")
    found = [_read_video(name, listed, labels, skip) for name, listed in videos.items()]
    if not any(video.tracks or video.detections for video in found):
        raise BadRequest(f"{path.name} holds no boxes of YOLO: {_FORM}")
    return found


def _read_video(name: str, files: list[tuple[str, Path]], labels: Mapping[int, str], skip: Skip) -> ImportedVideo:
    frames, rows, bad = number_frames([digits for digits, _ in files]), list[tuple[int, _Row]](), 0
    for frame, (_, file) in zip(frames, files, strict=True):
        for line in read_text(file).splitlines():
            row = _read_line(line)
            if row:
                rows.append((frame, row))
            else:
                bad += bool(line.strip())
    if bad:
        skip(f"{name}: {bad} lines are skipped: {_FORM}")
    # With six columns, the last one is an id, or a confidence where it has no ids.
    has_ids = all(row[5].is_integer() for _, row in rows if len(row) == 6)
    detections, tracks = list[Detection](), defaultdict[int, list[Detection]](list)
    for frame, row in rows:
        detection = _detection(frame, row, labels, has_ids)
        if len(row) == 7 or (len(row) == 6 and has_ids):
            tracks[int(row[-1])].append(detection)
        else:
            detections.append(detection)
    made = [build_track(number, tracks[number], name, skip) for number in sorted(tracks)]
    kept: tuple[ImportedTrack, ...] = tuple(track for track in made if track)
    return ImportedVideo(name, max(frames) + 1, None, None, kept, tuple(detections), in_fractions=True)


def _detection(frame: int, row: _Row, labels: Mapping[int, str], has_ids: bool) -> Detection:
    number, x, y, width, height = int(row[0]), *row[1:5]
    score = row[5] if len(row) == 7 or (len(row) == 6 and not has_ids) else None
    box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return Detection(frame, labels.get(number, str(number)), box, score)


def _read_line(line: str) -> _Row | None:
    try:
        row = tuple(float(text) for text in line.split())
    except ValueError:
        return None
    is_valid = 5 <= len(row) <= 7 and all(map(math.isfinite, row)) and row[0].is_integer() and row[0] >= 0
    is_valid = is_valid and (len(row) < 7 or row[6].is_integer())
    return row if is_valid and max(map(abs, row)) < 1e9 else None


def _read_labels(folder: Path) -> Mapping[int, str]:
    """The names of classes: from data.yaml, or a line each in classes.txt, beside the labels or above."""
    for place in (folder, *folder.absolute().parents[:2]):
        if (place / "data.yaml").is_file():
            try:
                content = yaml.safe_load(read_text(place / "data.yaml"))
            except yaml.YAMLError:
                continue
            names = content.get("names") if isinstance(content, Mapping) else None
            pairs = names.items() if isinstance(names, Mapping) else enumerate(names if isinstance(names, list) else ())
            return {number: str(label) for number, label in pairs if isinstance(number, int)}
        if (place / _CLASSES).is_file():
            return dict(enumerate(line.strip() for line in read_text(place / _CLASSES).splitlines()))
    return {}
