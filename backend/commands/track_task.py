"""The task that Label Studio imports, from the tracks of a video."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from backend.errors import BadRequest, SettingsError
from backend.formats.mask_sidecar import Masks, sidecar_path, write_sidecar
from backend.jobs.propagation import PropagationRun
from backend.labelstudio.keyframe import Keyframe, boxes_to_percent
from backend.labelstudio.keyframes import KeyframeSet, choose_keyframes, sample_track
from backend.labelstudio.region import Region, new_region_id
from backend.labelstudio.region_results import build_region, format_prediction, format_region
from backend.labelstudio.segments import segments_between
from backend.labelstudio.track_ids import TrackShape, assign_identities, read_shapes
from backend.settings import Settings
from backend.tracks.prompts import LIKE, Target, TextSearch
from backend.tracks.track import Track
from backend.video import VideoInfo
from backend.video.frame_clock import FrameClock


@dataclass(frozen=True, slots=True)
class TrackedVideo:
    """What was tracked in one video.

    Attributes:
        url: value of `data.video` in the task.
        labels: classes by track; None: it has none.
        targets: by the id of their region.
        propagation: the finished propagation.
    """

    url: str
    info: VideoInfo
    propagation: PropagationRun
    tracks: Mapping[str, Track]
    labels: Mapping[str, str | None]
    targets: Mapping[str, Target]

    @property
    def clock(self) -> FrameClock:
        """Its LS frames, counted at its own rate."""
        return FrameClock(self.info.times, self.info.end, self.info.rate)


def crop_span(span: range | None, length: int) -> range:
    """The source frames to track in; `span` None: the whole video.

    Raises:
        BadRequest: the span is outside the video.
    """
    frames = range(length)[span.start : span.stop] if span else range(length)
    if span and not frames:
        raise BadRequest(f"the span {span.start}..{span.stop} is outside the video, which has {length} frames")
    return frames


def classes_of(searches: Sequence[TextSearch]) -> dict[str, str]:
    """The class of what each search finds, by the name of its phrase."""
    return {search.name: search.label or search.text or LIKE for search in searches}


def label_tracks(
    propagation: PropagationRun, targets: Mapping[str, Target], searches: Sequence[TextSearch]
) -> dict[str, str | None]:
    """Classes by track; None: it has none."""
    classes, phrases = classes_of(searches), propagation.track_phrases
    return {name: classes[phrases[name]] if name in phrases else targets[name].label for name in propagation.tracks()}


def build_task(
    video: TrackedVideo, settings: Settings, model: tuple[str, str], before: Sequence[Region]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The task to import, and the ids of its regions by track.

    Args:
        model: name and version of the engine.
        before: regions of an earlier run. Other objects get a new number, and those that a phrase found a new id.
    """
    clock, info, targets = video.clock, video.info, video.targets
    human = {name: _human_keyframes(target, clock, info.size) for name, target in targets.items()}
    keyframe_sets = _choose_keyframe_sets(video, clock, human, settings)
    result, ids = list[dict[str, Any]](), dict[str, str]()
    classes = {name: [label] if (label := video.labels[name]) else [] for name in keyframe_sets}
    shapes = {name: TrackShape(chosen.keyframes, frozenset(classes[name])) for name, chosen in keyframe_sets.items()}
    known = assign_identities(shapes, [before])
    for name, chosen in keyframe_sets.items():
        track, same = video.tracks[name], known[name].id
        ids[name] = name if name in human else same if same and same not in human else new_region_id()
        region = build_region(
            _region(ids[name], classes[name], human.get(name, []), info),
            chosen,
            track_id=known[name].number,
            engine=model[0],
            score=float(np.nanmean(track.scores)) if len(track.scores) else None,
        )
        result += format_region(region, info.rate)
    prediction = format_prediction(result, "-".join(model))
    return {"data": {"video": video.url, "fps": info.rate}, "predictions": [prediction]}, ids


def check_outputs(*outputs: Path | None) -> None:
    """Reject what cannot be written before anything is computed.

    Raises:
        SettingsError: the path of an output is bad.
    """
    for output in outputs:
        if output and (output.is_dir() or not os.access(output.absolute().parent, os.W_OK)):
            raise SettingsError(f"{output.name} cannot be written: choose a file in an existing folder")


def write_tasks(output: Path | None, tasks: Iterable[str], masks: Masks | None) -> None:
    """Write tasks, and their masks next to them.

    Args:
        output: None: standard output, without masks.
        tasks: JSON of each.
        masks: None: there are none.
    """
    text = "[\n" + ",\n".join(tasks) + "\n]\n"
    if output is None:
        print(text, end="")
        return
    output.write_text(text, encoding="utf-8")
    # Otherwise the masks of an earlier run would be taken for this one's.
    sidecar_path(output).unlink(missing_ok=True)
    if masks is not None:
        write_sidecar(output, masks)


def _choose_keyframe_sets(
    video: TrackedVideo, clock: FrameClock, human: Mapping[str, list[Keyframe]], settings: Settings
) -> dict[str, KeyframeSet]:
    """The keyframes of each track that has some, with those set by a person."""
    size, targets, keyframe_sets = video.info.size, video.targets, {}
    for name, track in video.tracks.items():
        processed, fixed = video.propagation.processed_frames(name), human.get(name, [])
        sample = partial(sample_track, track=track, looked=processed, clock=clock, size=size, length=clock.length)
        prompted = [clock.first_frame(source) for source in targets[name].prompts] if name in targets else []
        chosen = choose_keyframes(segments_between(fixed), sample, settings, size, prompted)
        if fixed or chosen.keyframes:
            keyframes = sorted([*fixed, *chosen.keyframes], key=lambda keyframe: keyframe.frame)
            keyframe_sets[name] = replace(chosen, keyframes=keyframes)
    return keyframe_sets


def read_regions(output: Path | None) -> dict[str, list[Region]]:
    """The regions in an existing output, by `data.video` of their task; none if it cannot be read."""
    try:
        tasks = json.loads(output.read_text(encoding="utf-8")) if output else []
    except (OSError, ValueError):
        return {}
    regions: dict[str, list[Region]] = {}
    for task in tasks if isinstance(tasks, list) else []:
        match task:
            case {"data": {"video": str(video)}, "predictions": [{"result": result}, *_]}:
                regions.setdefault(video, []).extend(read_shapes(result))
    return regions


def _human_keyframes(target: Target, clock: FrameClock, size: tuple[int, int]) -> list[Keyframe]:
    """The box prompts, as keyframes set by a person."""
    keyframes = {}
    for source, prompt in sorted(target.prompts.items()):
        if prompt.box is not None:
            (row,) = boxes_to_percent(np.array([prompt.box]), *size).tolist()
            # With a variable frame rate, two pictures may share an LS frame, which shows the later one.
            frame = clock.first_frame(source)
            keyframes[frame] = Keyframe(frame, True, *row)
    return list(keyframes.values())


def _region(region_id: str, labels: Sequence[str], human: Sequence[Keyframe], info: VideoInfo) -> Region:
    return Region(
        id=region_id,
        from_name="box",
        to_name="video",
        labels=tuple(labels),
        keyframes=tuple(human),
        frames_count=round(info.duration * info.rate),
        duration=info.duration,
    )
