"""`sam3-backend project tracks`: the tracks of one annotation listed, and changed in ways that can be taken back."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backend.errors import BackendError, SettingsError
from backend.formats.timing import FrameTiming
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.videos import TaskVideos, frame_reader
from backend.settings import Settings
from backend.track_editor.annotation import FileTask, LabelStudioTask
from backend.track_editor.editor import NOTHING, Editor, EditorState
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
"""What each is followed by."""
_RANGED = ("rename", "renumber", "delete")


@dataclass(frozen=True, slots=True)
class TracksOptions:
    """What to do.

    Attributes:
        file: of tasks; None: Label Studio's.
        task: its number.
        action: one of `list`, `rename` and so on.
        rest: what follows it.
        span: source frames that it is about; None: all.
        into: of tracks that are merged, the one that stays.
        looks: the video is opened, so that frames are the file's own.
    """

    file: Path | None
    task: int | None
    action: str
    rest: tuple[str, ...] = ()
    span: range | None = None
    into: int | None = None
    looks: bool = True


def run(settings: Settings, asked: TracksOptions, sure: Callable[[], bool], say: Callable[[str], None] = print) -> None:
    """List or change tracks.

    Args:
        sure: whether a change that was told is to be made.
        say: is told what there is and what would change, line by line.

    Raises:
        BackendError: it cannot be done; nothing was changed.
    """
    _check(asked)
    client = LabelStudioClient.from_settings(settings) if asked.file is None else None
    source = LabelStudioTask(client, asked.task or 0) if client else FileTask(asked.file or Path(), asked.task)
    desk = Editor(source, settings.data_dir.expanduser() / "versions")
    state = desk.read()
    with _video(settings, client, state, asked, say) as video:
        timing = _timing(state, video)
        if asked.action == "list":
            for line in _listed(state, timing, video):
                say(line)
            return
    edit = None if asked.action == "undo" else _edit(asked, timing)
    if edit:
        say("in frames as Label Studio counts them, from 1 on:")
        for line in desk.preview(edit)[1].description:
            say(f"  {line}")
    elif state.undo:
        say(f"take back: {state.undo}")
    else:
        raise SettingsError(NOTHING)
    if not sure():
        say("nothing is changed")
        return
    state = desk.apply(edit, state.version) if edit else desk.undo(state.version)
    say(f"{state.annotation_name} is changed" + ("" if asked.file else ": load the task's page anew to see it"))


def _check(asked: TracksOptions) -> None:
    """Say what is wrong with the words before anything is read."""
    wanted = ACTIONS[asked.action]
    if len(asked.rest) != len(wanted.split()):
        raise SettingsError(f"write it as: {asked.action} {wanted}".strip())
    if asked.span and asked.action not in _RANGED:
        raise SettingsError(f"--span goes with {', '.join(_RANGED)}")
    if asked.into is not None and asked.action != "merge":
        raise SettingsError("--into goes with merge")


@contextmanager
def _video(
    settings: Settings,
    client: LabelStudioClient | None,
    state: EditorState,
    asked: TracksOptions,
    say: Callable[[str], None],
) -> Iterator[Video | None]:
    """The task's video, where it can be had; fetched for a task of Label Studio, for a file only from this machine."""
    url = state.table.controls.video(state.chosen.data)
    with ExitStack() as opened:
        video, why = None, "as --no-video says"
        if asked.looks and (client or asked.action != "undo"):
            try:
                videos = TaskVideos(settings)
                video = opened.enter_context(videos.open(url, client) if client else videos.local(url))
            except BackendError as error:
                why = str(error)
        if video is None and asked.action != "undo":
            say(f"frames are Label Studio's, less one: the video is not read ({why})")
        yield video


def _timing(state: EditorState, video: Video | None) -> FrameTiming:
    roster = state.table
    return (
        FrameTiming.from_video(VideoInfo.from_video(video), roster.rate)
        if video
        else FrameTiming.from_counts(roster.length, roster.rate)
    )


def _edit(asked: TracksOptions, timing: FrameTiming) -> Edit:
    """The change, in LS frames.

    Raises:
        SettingsError: a number is none, or a frame lies outside the video.
    """
    first = asked.rest[0]
    numbers = first.split(",")
    tracks = frozenset(map(int, numbers)) if all(one.strip().isdecimal() for one in numbers) else first
    frames = None
    if asked.span:
        frames = _page(asked.span.start, timing), _page(asked.span.stop, timing) - 1
    match asked.action, asked.rest[1:]:
        case "rename", (label,):
            return Edit("rename", tracks, frames, label=label)
        case "renumber", (number,):
            return Edit("renumber", tracks, frames, to=_number(number))
        case "merge", ():
            return Edit("merge", tracks, to=asked.into)
        case "split", (frame,):
            return Edit("split", tracks, at=_page(_number(frame), timing))
        case _:
            return Edit("delete", tracks, frames)


def _number(text: str) -> int:
    if not text.isdecimal():
        raise SettingsError(f"{text} is no number")
    return int(text)


def _page(frame: int, timing: FrameTiming) -> int:
    """The first LS frame that shows a source frame or a later one; beyond the last, for where a span stops."""
    if frame > timing.length:
        raise SettingsError(f"there is no frame {frame}: the video has {timing.length}, counted from 0")
    return timing.last + 1 if frame == timing.length else math.ceil(float(timing.ls_frames[frame]))


def _listed(state: EditorState, timing: FrameTiming, video: Video | None) -> Iterator[str]:
    """The tracks, a line each, and what may be one."""
    by = f" ({state.author})" if state.author else ""
    count = len(state.table.rows)
    yield f"task {state.chosen.number}, {state.annotation_name}{by}: {count} tracks on {timing.length} frames"
    rows = [("track", "class", "score", "frames", "where")]
    for entry in state.table.rows:
        score = "" if entry.region.score is None else f"{entry.region.score:.2f}"
        spans = _shown(entry, timing)
        count = sum(stop - first for first, stop in spans)
        places = ", ".join(f"{first}..{stop}" for first, stop in spans)
        rows.append((str(entry.number), entry.label, score, str(count), places))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows if len(rows) > 1 else ():
        number, label, score, frames, where = row
        told = f"{number:>{widths[0]}}  {label:<{widths[1]}}  {score:>{widths[2]}}  {frames:>{widths[3]}}  {where}"
        yield told.rstrip()
    read = frame_reader(video, state.table.rate) if video else None
    for one in suggest_merges(state.table, read):
        a, b = one.tracks
        yield f"{a} and {b} may be one: {one}. If so: merge {a},{b}"


def _shown(entry: TrackRow, timing: FrameTiming) -> list[tuple[int, int]]:
    """Spans of source frames, half-open."""
    ends = np.minimum(np.array(entry.spans).ravel(), timing.last)
    shown = timing.frames(ends).reshape(-1, 2)
    return [(first, last + 1) for first, last in shown.tolist()]
