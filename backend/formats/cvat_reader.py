"""Reads CVAT's XML 1.1: the keyframes of its tracks, and the boxes of its images without a track."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree as ElementTree
import numpy as np
from defusedxml.common import DefusedXmlException

from backend.errors import BadRequest, SettingsError
from backend.formats.cvat import HUMAN, SCORE
from backend.formats.imported_tracks import Detection, ImportedKeyframe, ImportedTrack, ImportedVideo, Skip, check_boxes
from backend.formats.video_tracks import Size
from backend.labelstudio.json_values import read_number

_VIDEO = re.compile(r"\.(mp4|m4v|mov|avi|mkv|webm|mpe?g|ts|wmv)$", re.IGNORECASE)


def read_cvat(path: Path, skip: Skip = lambda reason: None) -> list[ImportedVideo]:
    """Read an XML file, or each one in a folder.

    Args:
        skip: called for each shape, track or file that cannot be read.

    Raises:
        BadRequest: nothing can be read.
        SettingsError: there is no such file.
    """
    files = sorted(path.glob("*.xml")) if path.is_dir() else [path]
    if not files:
        raise SettingsError(f"{path.name} holds no XML file: give one that CVAT exported as CVAT for video 1.1")
    videos, errors = list[ImportedVideo](), list[BadRequest]()
    for file in files:
        try:
            videos.append(_read_file(file, skip))
        except BadRequest as error:
            errors.append(error)
            if len(files) > 1:
                skip(f"{file.name} is skipped: {error}")
    if not videos:
        raise errors[0]
    return videos


def _read_file(file: Path, skip: Skip) -> ImportedVideo:
    video = _Video(skip, file.stem)
    try:
        for _, element in ElementTree.iterparse(file, events=("end",)):
            if element.tag in ("meta", "track", "image"):
                video.add(element)
                element.clear()
            elif element.tag == "annotations":
                video.is_whole = True
    except OSError as error:
        raise SettingsError(f"{file.name} cannot be read: give a file that CVAT exported") from error
    except (ParseError, DefusedXmlException, UnicodeError, ValueError) as error:
        raise BadRequest(f"{file.name} is no XML of CVAT: export the task as CVAT for video 1.1") from error
    if not video.is_whole:
        raise BadRequest(f"{file.name} holds no annotations of CVAT: export the task as CVAT for video 1.1")
    return video.finish()


@dataclass(slots=True)
class _Video:
    """What was read of a file so far."""

    skip: Skip
    name: str
    length: int = 0
    size: Size | None = None
    is_whole: bool = False
    _tracks: list[ImportedTrack] = field(default_factory=list)
    _detections: list[Detection] = field(default_factory=list)
    _foreign: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, element: Element) -> None:
        """Read a whole element."""
        match element.tag:
            case "meta":
                self._read_meta(element)
            case "track":
                self._read_track(element)
            case _:
                self._read_image(element)

    def finish(self) -> ImportedVideo:
        """The video, when all is read."""
        for tag, count in self._foreign.items():
            self.skip(f"{self.name}: {count} shapes of the kind {tag} are skipped: only boxes are read")
        ends = [int(track.frames[-1]) + 1 for track in self._tracks] + [one.frame + 1 for one in self._detections]
        length, tracks = max([self.length, *ends]), sorted(self._tracks, key=lambda track: track.id)
        return ImportedVideo(self.name, length, None, self.size, tuple(tracks), tuple(self._detections))

    def _read_meta(self, meta: Element) -> None:
        if len(meta.findall(".//task")) > 1:
            raise BadRequest(f"{self.name} holds several tasks of CVAT: export them one by one")
        source = _VIDEO.sub("", meta.findtext(".//source") or "")
        self.name = source or meta.findtext(".//task/name") or meta.findtext(".//job/name") or self.name
        last, size = _whole(meta.findtext(".//stop_frame")), _whole(meta.findtext(".//size"))
        self.length = last + 1 if last is not None else size or 0
        width, height = (_whole(meta.findtext(f".//original_size/{side}")) for side in ("width", "height"))
        self.size = (width, height) if width and height else None

    def _read_track(self, element: Element) -> None:
        name = f"track {element.get('id')} of {self.name}"
        shapes = {shape.frame: shape for child in element if (shape := self._read_box(child))}
        keyframes = _keyframes(shapes)
        frames = np.array([keyframe.frame for keyframe in keyframes], np.int64)
        boxes = np.array([keyframe.box for keyframe in keyframes], float).reshape(-1, 4)
        kept = check_boxes(name, frames, boxes, self.skip).tolist()
        if not kept:
            self.skip(f"{name} is skipped: it has no box")
            return
        number = _whole(element.get("id"))
        self._tracks.append(
            ImportedTrack(
                len(self._tracks) if number is None else number,
                element.get("label", ""),
                frames[kept],
                boxes[kept],
                next((shape.score for shape in shapes.values() if shape.score is not None), None),
                tuple(keyframes[place] for place in kept),
            )
        )

    def _read_image(self, element: Element) -> None:
        width, height = _whole(element.get("width")), _whole(element.get("height"))
        self.size = self.size or ((width, height) if width and height else None)
        for child in element:
            if shape := self._read_box(child, element.get("id")):
                self._detections.append(Detection(shape.frame, child.get("label", ""), shape.box, shape.score))

    def _read_box(self, child: Element, frame: str | None = None) -> "_Shape | None":
        if child.tag != "box":
            self._foreign[child.tag] += child.tag != "tag"
            return None
        attributes = {one.get("name"): (one.text or "").strip() for one in child.iter("attribute")}
        number, rotation = _whole(child.get("frame") or frame), read_number(_real(child.get("rotation")), 1e6)
        x0, y0, x1, y1 = (_real(child.get(name)) for name in ("xtl", "ytl", "xbr", "ybr"))
        return _Shape(
            -1 if number is None else number,
            (x0, y0, x1, y1),
            rotation or 0.0,
            child.get("outside") == "1",
            child.get("keyframe", "1") == "1",
            attributes.get(HUMAN) == "true",
            read_number(_real(attributes.get(SCORE)), 1.001),
        )


@dataclass(frozen=True, slots=True)
class _Shape:
    """A box; its frame is -1 if it has none."""

    frame: int
    box: tuple[float, float, float, float]
    rotation: float
    outside: bool
    is_key: bool
    human: bool
    score: float | None


def _keyframes(shapes: Mapping[int, _Shape]) -> list[ImportedKeyframe]:
    """The keyframes of a track, ascending; one that is hidden afterwards ends each stretch of frames.

    Args:
        shapes: by frame.
    """
    keyed = [shapes[frame] for frame in sorted(shapes) if shapes[frame].is_key]
    keyframes = list[ImportedKeyframe]()
    for shape, after in pairwise([*keyed, None]):
        if shape is None or shape.outside:
            continue
        is_last = after is not None and after.outside
        last = after.frame - 1 if after else shape.frame
        enabled = not is_last or last > shape.frame
        keyframes.append(ImportedKeyframe(shape.frame, shape.box, shape.rotation, enabled, shape.human))
        if after and is_last and last > shape.frame:
            ended = shapes.get(last) or _between(shape, after)
            keyframes.append(ImportedKeyframe(last, ended.box, ended.rotation, enabled=False))
    return keyframes


def _between(shape: _Shape, after: _Shape) -> _Shape:
    """The box on the frame before `after`, as CVAT draws it: straight from one to the other."""
    part = (after.frame - 1 - shape.frame) / (after.frame - shape.frame)
    x0, y0, x1, y1 = (a + (b - a) * part for a, b in zip(shape.box, after.box, strict=True))
    return replace(shape, box=(x0, y0, x1, y1))


def _real(text: object) -> float:
    try:
        return float(str(text))
    except ValueError:
        return float("nan")


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdecimal() and len(text) < 12 else None
