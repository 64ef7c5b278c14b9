"""Reads MOTChallenge files: ground truth as CVAT and others write it, and trackers' results such as ByteTrack's."""

import configparser
import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.errors import BackendError, BadRequest, SettingsError
from backend.formats.imported_tracks import ImportedTrack, ImportedVideo, Skip, check_boxes
from backend.formats.text_files import read_text
from backend.formats.video_tracks import Size

_COLUMNS = 10
"""frame, id, left, top, width, height, mark or score, class, visibility, and one that trackers add."""
_SEPARATORS = re.compile(r"[,;\s]+")
_LABELS = "labels.txt"
_FORM = "lines are frame,id,left,top,width,height,..."


def read_mot(path: Path, skip: Skip = lambda reason: None) -> list[ImportedVideo]:
    """Read a `gt.txt` (or a tracker's file), a sequence's folder, or a folder of those.

    Args:
        skip: called for each line, box, track or sequence that cannot be read.

    Raises:
        BadRequest: nothing can be read.
        SettingsError: there is no such file.
    """
    if path.is_file():
        is_in_sequence = path.parent.name in ("gt", "det")
        sequence = path.parent.parent if is_in_sequence else path.with_suffix("")
        return [_read_sequence(path, sequence.name, sequence, skip)]
    files = _find_files(path) if path.is_dir() else {}
    if not files:
        raise SettingsError(f"{path.name} holds no gt/gt.txt: give that file, or the folder of its sequence")
    videos, errors = list[ImportedVideo](), list[BackendError]()
    for file, sequence in files.items():
        try:
            videos.append(_read_sequence(file, sequence.name, sequence, skip))
        except BackendError as error:
            errors.append(error)
            if len(files) > 1:
                skip(f"{sequence.name} is skipped: {error}")
    if not videos:
        raise errors[0]
    return videos


def _find_files(folder: Path) -> dict[Path, Path]:
    """The files of sequences, each with the sequence's folder."""
    if (folder / "gt.txt").is_file() and folder.name == "gt":
        return {folder / "gt.txt": folder.parent}
    truths = {file: file.parent.parent for file in sorted(folder.rglob("gt.txt")) if file.parent.name == "gt"}
    results = {file: file.with_suffix("") for file in sorted(folder.glob("*.txt")) if file.name != _LABELS}
    return truths or results


def _read_sequence(file: Path, name: str, folder: Path, skip: Skip) -> ImportedVideo:
    table = _read_table(file, name, skip)
    # In a ground truth, lines marked 0 do not count.
    table = table[table[:, 6] != 0]
    labels = _read_labels(file, folder)
    # The format counts from 1, but some trackers count from 0.
    first = 0 if len(table) and table[:, 0].min() == 0 else 1
    tracks = []
    for number in np.unique(table[:, 1]).astype(int).tolist():
        track = _build_track(number, table[table[:, 1] == number], first, labels, f"track {number} of {name}", skip)
        tracks += [track] if track else []
    length, rate, size = _read_info(folder / "seqinfo.ini", skip)
    seen = max((int(track.frames[-1]) + 1 for track in tracks), default=0)
    return ImportedVideo(name, max(length, seen), rate, size, tuple(tracks))


def _build_track(
    number: int, rows: NDArray[np.float64], first: int, labels: list[str], name: str, skip: Skip
) -> ImportedTrack | None:
    if number < 0:
        skip(f"{name} is skipped: boxes with the id {number} are detections without a track")
        return None
    frames, boxes = rows[:, 0].astype(np.int64) - first, np.hstack([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]])
    rows_kept = check_boxes(name, frames, boxes, skip)
    if not len(rows_kept):
        skip(f"{name} is skipped: it has no box")
        return None
    rows = rows[rows_kept]
    place = int(rows[0, 7]) if np.isfinite(rows[0, 7]) else -1
    label = labels[place - 1] if 1 <= place <= len(labels) else ""
    return ImportedTrack(number, label, frames[rows_kept], boxes[rows_kept], _score(rows))


def _score(rows: NDArray[np.float64]) -> float | None:
    """The mean score of a tracker's result; a ground truth has a mark of 1 in its place, and a class after it."""
    scores, classes = rows[:, 6], rows[:, 7]
    is_result = (np.isnan(classes) | (classes == -1)).all() and ((scores > 0) & (scores <= 1)).all()
    return float(scores.mean()) if is_result and (scores < 1).any() else None


def _read_table(file: Path, name: str, skip: Skip) -> NDArray[np.float64]:
    """The lines of a file; shape (n, `_COLUMNS`), NaN where a line ends before.

    Raises:
        BadRequest: it has lines, but none of a box.
    """
    try:
        lines = [line for line in read_text(file).splitlines() if line.strip()]
    except OSError as error:
        raise BadRequest(f"{file.name} cannot be read ({error.strerror}): give another file") from error
    rows, bad = list[list[float]](), list[int]()
    for number, line in enumerate(lines, start=1):
        row = _read_line(line)
        if row:
            rows.append(row)
        elif number > 1 or not re.match(r"\W*[a-z]", line, re.IGNORECASE):
            bad.append(number)
    if lines and not rows:
        raise BadRequest(f"{file.name} is no MOT file: {_FORM}")
    if bad:
        skip(f"{name}: {len(bad)} lines of {file.name} are skipped, such as line {bad[0]}: {_FORM}")
    return np.array(rows, float).reshape(-1, _COLUMNS)


def _read_line(line: str) -> list[float] | None:
    """A line's numbers; None: it is no box."""
    texts = [text.strip("\"'") for text in _SEPARATORS.split(line.strip()) if text]
    try:
        numbers = [float(text) for text in texts[:6]]
    except ValueError:
        return None
    if len(numbers) < 6 or not all(map(math.isfinite, numbers)) or max(map(abs, numbers)) > 1e9:
        return None
    return [*numbers, *(_number(text) for text in texts[6:_COLUMNS]), *[math.nan] * (_COLUMNS - len(texts))]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _read_labels(file: Path, folder: Path) -> list[str]:
    """The names of classes: CVAT writes them next to `gt.txt`, our export next to the sequences."""
    for place in (file.parent, folder, folder.parent):
        if (place / _LABELS).is_file():
            return [line.strip() for line in read_text(place / _LABELS).splitlines()]
    return []


def _read_info(file: Path, skip: Skip) -> tuple[int, float | None, Size | None]:
    """Length, frame rate and picture size, if the file says them."""
    if not file.is_file():
        return 0, None, None
    ini = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        ini.read_string(read_text(file))
        fields: Mapping[str, str] = next((ini[name] for name in ini.sections() if name.lower() == "sequence"), {})
        size = int(fields.get("imWidth", 0)), int(fields.get("imHeight", 0))
        length, rate = int(fields.get("seqLength", 0)), float(fields.get("frameRate", 0))
    except (configparser.Error, ValueError):
        skip(f"{file.parent.name}: {file.name} is skipped, because it cannot be read")
        return 0, None, None
    return length, rate if rate > 0 else None, size if min(size) > 0 else None
