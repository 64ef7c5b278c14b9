"""`sam3-backend track`: prompts to tracks without Label Studio, into a file that it imports and a video to look at."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from backend import engines
from backend.commands.console import tell
from backend.engines.base import Engine
from backend.errors import BadRequest, SettingsError
from backend.formats.mask_sidecar import sidecar_path, write_sidecar
from backend.jobs.propagation import PropagationRun
from backend.jobs.schedule import intervals_between
from backend.labelstudio.keyframe import Keyframe, boxes_to_percent
from backend.labelstudio.keyframes import KeyframeSet, choose_keyframes, sample_track
from backend.labelstudio.region import Region, build_results, new_region_id
from backend.labelstudio.segments import segments_between
from backend.labelstudio.track_ids import TrackShape, assign_identities, read_shapes
from backend.settings import Settings
from backend.tracks import overlay
from backend.tracks.prompts import Phrase, Target, TextSearch
from backend.tracks.track import Track
from backend.video import Video, VideoLimits, write_video
from backend.video.frame_clock import FrameClock


def run(
    path: Path,
    targets: Mapping[str, Target],
    searches: Sequence[TextSearch],
    settings: Settings,
    *,
    span: range | None,
    url: str | None,
    output: Path | None,
    drawn: Path | None,
) -> None:
    """Track every target, and everything that answers to the words, and write what came of it.

    With `show_masks` the masks lie beside the output, as `backend.formats.mask_sidecar` has them.

    Args:
        path: the video.
        targets: by the track's name.
        searches: what to find by words; no two with the same.
        span: source frames that are not left; None: the whole video.
        url: what the task's `data.video` gets; None: the path.
        output: the JSON file of tasks with predictions; None: standard output. Where it is there and of this video,
            objects that it has keep their ids and numbers.
        drawn: an mp4 with the tracks drawn in; None: none.

    Raises:
        BackendError: the video cannot be decoded, or a prompt is not for this video or engine.
    """
    _check(path, output, drawn)
    settings = replace(settings, show_masks=settings.show_masks and (output or drawn) is not None)
    with Video(path, VideoLimits.from_settings(settings)) as video:
        propagations = _propagations(video, targets, searches, settings, span)
        # No sooner: a model that loads in the background is not easily stopped where a prompt is refused.
        engine = engines.load_engine(settings)
        _propagate(propagations, engine, video, settings.show_masks)
        tracks = propagations.tracks()
        labels = _labels(tracks, targets, searches, propagations.track_phrases)
        url = url or str(path)
        task, ids = _task(video, tracks, targets, labels, settings, engine, propagations, url, _before(output, url))
        text = json.dumps([task], indent=1, ensure_ascii=False)
        if output:
            output.write_text(text + "\n", encoding="utf-8")
            # Those of an earlier run would be taken for this one's.
            sidecar_path(output).unlink(missing_ok=True)
            if settings.show_masks:
                write_sidecar(output, {region: tracks[name].masks for name, region in ids.items()})
        else:
            print(text)
        if drawn:
            pictures = overlay.draw_tracks(video.frames(range(len(video))), {name: tracks[name] for name in ids})
            write_video(drawn, pictures, video.rate)


def _check(path: Path, *outputs: Path | None) -> None:
    """Say what is wrong with the files before anything is computed."""
    if not path.is_file():
        raise SettingsError(f"there is no file {path.name}: give the path of a video")
    for output in outputs:
        if output and (output.is_dir() or not os.access(output.absolute().parent, os.W_OK)):
            raise SettingsError(f"{output.name} cannot be written: give a file in a folder that is there")


def _propagations(
    video: Video, targets: Mapping[str, Target], searches: Sequence[TextSearch], settings: Settings, span: range | None
) -> PropagationRun:
    """What is to be done.

    Raises:
        BadRequest: the span lies outside the video, or a prompt outside the span.
    """
    part = range(len(video))[span.start : span.stop] if span else range(len(video))
    if span and not part:
        raise BadRequest(f"the span {span.start}..{span.stop} lies outside the video of {len(video)} frames")
    phrases = _phrases(searches, part, settings)
    frames = [frame for target in targets.values() for frame in target.prompts] + [one.frame for one in phrases]
    if outside := [frame for frame in frames if frame not in part]:
        raise BadRequest(f"the prompt on frame {outside[0]} lies outside the span {part.start}..{part.stop}")
    return PropagationRun(
        len(video),
        {name: intervals_between(sorted(target.prompts), settings.direction) for name, target in targets.items()},
        [prompt for target in targets.values() for prompt in target.prompts.values()],
        phrases,
        settings.direction,
        max_frames=settings.max_frames,
        span=part,
    )


def _propagate(propagations: PropagationRun, engine: Engine, video: Video, masks: bool) -> None:
    if engine.status != "ready":
        tell(f"the model is {engine.status}")
    for _ in tqdm(propagations.run(engine, video, masks), total=propagations.total, unit="frame"):
        pass


def _labels(
    tracks: Iterable[str], targets: Mapping[str, Target], searches: Sequence[TextSearch], found: Mapping[str, str]
) -> dict[str, str | None]:
    """Classes by track; words that found none are told."""
    classes = {one.text: one.label or one.text for one in searches}
    answered = {found[name] for name in tracks if name in found}
    better = ", or other words name it better" if len(classes) > 1 else ""
    for missing in (text for text in classes if text not in answered):
        tell(f"nothing answers to {missing}{better}")
    return {name: classes[found[name]] if name in found else targets[name].label for name in tracks}


def _phrases(searches: Sequence[TextSearch], span: range, settings: Settings) -> list[Phrase]:
    start = span.stop - 1 if settings.direction == "backward" else span.start
    return [Phrase(one.text, start if one.frame is None else one.frame) for one in searches]


def _task(
    video: Video,
    tracks: Mapping[str, Track],
    targets: Mapping[str, Target],
    labels: Mapping[str, str | None],
    settings: Settings,
    engine: Engine,
    propagations: PropagationRun,
    url: str,
    before: Sequence[Region],
) -> tuple[dict[str, Any], dict[str, str]]:
    """The task to import, and the ids of its regions by track.

    Args:
        targets: what was given, by the id of its region.
        propagations: what was done.
        before: the regions of an earlier run; what is not among them gets a new number, and what words found a new id.
    """
    clock = FrameClock(video.times, video.end, video.rate)
    humans = {name: _humans(target, clock, video) for name, target in targets.items()}
    size = (video.width, video.height)
    made, result, ids = dict[str, KeyframeSet](), [], {}
    for name, track in tracks.items():
        looked = propagations.processed_frames(name)
        seen = partial(sample_track, track=track, looked=looked, clock=clock, size=size, length=clock.length)
        given = humans.get(name, [])
        prompted = [clock.first_frame(source) for source in targets[name].prompts] if name in targets else []
        ours = choose_keyframes(segments_between(given), seen, settings, size, prompted)
        if given or ours.keyframes:
            made[name] = replace(ours, keyframes=sorted([*given, *ours.keyframes], key=lambda item: item.frame))
    classes = {name: [label] if (label := labels[name]) else [] for name in made}
    sights = {name: TrackShape(one.keyframes, frozenset(classes[name])) for name, one in made.items()}
    known = assign_identities(sights, [before])
    for name, one in made.items():
        track, same = tracks[name], known[name].id
        ids[name] = name if name in humans else same if same and same not in humans else new_region_id()
        result.extend(
            build_results(
                _region(ids[name], classes[name], humans.get(name, []), video),
                one.keyframes,
                framerate=video.rate,
                labels=classes[name],
                track_id=known[name].number,
                engine=engine.name,
                score=float(np.nanmean(track.scores)) if len(track.scores) else None,
                iou=one.iou,
            )
        )
    scores = [region["score"] for region in result if "score" in region]
    prediction = {
        "model_version": f"{engine.name}-{engine.version}",
        "score": float(np.mean(scores or 0)),
        "result": result,
    }
    return {"data": {"video": url, "fps": video.rate}, "predictions": [prediction]}, ids


def _before(output: Path | None, url: str) -> list[Region]:
    """The tracks that the file has of this video; nothing where it is of another, or cannot be read."""
    try:
        tasks = json.loads(output.read_text(encoding="utf-8")) if output else []
    except (OSError, ValueError):
        return []
    found = []
    for task in tasks if isinstance(tasks, list) else []:
        match task:
            case {"data": {"video": video}, "predictions": [{"result": result}, *_]} if video == url:
                found += read_shapes(result)
    return found


def _humans(target: Target, clock: FrameClock, video: Video) -> list[Keyframe]:
    """The boxes that were given, as the person's own keyframes."""
    items = {}
    for source, prompt in sorted(target.prompts.items()):
        if prompt.box is not None:
            (row,) = boxes_to_percent(np.array([prompt.box]), video.width, video.height).tolist()
            # With a variable frame rate two pictures may share an LS frame, which shows the later one.
            frame = clock.first_frame(source)
            items[frame] = Keyframe(frame, True, *row)
    return list(items.values())


def _region(region_id: str, labels: Sequence[str], humans: Sequence[Keyframe], video: Video) -> Region:
    return Region(
        id=region_id,
        from_name="box",
        to_name="video",
        labels=tuple(labels),
        keyframes=tuple(humans),
        frames_count=round(video.duration * video.rate),
        duration=video.duration,
    )
