"""Label Studio's tasks: which of their annotations counts, and the tracks of it on every frame."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Self

import numpy as np

from backend.errors import BadRequest, SettingsError
from backend.formats.text_files import read_text
from backend.formats.timing import FrameTiming
from backend.formats.video_tracks import UNNAMED, ExportTrack, Size, VideoTracks, folder_name
from backend.labelstudio.json_values import read_mappings
from backend.labelstudio.keyframe import Keyframe, boxes_at, mark_as_ours
from backend.labelstudio.label_config import DEFAULT_FRAMERATE, LINE, WORDS, LabelConfig
from backend.labelstudio.region import TYPE, Region, agreed_framerate, find_linked, parse_region, read_id
from backend.labelstudio.task_data import file_address, read_framerate
from backend.tracks.geometry import Boxes
from backend.video import VideoInfo

_COMMANDS = frozenset({"▶ t", "track (t)"})
"""Labels that are keys to press in the config that we ship, for files that come without theirs."""


@dataclass(frozen=True, slots=True)
class ExportControls:
    """What of the results is no annotation.

    Attributes:
        commands: labels that are keys to press.
        texts: names of the text areas that commands are typed into.
        config: the project's label config, where it is known.
    """

    commands: frozenset[str] = _COMMANDS
    texts: frozenset[str] = frozenset({WORDS, LINE})
    config: LabelConfig | None = None

    @classmethod
    def from_config(cls, config: LabelConfig) -> Self:
        """Of a project."""
        # Where the config has no line of our names, any text area may ask; what is typed there is the annotators' own.
        named = frozenset({WORDS, LINE}) & {*config.words, *config.lines}
        return cls(config.commands, named, config)

    def video(self, data: Mapping[str, Any]) -> str:
        """The video's address in a task's data; empty: it has none."""
        return self.config.video.address(data) if self.config else str(data.get("video") or "")

    def rate(self, regions: Iterable[Region], data: Mapping[str, Any]) -> float:
        """Frames per second that the page counts with: from the task, else what the keyframes agree on."""
        given = self.config.video.given_rate(data) if self.config else read_framerate(data.get("fps"))
        return given or agreed_framerate(regions) or DEFAULT_FRAMERATE

    def label(self, labels: Sequence[str]) -> str:
        """The class among a region's labels."""
        return next((label for label in labels if label not in self.commands), UNNAMED)


@dataclass(frozen=True, slots=True)
class ChosenAnnotation:
    """A task and the one of its annotations (or predictions) that counts."""

    task: Mapping[str, Any]
    number: int
    kind: str
    entry: Mapping[str, Any]

    @property
    def data(self) -> Mapping[str, Any]:
        """The task's data."""
        data = self.task.get("data")
        return data if isinstance(data, Mapping) else {}

    @property
    def results(self) -> list[Mapping[str, Any]]:
        """What is annotated."""
        return read_mappings(self.entry.get("result"))

    def url(self, controls: ExportControls) -> str:
        """Where its video can be fetched; empty: the task has none."""
        return file_address(controls.video(self.data), self.number)

    def boxes(self, controls: ExportControls) -> list[Mapping[str, Any]]:
        """The results that are boxes on the video."""
        names = {controls.config.video.name} if controls.config else None
        return [one for one in self.results if one.get("type") == TYPE and (not names or one.get("to_name") in names)]

    def regions(self, controls: ExportControls) -> "ReadRegions":
        """The regions on the video."""
        found, skipped = list[tuple[Mapping[str, Any], Region]](), list[str]()
        for number, result in enumerate(self.boxes(controls), start=1):
            name = f"region {read_id(result) or number}"
            try:
                region = parse_region(result, find_linked(result, self.results))
            except BadRequest as error:
                skipped.append(f"{name} is skipped: {error}")
                continue
            if region.is_taken_away:
                continue
            found.append((result, region))
            skipped += [f"{name}: a keyframe is skipped: {reason}" for reason in region.skipped]
        return ReadRegions(tuple(found), tuple(skipped))


@dataclass(frozen=True, slots=True)
class ReadRegions:
    """The regions of an annotation.

    Attributes:
        found: those that can be read, each with its result.
        skipped: a sentence for each region or keyframe that cannot be read.
    """

    found: tuple[tuple[Mapping[str, Any], Region], ...]
    skipped: tuple[str, ...]


def load_tasks(path: Path) -> list[Mapping[str, Any]]:
    """The tasks in a file.

    Raises:
        SettingsError: there is no such file.
        BadRequest: it holds something else.
    """
    try:
        found = json.loads(read_text(path))
    except OSError as error:
        raise SettingsError(f"{path.name} cannot be read: give a JSON export of Label Studio") from error
    except ValueError as error:
        raise BadRequest(f"{path.name} is no JSON: export the project as JSON") from error
    tasks = [found] if isinstance(found, Mapping) else found
    if not isinstance(tasks, list) or not all(isinstance(task, Mapping) for task in tasks):
        raise BadRequest(f"{path.name} holds no tasks: export the project as JSON")
    if any("data" not in task for task in tasks):
        raise BadRequest(f"{path.name} holds no whole tasks: export the project as JSON, not as JSON-MIN")
    return tasks


def choose_annotation(task: Mapping[str, Any], number: int, predictions: bool) -> ChosenAnnotation | None:
    """What of a task counts: the ground truth, else what was submitted last; None: nothing was.

    Args:
        number: of the task, where it tells none.
        predictions: where nothing was submitted, the newest prediction counts.
    """
    number = task_number(task, number)
    submitted = [one for one in read_mappings(task.get("annotations")) if not one.get("was_cancelled")]
    if submitted:
        return ChosenAnnotation(task, number, "annotations", max(submitted, key=_age))
    predicted = read_mappings(task.get("predictions")) if predictions else []
    return ChosenAnnotation(task, number, "predictions", max(predicted, key=_age)) if predicted else None


def task_number(task: Mapping[str, Any], otherwise: int) -> int:
    """A task's number, as it tells."""
    number = task.get("id")
    return number if isinstance(number, int) else otherwise


def _age(entry: Mapping[str, Any]) -> tuple[bool, str, int]:
    number = entry.get("id")
    when = entry.get("updated_at") or entry.get("created_at") or ""
    return entry.get("ground_truth") is True, str(when), number if isinstance(number, int) else 0


def used_labels(chosen: Sequence[ChosenAnnotation], controls: ExportControls) -> list[str]:
    """All classes: in the config's order, then by name."""
    found = {controls.label(region.labels) for one in chosen for _, region in one.regions(controls).found}
    config = controls.config
    known = config.labels.get(config.video.name, ()) if config else ()
    return [*known, *sorted(found - {*known})]


def read_video_tracks(
    chosen: ChosenAnnotation, controls: ExportControls, video_info: VideoInfo | None, size: Size | None
) -> VideoTracks:
    """A task's tracks on every frame, without masks.

    Args:
        video_info: of its video; None: LS frames are counted.
        size: of its pictures, where it was given.

    Raises:
        BadRequest: the annotation has regions, but none can be read.
    """
    regions = chosen.regions(controls)
    drawn = [region for _, region in regions.found]
    if regions.skipped and not drawn:
        raise BadRequest(regions.skipped[0])
    rate = controls.rate(drawn, chosen.data)
    timing = FrameTiming.from_video(video_info, rate) if video_info else FrameTiming.from_counts(_length(drawn), rate)
    size = size or (video_info.size if video_info else _size(chosen))
    draws = [(region, _draw(region, timing, size)) for region in drawn]
    seen = [(region, drawing) for region, drawing in draws if len(drawing.frames)]
    ids = assign_track_numbers([(region.track_id, int(drawing.frames[0])) for region, drawing in seen])
    tracks = [
        ExportTrack(
            number,
            controls.label(region.labels),
            region.score,
            drawing.frames,
            drawing.boxes,
            drawing.keys,
            np.array([item.enabled for item in drawing.items]),
            np.array([item.is_human for item in drawing.items]),
            corners=drawing.corners,
        )
        for (region, drawing), number in zip(seen, ids, strict=True)
    ]
    name = folder_name(chosen.number, controls.video(chosen.data))
    return VideoTracks(
        chosen.number,
        name,
        timing.length,
        timing.rate,
        size,
        tuple(sorted(tracks, key=lambda one: one.id)),
        regions.skipped,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Drawing:
    frames: Any
    boxes: Boxes
    keys: Any
    items: Sequence[Keyframe]
    corners: Any


def _draw(region: Region, timing: FrameTiming, size: Size | None) -> _Drawing:
    """A region's frames, boxes and keyframes, as in `ExportTrack`."""
    places = np.array([item.frame for item in region.keyframes])
    within = places <= timing.last
    ls_frames, frames = timing.ls_frames.copy(), timing.frames(places[within])
    # Of LS frames that show the same picture, a keyframe's counts.
    ls_frames[frames] = places[within]
    percent = boxes_at(region.keyframes, ls_frames)  # type: ignore[arg-type]
    keyed = dict(zip(frames.tolist(), region.keyframes, strict=False))
    if not within.all() and not np.isnan(percent[-1, 0]) and timing.length - 1 not in keyed:
        # The track goes on to a keyframe after the last frame: what it is there stands for that.
        keyed[timing.length - 1] = mark_as_ours(Keyframe(timing.last, True, *percent[-1].tolist()))
    seen = np.flatnonzero(~np.isnan(percent[:, 0]))
    # The page turns a box the shorter way.
    rotations = np.unwrap([item.rotation for item in region.keyframes], period=360)
    turns = np.interp(ls_frames[seen], places, rotations)
    corners = _corners(percent[seen], turns, size)
    boxes = np.hstack([corners.min(1), corners.max(1)])
    keys = np.searchsorted(seen, sorted(keyed))
    return _Drawing(seen, boxes, keys, _sorted(keyed), corners if turns.any() else None)


def _sorted(keyed: Mapping[int, Keyframe]) -> list[Keyframe]:
    return [keyed[frame] for frame in sorted(keyed)]


def _corners(percent: Boxes, turns: Any, size: Size | None) -> Any:
    """The corners of boxes in percent `x y width height`: pixels, or parts of the picture; shape (n, 4, 2)."""
    if size is None and turns.any():
        raise SettingsError("it has a rotated box and no picture size: give that as --size 1920x1080")
    scaled = percent * (np.array([*(size or (1, 1))] * 2) / 100)
    left, top, width, height = scaled.T
    angles = np.radians(turns)
    cosines, sines = np.cos(angles), np.sin(angles)
    across = np.stack([np.zeros_like(left), width * cosines, width * cosines - height * sines, -height * sines])
    along = np.stack([np.zeros_like(left), width * sines, width * sines + height * cosines, height * cosines])
    return np.stack([left + across, top + along], axis=-1).transpose(1, 0, 2)


def _length(drawn: Sequence[Region]) -> int:
    """Frames that the page counts, as far as the regions tell."""
    return max((max(region.frames_count or 0, region.keyframes[-1].frame) for region in drawn), default=1)


def _size(chosen: ChosenAnnotation) -> Size | None:
    """The pictures' size, where Label Studio or the task's data tell it."""
    boxes = [one for one in chosen.results if one.get("type") == TYPE]
    found = [(one.get("original_width"), one.get("original_height")) for one in boxes]
    for width, height in [*found, (chosen.data.get("width"), chosen.data.get("height"))]:
        if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
            return width, height
    return None


def assign_track_numbers(told: Sequence[tuple[int | None, int]]) -> list[int]:
    """Track ids: those that are told by one region alone; the others get the lowest free numbers, by first frame.

    Args:
        told: of each region its id, if it has one, and its first frame.
    """
    times = Counter(number for number, _ in told)
    named = {place: number for place, (number, _) in enumerate(told) if number is not None and times[number] == 1}
    taken = {*named.values()}
    free = (number for number in count(1) if number not in taken)
    for place in sorted(range(len(told)), key=lambda place: told[place][1]):
        if place not in named:
            named[place] = next(free)
    return [named[place] for place in range(len(told))]
