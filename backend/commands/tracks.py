"""`sam3-backend project tracks`: list and edit the tracks of an annotation; every edit can be undone."""

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backend.commands.arguments import (
    Subparsers,
    add_command,
    add_settings_options,
    load_settings,
    parse_span,
    suggest,
)
from backend.errors import BackendError, SettingsError
from backend.formats.timing import FrameTiming
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.videos import TaskVideos, frame_reader
from backend.settings import Settings
from backend.track_editor.annotation import FileTask, LabelStudioTask
from backend.track_editor.editor import NOTHING, VERSIONS, Editor, EditorState
from backend.track_editor.edits import Edit
from backend.track_editor.merge_suggestions import suggest_merges
from backend.track_editor.track_table import TrackRow
from backend.video import Video, VideoInfo

ACTIONS = {
    "list": "",
    "rename": "TRACKS LABEL",
    "renumber": "TRACKS NUMBER",
    "merge": "TRACKS",
    "split": "TRACK FRAME",
    "delete": "TRACKS",
    "undo": "",
}
"""Actions, and the words that follow each."""
_SPAN_ACTIONS = ("rename", "renumber", "delete")


@dataclass(frozen=True, slots=True)
class TracksOptions:
    """What to do.

    Attributes:
        file: JSON file of tasks; None: the task is in Label Studio.
        task: number of the task.
        action: one of `ACTIONS`.
        words: what follows the action.
        span: source frames to change; None: all.
        into: number that merged tracks get.
        read_video: open the video, so that frames are numbered as in the file.
    """

    file: Path | None
    task: int | None
    action: str
    words: tuple[str, ...] = ()
    span: range | None = None
    into: int | None = None
    read_video: bool = True


_DESCRIPTION = """
List or edit the tracks of a task's annotation: the ground truth, or else the annotation
submitted last, or else the newest prediction. ACTION is one of:

  list                     list the tracks
  rename TRACKS LABEL      change the class
  renumber TRACKS NUMBER   change the number
  merge TRACKS             make one track of several
  split TRACK FRAME        make two tracks, the second from FRAME on
  delete TRACKS            delete tracks
  undo                     undo the last edit

TRACKS are numbers (3,7), a class, or all. Frames count from 0. Edits are shown and must
be confirmed; the previous version is kept in data_dir.
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = add_command(
        subparsers,
        "tracks",
        _run,
        summary="list and edit tracks: rename, renumber, merge, split, delete, undo",
        usage="sam3-backend project tracks [FILE] [--task N] ACTION [...]",
        description=_DESCRIPTION,
        examples=(
            "sam3-backend project tracks --task 7 list",
            "sam3-backend project tracks tasks.json merge 1,3 --yes",
        ),
    )
    parser.add_argument("words", nargs="+", metavar="[FILE] ACTION [...]", help="FILE is a JSON file of tasks")
    parser.add_argument("--task", type=int, metavar="N", help="number of the task, in Label Studio or in FILE")
    parser.add_argument("--span", type=parse_span, metavar="A..B", help="change only these source frames, B excluded")
    parser.add_argument("--into", type=int, metavar="N", help="the track that merged tracks become part of")
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    parser.add_argument("--no-video", action="store_true", help="number frames as Label Studio does; open no video")
    add_settings_options(parser, "folder for previous versions and videos; use the one of serve")


def _run(options: argparse.Namespace) -> None:
    words = list(options.words)
    file = Path(words.pop(0)) if words[0] not in ACTIONS else None
    if not words or words[0] not in ACTIONS:
        unknown = words[0] if words else options.words[0]
        if hint := suggest(unknown, tuple(ACTIONS)):
            raise SettingsError(f"unknown action {unknown}: {hint}")
        raise SettingsError(f"no action given: use one of {', '.join(ACTIONS)}")
    if file is None and options.task is None:
        raise SettingsError("no task given: add --task N, or a JSON file of tasks before the action")
    tracks_options = TracksOptions(
        file, options.task, words[0], tuple(words[1:]), options.span, options.into, not options.no_video
    )
    run(load_settings(options, "data_dir"), tracks_options, (lambda: True) if options.yes else _confirm)


def _confirm() -> bool:
    """Ask the user to confirm."""
    if not sys.stdin.isatty():
        raise SettingsError("nothing changed: add --yes to apply the edit")
    return input("Apply? [y/N] ").strip().lower() in ("y", "yes")


def run(
    settings: Settings, options: TracksOptions, confirm: Callable[[], bool], say: Callable[[str], None] = print
) -> None:
    """List or edit tracks.

    Args:
        confirm: returns whether to apply the edit that was shown.
        say: prints a line.

    Raises:
        BackendError: the action failed and nothing was changed.
    """
    _check_options(options)
    client = LabelStudioClient.connect(settings) if options.file is None else None
    source = LabelStudioTask(client, options.task or 0) if client else FileTask(options.file or Path(), options.task)
    editor = Editor(source, settings.data_dir.expanduser() / VERSIONS)
    state = editor.read()
    with _open_video(settings, client, state, options, say) as video:
        timing = _timing(state, video)
        if options.action == "list":
            for line in _list_tracks(state, timing, video):
                say(line)
            return
    edit = None if options.action == "undo" else _parse_edit(options, timing)
    if edit:
        say("changes, in Label Studio's frame numbers:")
        for line in editor.preview(edit)[1].description:
            say(f"  {line}")
    elif state.undo:
        say(f"undo: {state.undo}")
    else:
        raise SettingsError(NOTHING)
    if not confirm():
        say("nothing changed")
        return
    state = editor.apply(edit, state.version) if edit else editor.undo(state.version)
    say(f"{state.annotation_name} changed" + ("" if options.file else ": reload the task's page to see it"))


def _check_options(options: TracksOptions) -> None:
    """Reject wrong arguments before anything is read."""
    form = ACTIONS[options.action]
    if len(options.words) != len(form.split()):
        raise SettingsError(f"write it as: {options.action} {form}".strip())
    if options.span and options.action not in _SPAN_ACTIONS:
        raise SettingsError(f"--span works only with {', '.join(_SPAN_ACTIONS)}")
    if options.into is not None and options.action != "merge":
        raise SettingsError("--into works only with merge")


@contextmanager
def _open_video(
    settings: Settings,
    client: LabelStudioClient | None,
    state: EditorState,
    options: TracksOptions,
    say: Callable[[str], None],
) -> Iterator[Video | None]:
    """The task's video if it can be read: downloaded for a task of Label Studio, a local file for a file of tasks."""
    url = state.chosen.url(state.table.controls)
    with ExitStack() as opened:
        video, reason = None, "--no-video"
        if options.read_video and (client or options.action != "undo"):
            try:
                videos = TaskVideos(settings)
                video = opened.enter_context(videos.open(url, client) if client else videos.local(url))
            except BackendError as error:
                reason = str(error)
        if video is None and options.action != "undo":
            say(f"frames are Label Studio's frame numbers less one, because the video is not read ({reason})")
        yield video


def _timing(state: EditorState, video: Video | None) -> FrameTiming:
    if video:
        return FrameTiming.from_video(VideoInfo.from_video(video), state.table.rate)
    return FrameTiming.from_counts(state.table.length, state.table.rate)


def _parse_edit(options: TracksOptions, timing: FrameTiming) -> Edit:
    """The edit, in LS frames.

    Raises:
        SettingsError: a number is not a number, or a frame is outside the video.
    """
    first = options.words[0]
    numbers = first.split(",")
    tracks = frozenset(map(int, numbers)) if all(number.strip().isdecimal() for number in numbers) else first
    frames = None
    if options.span:
        frames = _ls_frame(options.span.start, timing), _ls_frame(options.span.stop, timing) - 1
    match options.action, options.words[1:]:
        case "rename", (label,):
            return Edit("rename", tracks, frames, label=label)
        case "renumber", (number,):
            return Edit("renumber", tracks, frames, to=_parse_number(number))
        case "merge", ():
            return Edit("merge", tracks, to=options.into)
        case "split", (frame,):
            return Edit("split", tracks, at=_ls_frame(_parse_number(frame), timing))
        case _:
            return Edit("delete", tracks, frames)


def _parse_number(text: str) -> int:
    if not text.isdecimal():
        raise SettingsError(f"{text} is not a number")
    return int(text)


def _ls_frame(frame: int, timing: FrameTiming) -> int:
    """The first LS frame that shows this source frame or a later one; the end of a span may be the video's length."""
    if frame > timing.length:
        raise SettingsError(f"there is no frame {frame}: the video has frames 0 to {timing.length - 1}")
    return timing.last + 1 if frame == timing.length else math.ceil(float(timing.ls_frames[frame]))


def _list_tracks(state: EditorState, timing: FrameTiming, video: Video | None) -> Iterator[str]:
    """One line per track, and one per pair that may be the same object."""
    author = f" ({state.author})" if state.author else ""
    count = len(state.table.rows)
    yield f"task {state.chosen.number}, {state.annotation_name}{author}: {count} tracks on {timing.length} frames"
    rows = [("track", "class", "score", "frames", "where")]
    for track in state.table.rows:
        score = "" if track.region.score is None else f"{track.region.score:.2f}"
        spans = _source_spans(track, timing)
        count = sum(stop - first for first, stop in spans)
        places = ", ".join(f"{first}..{stop}" for first, stop in spans)
        rows.append((str(track.number), track.label, score, str(count), places))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows if len(rows) > 1 else ():
        number, label, score, frames, where = row
        line = f"{number:>{widths[0]}}  {label:<{widths[1]}}  {score:>{widths[2]}}  {frames:>{widths[3]}}  {where}"
        yield line.rstrip()
    read = frame_reader(video, state.table.rate) if video else None
    for suggestion in suggest_merges(state.table, read):
        a, b = suggestion.tracks
        yield f"{a} and {b} may be the same object: {suggestion}. If so: merge {a},{b}"


def _source_spans(track: TrackRow, timing: FrameTiming) -> list[tuple[int, int]]:
    """Half-open spans of source frames in which the track is visible."""
    ends = np.minimum(np.array(track.spans).ravel(), timing.last)
    return [(first, last + 1) for first, last in timing.frames(ends).reshape(-1, 2).tolist()]
