"""`sam3-backend track`: track objects in a file, and write tasks for Label Studio and a video of the tracks."""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from backend import engines
from backend.commands import track_files
from backend.commands.arguments import (
    Subparsers,
    add_command,
    add_model_options,
    add_settings_options,
    add_workers_option,
    load_settings,
    parse_span,
)
from backend.commands.console import format_count, print_message
from backend.commands.track_prompts import add_prompt_options, parse_prompts
from backend.commands.track_task import (
    TrackedVideo,
    build_task,
    check_outputs,
    classes_of,
    crop_span,
    label_tracks,
    read_regions,
    write_tasks,
)
from backend.engines.base import FAILED_PREFIX, Engine, watch_status
from backend.errors import BadRequest, SettingsError
from backend.jobs.propagation import PropagationRun
from backend.jobs.schedule import intervals_between
from backend.settings import Settings
from backend.tracks.overlay import CaptionedTrack, draw_tracks
from backend.tracks.prompts import Phrase, Target, TextSearch
from backend.video import Video, VideoInfo, VideoLimits, write_video

_POLL_SECONDS = 0.5
"""Interval at which the status of a loading model is checked."""
_DESCRIPTION = """
Track objects in a video file, without Label Studio. The result is a JSON file of tasks
that Label Studio can import, and optionally a video with the tracks drawn in.

--track and --label apply to the prompts that follow them. Several videos are jobs for
all workers; if the command is interrupted, run it again to continue.
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
            'sam3-backend track videos/*.mp4 --text "red car, person" -o tasks.json',
        ),
    )
    parser.add_argument(
        "videos", type=Path, metavar="VIDEO", nargs="+", help="the video file; several are searched by --text"
    )
    add_prompt_options(parser)
    parser.add_argument("--span", type=parse_span, metavar="A..B", help="source frames to track in, B excluded")
    directions = ("forward", "backward", "both")
    parser.add_argument("--direction", choices=directions, help="direction to track in from the prompts")
    add_model_options(parser)
    add_workers_option(parser, "of several videos, ")
    add_settings_options(parser, "of several videos, folder for the jobs, which go on after an interruption")
    parser.add_argument("--video-url", metavar="URL", help="value of data.video in the task (default: the path)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="tasks.json", help="file for the tasks (default: standard output)"
    )
    parser.add_argument("--overlay", type=Path, metavar="out.mp4", help="also write a video with the tracks drawn in")


def _run(options: argparse.Namespace) -> None:
    targets, searches = parse_prompts(options.prompts, options.track)
    settings = load_settings(options, "engine", "model_path", "device", "direction", "workers", "data_dir")
    if len(options.videos) > 1:
        if targets or options.video_url or options.overlay or any(search.exemplars for search in searches):
            raise SettingsError("several videos are searched by --text alone: give one video for the other options")
        track_files.run(options.videos, searches, settings, span=options.span, output=options.output)
        return
    run(
        options.videos[0],
        targets,
        searches,
        settings,
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
    if not path.is_file():
        raise SettingsError(f"there is no file {path.name}: give the path of a video")
    check_outputs(output, overlay)
    settings = replace(settings, show_masks=settings.show_masks and (output or overlay) is not None)
    with Video(path, VideoLimits.from_settings(settings)) as video:
        propagation = _propagation(video, targets, searches, settings, span)
        # Loaded after the prompts are checked, because a model that loads in the background is hard to stop.
        engine = engines.load_engine(settings)
        _propagate(propagation, engine, video, settings.show_masks)
        labels = label_tracks(propagation, targets, searches)
        tracked = TrackedVideo(
            url or str(path), VideoInfo.from_video(video), propagation, propagation.tracks(), labels, targets
        )
        _print_missing(tracked, searches)
        if hidden := tracked.clock.describe_hidden():
            print_message(hidden)
        task, ids = build_task(
            tracked, settings, (engine.name, engine.version), read_regions(output).get(tracked.url, [])
        )
        masks = {region: tracked.tracks[name].masks for name, region in ids.items()} if settings.show_masks else None
        write_tasks(output, [json.dumps(task, indent=1, ensure_ascii=False)], masks)
        _print_summary(tracked, ids)
        if overlay:
            captioned = [
                CaptionedTrack(number, f"{name} {labels[name] or ''}".rstrip(), tracked.tracks[name])
                for number, name in enumerate(ids, 1)
            ]
            write_video(overlay, draw_tracks(video.frames(range(len(video))), captioned), video.rate)


def _propagation(
    video: Video, targets: Mapping[str, Target], searches: Sequence[TextSearch], settings: Settings, span: range | None
) -> PropagationRun:
    """The propagation of all prompts.

    Raises:
        BadRequest: the span is outside the video, or a prompt is outside the span.
    """
    frames = crop_span(span, len(video))
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
    for status in watch_status(engine, _POLL_SECONDS):
        if not (status == "ready" or status.startswith(FAILED_PREFIX)):  # the run raises what failed
            print_message(f"the model is {status}")
    for _ in tqdm(propagation.run(engine, video, masks), total=propagation.total, unit="frame"):
        pass


def _print_summary(video: TrackedVideo, written: Iterable[str]) -> None:
    """Print how much of each track there is; `written` are the tracks that were written."""
    names, length = list(written), len(video.info.times)
    print_message(f"{format_count(len(names), 'track')}, {format_count(length, 'frame')}")
    for number, name in enumerate(names, start=1):
        boxes, _ = video.tracks[name].at(np.arange(length))
        is_seen, is_processed = ~np.isnan(boxes[:, 0]), video.propagation.processed_frames(name)
        line = f"{video.labels[name] or f'object {number}'}: {int(is_seen.sum())} of {int(is_processed.sum())} frames"
        absent = np.flatnonzero(is_processed & ~is_seen)
        later = absent[absent > np.argmax(is_seen)]
        print_message(f"{line}, lost on frame {later[0]}" if later.size else line)
    if video.info.damage:
        print_message(video.info.damage)


def _print_missing(video: TrackedVideo, searches: Sequence[TextSearch]) -> None:
    """Print the phrases that found nothing."""
    classes, phrases = classes_of(searches), video.propagation.track_phrases
    found = {phrases.get(name) for name in video.tracks}
    reason = ", or another phrase fits it better" if len(classes) > 1 else ""
    for text in classes:
        if text not in found:
            print_message(f"nothing found for {text}{reason}")


def _phrases(searches: Sequence[TextSearch], span: range, settings: Settings) -> list[Phrase]:
    start = span.stop - 1 if settings.direction == "backward" else span.start
    return [phrase for search in searches for phrase in search.phrases(start)]
