"""`sam3-backend track`: prompts to tracks without Label Studio, into a file that it imports and a video to look at."""

import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from backend import engines, overlay
from backend.engines.base import Engine
from backend.errors import BadRequest, SettingsError
from backend.jobs.propagation import Propagation, stretches_between
from backend.labelstudio import regions, segments, sequence
from backend.labelstudio.clock import Clock
from backend.labelstudio.regions import Region
from backend.labelstudio.sequence import Item
from backend.prompts import Target
from backend.settings import Settings
from backend.tracks import Track
from backend.video import Video, VideoLimits, write_video


def run(
    path: Path,
    targets: Mapping[str, Target],
    settings: Settings,
    *,
    span: range | None,
    url: str | None,
    output: Path | None,
    drawn: Path | None,
) -> None:
    """Track every target and write what came of it.

    Args:
        path: the video.
        targets: by the track's name.
        span: source frames that are not left; None: the whole video.
        url: what the task's `data.video` gets; None: the path.
        output: the JSON file of tasks with predictions; None: standard output.
        drawn: an mp4 with the boxes drawn in; None: none.

    Raises:
        BackendError: the video cannot be decoded, or a prompt is not for this video or engine.
    """
    _check(path, output, drawn)
    engine = engines.load(settings.engine)
    with Video(path, VideoLimits(settings.limits.pixels, settings.limits.frames)) as video:
        tracks = _tracks(video, targets, settings, engine, span)
        task = _task(video, targets, tracks, settings, engine, url or str(path))
        text = json.dumps([task], indent=1, ensure_ascii=False)
        if output:
            output.write_text(text + "\n", encoding="utf-8")
        else:
            print(text)
        if drawn:
            write_video(drawn, overlay.draw(video, tracks), video.rate)


def _check(path: Path, *outputs: Path | None) -> None:
    """Say what is wrong with the files before anything is computed."""
    if not path.is_file():
        raise SettingsError(f"there is no file {path.name}: give the path of a video")
    for output in outputs:
        if output and (output.is_dir() or not os.access(output.absolute().parent, os.W_OK)):
            raise SettingsError(f"{output.name} cannot be written: give a file in a folder that is there")


def _tracks(
    video: Video, targets: Mapping[str, Target], settings: Settings, engine: Engine, span: range | None
) -> dict[str, Track]:
    span = range(len(video))[span.start : span.stop] if span else range(len(video))
    propagations = {}
    for name, target in targets.items():
        if outside := [frame for frame in target.prompts if frame not in span]:
            raise BadRequest(f"the prompt on frame {outside[0]} lies outside the span {span.start}..{span.stop}")
        stretches = stretches_between(sorted(target.prompts), settings.direction)
        propagations[name] = Propagation(len(video), stretches, settings.max_frames, span)
    with tqdm(total=sum(one.total for one in propagations.values()), unit="frame") as bar:

        def cancelled() -> bool:
            bar.update(sum(one.done for one in propagations.values()) - bar.n)
            return False

        for name, propagation in propagations.items():
            propagation.run(engine, video, list(targets[name].prompts.values()), cancelled)
        cancelled()
    return {name: propagation.track() for name, propagation in propagations.items()}


def _task(
    video: Video,
    targets: Mapping[str, Target],
    tracks: Mapping[str, Track],
    settings: Settings,
    engine: Engine,
    url: str,
) -> dict[str, Any]:
    clock = Clock(video.times, video.end, video.rate)
    result = []
    for number, (name, target) in enumerate(targets.items(), start=1):
        track, humans = tracks[name], _humans(target, clock, video)
        size, bound = (video.width, video.height), settings.keyframes.iou
        boxes = partial(segments.sampled, boxes=track.boxes, clock=clock, size=size, length=clock.length)
        ours = segments.keyframes(segments.between(humans), boxes, bound)
        if not humans and not ours:
            continue
        result.extend(
            regions.answer(
                _region(name, humans, video),
                [*humans, *ours],
                framerate=video.rate,
                labels=[target.label] if target.label else [],
                track_id=number,
                engine=engine.name,
                score=float(np.nanmean(track.scores)) if not np.isnan(track.scores).all() else None,
            )
        )
    scores = [region["score"] for region in result if "score" in region]
    prediction = {
        "model_version": f"{engine.name}-{engine.version}",
        "score": float(np.mean(scores or 0)),
        "result": result,
    }
    return {"data": {"video": url, "fps": video.rate}, "predictions": [prediction]}


def _humans(target: Target, clock: Clock, video: Video) -> Sequence[Item]:
    """The boxes that were given, as the person's own keyframes."""
    items = {}
    for source, prompt in sorted(target.prompts.items()):
        if prompt.box is not None:
            (row,) = sequence.percent(np.array([prompt.box]), video.width, video.height).tolist()
            # With a variable frame rate two pictures may share an LS frame, which shows the later one.
            frame = clock.frame(source)
            items[frame] = Item(frame, True, *row)
    return list(items.values())


def _region(name: str, humans: Sequence[Item], video: Video) -> Region:
    return Region(
        id=name,
        from_name="box",
        to_name="video",
        labels=(),
        items=tuple(humans),
        frames_count=round(video.duration * video.rate),
        duration=video.duration,
    )
