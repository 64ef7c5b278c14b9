"""`sam3-backend track`: track objects in a file, and write tasks for Label Studio and a video of the tracks."""

import argparse
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
from backend.commands.arguments import (
    Subparsers,
    add_command,
    add_config_option,
    add_model_options,
    load_settings,
    parse_span,
)
from backend.commands.console import format_count, print_message
from backend.commands.track_prompts import add_prompt_options, parse_prompts
from backend.engines.base import Engine
from backend.errors import BadRequest, SettingsError
from backend.formats.mask_sidecar import sidecar_path, write_sidecar
from backend.jobs.propagation import PropagationRun
from backend.jobs.schedule import intervals_between
from backend.labelstudio.keyframe import Keyframe, boxes_to_percent
from backend.labelstudio.keyframes import KeyframeSet, choose_keyframes, sample_track
from backend.labelstudio.region import Region, new_region_id
from backend.labelstudio.region_results import build_region, format_prediction, format_region
from backend.labelstudio.segments import segments_between
from backend.labelstudio.track_ids import TrackShape, assign_identities, read_shapes
from backend.settings import Settings
from backend.tracks.overlay import CaptionedTrack, draw_tracks
from backend.tracks.prompts import LIKE, Phrase, Target, TextSearch
from backend.tracks.track import Track
from backend.video import Video, VideoLimits, write_video
from backend.video.frame_clock import FrameClock

_DESCRIPTION = """
Track objects in a video file, without Label Studio. The result is a JSON file of tasks
that Label Studio can import, and optionally a video with the tracks drawn in.

--track and --label apply to the prompts that follow them.
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = add_command(
        subparsers,
        "track",
        _run,
        summary="track objects in a file, without Label Studio",
        description=_DESCRIPTION,
        examples=(
            "sam3-backend track clip.mp4 --label Car --box 20,60,40,40@0 -o tasks.json --overlay out.mp4",
            'sam3-backend track clip.mp4 --text "red car, person" --span 0..250 -o tasks.json',
        ),
    )
    parser.add_argument("video", type=Path, metavar="VIDEO", help="the video file")
    add_prompt_options(parser)
    parser.add_argument("--span", type=parse_span, metavar="A..B", help="source frames to track in, B excluded")
    directions = ("forward", "backward", "both")
    parser.add_argument("--direction", choices=directions, help="direction to track in from the prompts")
    add_model_options(parser)
    add_config_option(parser)
    parser.add_argument("--video-url", metavar="URL", help="value of data.video in the tasks (default: the path)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="tasks.json", help="file for the tasks (default: standard output)"
    )
    parser.add_argument("--overlay", type=Path, metavar="out.mp4", help="also write a video with the tracks drawn in")


def _run(options: argparse.Namespace) -> None:
    targets, searches = parse_prompts(options.prompts, options.track)
    run(
        options.video,
        targets,
        searches,
        load_settings(options, "engine", "model_path", "device", "direction"),
        span=options.span,
        url=options.video_url,
        output=options.output,
        overlay=options.overlay,
    )


def run(
    path: Path,
    targets: Mapping[str, Target],
    searches: Sequence[TextSearch],
    settings: Settings,
    *,
    span: range | None,
    url: str | None,
    output: Path | None,
    overlay: Path | None,
) -> None:
    """Track all targets and all objects that the searches find, and write the result.

    With `show_masks`, masks are written to a file next to the output (see `backend.formats.mask_sidecar`).

    Args:
        path: the video.
        targets: by name of the track.
        searches: kinds to search for, each once.
        span: source frames to track in; None: the whole video.
        url: value of `data.video` in the task; None: the path.
        output: JSON file of tasks with predictions; None: standard output. If the file exists and is of this video,
            its objects keep their ids and numbers.
        overlay: video file with the tracks drawn in; None: write none.

    Raises:
        BackendError: the video cannot be decoded, or a prompt does not fit the video or the engine.
    """
    _check_files(path, output, overlay)
    settings = replace(settings, show_masks=settings.show_masks and (output or overlay) is not None)
    with Video(path, VideoLimits.from_settings(settings)) as video:
        propagation = _propagation(video, targets, searches, settings, span)
        # Loaded after the prompts are checked, because a model that loads in the background is hard to stop.
        engine = engines.load_engine(settings)
        _propagate(propagation, engine, video, settings.show_masks)
        tracks = propagation.tracks()
        labels = _labels(tracks, targets, searches, propagation.track_phrases)
        url = url or str(path)
        task, ids = _task(
            video, tracks, targets, labels, settings, engine, propagation, url, _read_regions(output, url)
        )
        text = json.dumps([task], indent=1, ensure_ascii=False)
        if output:
            output.write_text(text + "\n", encoding="utf-8")
            # Otherwise the masks of an earlier run would be taken for this one's.
            sidecar_path(output).unlink(missing_ok=True)
            if settings.show_masks:
                write_sidecar(output, {region: tracks[name].masks for name, region in ids.items()})
        else:
            print(text)
        _print_summary(tracks, ids, labels, propagation, len(video))
        if video.damage:
            print_message(video.damage)
        if overlay:
            captioned = [
                CaptionedTrack(number, f"{name} {labels[name] or ''}".rstrip(), tracks[name])
                for number, name in enumerate(ids, 1)
            ]
            write_video(overlay, draw_tracks(video.frames(range(len(video))), captioned), video.rate)


def _check_files(path: Path, *outputs: Path | None) -> None:
    """Reject bad paths before anything is computed."""
    if not path.is_file():
        raise SettingsError(f"there is no file {path.name}: give the path of a video")
    for output in outputs:
        if output and (output.is_dir() or not os.access(output.absolute().parent, os.W_OK)):
            raise SettingsError(f"{output.name} cannot be written: choose a file in an existing folder")


def _propagation(
    video: Video, targets: Mapping[str, Target], searches: Sequence[TextSearch], settings: Settings, span: range | None
) -> PropagationRun:
    """The propagation of all prompts.

    Raises:
        BadRequest: the span is outside the video, or a prompt is outside the span.
    """
    frames = range(len(video))[span.start : span.stop] if span else range(len(video))
    if span and not frames:
        raise BadRequest(f"the span {span.start}..{span.stop} is outside the video, which has {len(video)} frames")
    phrases = _phrases(searches, frames, settings)
    prompted = [frame for target in targets.values() for frame in target.prompts]
    prompted += [phrase.frame for phrase in phrases]
    if outside := [frame for frame in prompted if frame not in frames]:
        raise BadRequest(f"the prompt on frame {outside[0]} is outside the span {frames.start}..{frames.stop}")
    return PropagationRun(
        len(video),
        {name: intervals_between(sorted(target.prompts), settings.direction) for name, target in targets.items()},
        [prompt for target in targets.values() for prompt in target.prompts.values()],
        phrases,
        settings.direction,
        max_frames=settings.max_frames,
        span=frames,
    )


def _propagate(propagation: PropagationRun, engine: Engine, video: Video, masks: bool) -> None:
    if engine.status != "ready":
        print_message(f"the model is {engine.status}")
    for _ in tqdm(propagation.run(engine, video, masks), total=propagation.total, unit="frame"):
        pass


def _print_summary(
    tracks: Mapping[str, Track],
    ids: Iterable[str],
    labels: Mapping[str, str | None],
    propagation: PropagationRun,
    length: int,
) -> None:
    """Print how much of each track there is; `ids` are the tracks that were written."""
    written = list(ids)
    print_message(f"{format_count(len(written), 'track')}, {format_count(length, 'frame')}")
    for number, name in enumerate(written, start=1):
        boxes, _ = tracks[name].at(np.arange(length))
        is_seen, is_processed = ~np.isnan(boxes[:, 0]), propagation.processed_frames(name)
        line = f"{labels[name] or f'object {number}'}: {int(is_seen.sum())} of {int(is_processed.sum())} frames"
        absent = np.flatnonzero(is_processed & ~is_seen)
        later = absent[absent > np.argmax(is_seen)]
        print_message(f"{line}, lost on frame {later[0]}" if later.size else line)


def _labels(
    tracks: Iterable[str], targets: Mapping[str, Target], searches: Sequence[TextSearch], phrases: Mapping[str, str]
) -> dict[str, str | None]:
    """Classes by track; prints the phrases that found nothing.

    Args:
        phrases: by track, for those that a phrase found.
    """
    classes = {search.name: search.label or search.text or LIKE for search in searches}
    matched = {phrases[name] for name in tracks if name in phrases}
    reason = ", or another phrase fits it better" if len(classes) > 1 else ""
    for text in classes:
        if text not in matched:
            print_message(f"nothing found for {text}{reason}")
    return {name: classes[phrases[name]] if name in phrases else targets[name].label for name in tracks}


def _phrases(searches: Sequence[TextSearch], span: range, settings: Settings) -> list[Phrase]:
    start = span.stop - 1 if settings.direction == "backward" else span.start
    return [phrase for search in searches for phrase in search.phrases(start)]


def _task(
    video: Video,
    tracks: Mapping[str, Track],
    targets: Mapping[str, Target],
    labels: Mapping[str, str | None],
    settings: Settings,
    engine: Engine,
    propagation: PropagationRun,
    url: str,
    before: Sequence[Region],
) -> tuple[dict[str, Any], dict[str, str]]:
    """The task to import, and the ids of its regions by track.

    Args:
        targets: by the id of their region.
        propagation: the finished propagation.
        before: regions of an earlier run. Other objects get a new number, and those that a phrase found a new id.
    """
    clock = FrameClock(video.times, video.end, video.rate)
    if hidden := clock.describe_hidden():
        print_message(hidden)
    human = {name: _human_keyframes(target, clock, video) for name, target in targets.items()}
    keyframe_sets = _choose_keyframe_sets(video, clock, tracks, targets, human, settings, propagation)
    result, ids = list[dict[str, Any]](), dict[str, str]()
    classes = {name: [label] if (label := labels[name]) else [] for name in keyframe_sets}
    shapes = {name: TrackShape(chosen.keyframes, frozenset(classes[name])) for name, chosen in keyframe_sets.items()}
    known = assign_identities(shapes, [before])
    for name, chosen in keyframe_sets.items():
        track, same = tracks[name], known[name].id
        ids[name] = name if name in human else same if same and same not in human else new_region_id()
        region = build_region(
            _region(ids[name], classes[name], human.get(name, []), video),
            chosen,
            track_id=known[name].number,
            engine=engine.name,
            score=float(np.nanmean(track.scores)) if len(track.scores) else None,
        )
        result += format_region(region, video.rate)
    prediction = format_prediction(result, f"{engine.name}-{engine.version}")
    return {"data": {"video": url, "fps": video.rate}, "predictions": [prediction]}, ids


def _choose_keyframe_sets(
    video: Video,
    clock: FrameClock,
    tracks: Mapping[str, Track],
    targets: Mapping[str, Target],
    human: Mapping[str, list[Keyframe]],
    settings: Settings,
    propagation: PropagationRun,
) -> dict[str, KeyframeSet]:
    """The keyframes of each track that has some, with those set by a person."""
    size, keyframe_sets = (video.width, video.height), {}
    for name, track in tracks.items():
        processed, fixed = propagation.processed_frames(name), human.get(name, [])
        sample = partial(sample_track, track=track, looked=processed, clock=clock, size=size, length=clock.length)
        prompted = [clock.first_frame(source) for source in targets[name].prompts] if name in targets else []
        chosen = choose_keyframes(segments_between(fixed), sample, settings, size, prompted)
        if fixed or chosen.keyframes:
            keyframes = sorted([*fixed, *chosen.keyframes], key=lambda keyframe: keyframe.frame)
            keyframe_sets[name] = replace(chosen, keyframes=keyframes)
    return keyframe_sets


def _read_regions(output: Path | None, url: str) -> list[Region]:
    """The regions of this video in an existing output; none if it is of another video or cannot be read."""
    try:
        tasks = json.loads(output.read_text(encoding="utf-8")) if output else []
    except (OSError, ValueError):
        return []
    regions = []
    for task in tasks if isinstance(tasks, list) else []:
        match task:
            case {"data": {"video": video}, "predictions": [{"result": result}, *_]} if video == url:
                regions += read_shapes(result)
    return regions


def _human_keyframes(target: Target, clock: FrameClock, video: Video) -> list[Keyframe]:
    """The box prompts, as keyframes set by a person."""
    keyframes = {}
    for source, prompt in sorted(target.prompts.items()):
        if prompt.box is not None:
            (row,) = boxes_to_percent(np.array([prompt.box]), video.width, video.height).tolist()
            # With a variable frame rate, two pictures may share an LS frame, which shows the later one.
            frame = clock.first_frame(source)
            keyframes[frame] = Keyframe(frame, True, *row)
    return list(keyframes.values())


def _region(region_id: str, labels: Sequence[str], human: Sequence[Keyframe], video: Video) -> Region:
    return Region(
        id=region_id,
        from_name="box",
        to_name="video",
        labels=tuple(labels),
        keyframes=tuple(human),
        frames_count=round(video.duration * video.rate),
        duration=video.duration,
    )
