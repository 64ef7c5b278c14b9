"""The command line: `sam3-backend serve`, `track`, `project` and `doctor`."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend import __version__, settings
from backend.commands import exchange
from backend.errors import BackendError, SettingsError
from backend.tracks.geometry import Box
from backend.tracks.prompts import Point, Prompt, Target, TextSearch

_FORMS = {
    "--box": "X,Y,W,H@F",
    "--point": "X,Y@F",
    "--not": "X,Y@F",
    "--mask": "FILE.png@F",
    "--text": "PHRASE[, PHRASE...][@F]",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 0, 1 where it failed, 2 where it was called wrongly."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except BackendError as error:
        print(f"sam3-backend: {error}", file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sam3-backend", description="SAM3 video backend for Label Studio.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_track(commands)
    _add_project(commands)
    _add_doctor(commands)
    return parser


def _add_serve(commands: Any) -> None:
    serve = commands.add_parser("serve", help="answer Label Studio over HTTP")
    serve.set_defaults(run=_serve)
    serve.add_argument("--config", type=Path, metavar="FILE", help="settings in YAML; see configs/default.yaml")
    _add_model(serve)
    serve.add_argument("--host", metavar="H", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, metavar="P", help="port to listen on (9090)")
    serve.add_argument("--data-dir", metavar="DIR", help="folder for videos and jobs, one server at a time")


def _add_track(commands: Any) -> None:
    track = commands.add_parser("track", help="track objects in a file, without Label Studio")
    track.set_defaults(run=_track, prompts=())
    track.add_argument("video", type=Path, metavar="VIDEO", help="the file to track in")
    track.add_argument("--track", metavar="NAME", help="the object that the boxes, clicks and masks after it are of")
    track.add_argument("--label", metavar="L", help="the class of the objects prompted after it")
    for option, what in (
        ("--box", "a box round the object on source frame F, in pixels"),
        ("--point", "a click on the object"),
        ("--not", "a click beside the object"),
        ("--mask", "a picture that is white where the object is"),
        ("--text", "words for every object of a kind, looked for from source frame F on (the span's start)"),
    ):
        track.add_argument(option, action=_AddPrompt, dest="prompts", metavar=_FORMS[option], help=what)
    track.add_argument("--span", type=_span, metavar="A..B", help="source frames to stay in, B not included")
    track.add_argument("--direction", choices=("forward", "backward", "both"), help="where to go from the prompts")
    _add_model(track)
    track.add_argument("--config", type=Path, metavar="FILE", help="settings in YAML")
    track.add_argument("--video-url", metavar="URL", help="what data.video gets (the file's path)")
    track.add_argument("-o", "--output", type=Path, metavar="tasks.json", help="where the tasks go (standard output)")
    track.add_argument("--overlay", type=Path, metavar="out.mp4", help="a video with the tracks drawn in")


def _add_project(commands: Any) -> None:
    project = commands.add_parser("project", help="work on a Label Studio project")
    actions = project.add_subparsers(required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a project that is ready to be worked in, unless it is there")
    create.set_defaults(run=_create)
    create.add_argument("title", metavar="TITLE", help="the project's title")
    create.add_argument("videos", nargs="*", metavar="VIDEO", help="a file, which is uploaded, or an address")
    create.add_argument("--label-config", type=Path, required=True, metavar="FILE", help="as label_config.xml")
    create.add_argument("--backend", metavar="URL", help="where Label Studio reaches this backend: it is connected")
    create.add_argument("--config", type=Path, metavar="FILE", help="settings in YAML")
    create.add_argument("--data-dir", metavar="DIR", help="folder for downloaded videos")
    prepare = actions.add_parser("prepare", help="make tasks of videos, and give tasks what they lack to be prompted")
    prepare.set_defaults(run=_prepare)
    prepare.add_argument("videos", nargs="*", metavar="VIDEO", help="a file, which is uploaded, or an address")
    prepare.add_argument("--project", type=int, required=True, metavar="N", help="the project's number")
    prepare.add_argument("--config", type=Path, metavar="FILE", help="settings in YAML")
    prepare.add_argument("--data-dir", metavar="DIR", help="folder for downloaded videos, the same as of serve")
    exchange.add(actions)
    _add_annotate(actions)
    _add_tracks(actions)


def _add_annotate(actions: Any) -> None:
    annotate = actions.add_parser("annotate", help="find objects by words in a project's videos, as predictions")
    annotate.set_defaults(run=_annotate)
    annotate.add_argument("--project", type=int, required=True, metavar="N", help="the project's number")
    source = annotate.add_mutually_exclusive_group()
    source.add_argument("--labels", action="store_true", help="look for the project's labels (this is the default)")
    source.add_argument("--text", metavar='"A, B"', help="look for these phrases")
    source.add_argument("--field", metavar="F", help="look for the phrases in this field of each task's data")
    chosen = annotate.add_mutually_exclusive_group()
    chosen.add_argument("--tasks", type=_numbers_of_tasks, default=(), metavar="1,2,5..9", help="these tasks alone")
    chosen.add_argument("--view", type=int, metavar="V", help="the tasks of this tab of the Data Manager")
    annotate.add_argument("--limit", type=int, metavar="M", help="no more than so many tasks")
    annotate.add_argument("--dry-run", action="store_true", help="only tell what would be done")
    _add_model(annotate)
    annotate.add_argument("--config", type=Path, metavar="FILE", help="settings in YAML")
    annotate.add_argument(
        "--data-dir", metavar="DIR", help="folder for videos and jobs; no server may work in it meanwhile"
    )


def _add_tracks(actions: Any) -> None:
    tracks = actions.add_parser(
        "tracks",
        help="list, rename, renumber, merge, split and delete tracks, and take that back",
        usage="sam3-backend project tracks [FILE] [--task N] ACTION [...]",
        description="List the tracks of the annotation that counts (the ground truth, else what was submitted last, "
        "else the newest prediction), or change them: rename TRACKS LABEL, renumber TRACKS NUMBER, merge TRACKS, "
        "split TRACK FRAME, delete TRACKS, undo. TRACKS are numbers (3,7), a class, or all; frames count from 0. "
        "What would change is told and asked about first, and the version before is kept in data_dir.",
    )
    tracks.set_defaults(run=_tracks)
    tracks.add_argument("words", nargs="+", metavar="[FILE] ACTION [...]", help="FILE is JSON of tasks")
    tracks.add_argument("--task", type=int, metavar="N", help="the task in Label Studio, or which one in FILE")
    tracks.add_argument("--span", type=_span, metavar="A..B", help="only these frames, B not included")
    tracks.add_argument("--into", type=int, metavar="N", help="of tracks that are merged, the one that stays")
    tracks.add_argument("--yes", action="store_true", help="do it without asking")
    tracks.add_argument("--no-video", action="store_true", help="open no video: count frames as Label Studio does")
    tracks.add_argument("--config", type=Path, metavar="FILE", help="settings in YAML")
    tracks.add_argument("--data-dir", metavar="DIR", help="folder for versions and videos, the same as of serve")


def _add_doctor(commands: Any) -> None:
    doctor = commands.add_parser("doctor", help="check the model, the folders, Label Studio, and a task or a video")
    doctor.set_defaults(run=_doctor)
    looked_at = doctor.add_mutually_exclusive_group()
    looked_at.add_argument("--task", type=int, metavar="N", help="a task of Label Studio to look at, too")
    looked_at.add_argument("--url", metavar="U", help="a video's address to look at, too")
    doctor.add_argument("--config", type=Path, metavar="FILE", help="settings in YAML")
    _add_model(doctor)


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--engine", metavar="E", help="the model that tracks: sam3 or opencv")
    command.add_argument("--model", metavar="M", dest="model_path", help="SAM3's weights: hub id, folder or sam3.pt")
    command.add_argument("--device", metavar="D", help="where the model runs: auto, cpu, mps, cuda or cuda:N")


class _AddPrompt(argparse.Action):
    """Keeps the order of prompts, each with the `--track` and `--label` before it."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        namespace.prompts = (*namespace.prompts, (option, value, namespace.track, namespace.label))


def _serve(options: argparse.Namespace) -> None:
    from backend.commands import serve

    serve.run(_settings(options, "engine", "model_path", "device", "host", "port", "data_dir"))


def _track(options: argparse.Namespace) -> None:
    from backend.commands import track

    if not options.prompts:
        raise SettingsError("nothing is prompted: give --box X,Y,W,H@F, --point X,Y@F or --text PHRASE")
    shown = [given for given in options.prompts if given[0] != "--text"]
    words = [given for given in options.prompts if given[0] == "--text"]
    _check_names(shown, [options.track, *(name for _, _, name, _ in words)])
    track.run(
        options.video,
        _targets(shown),
        _searches(words),
        _settings(options, "engine", "model_path", "device", "direction"),
        span=options.span,
        url=options.video_url,
        output=options.output,
        drawn=options.overlay,
    )


def _create(options: argparse.Namespace) -> None:
    from backend.commands import create

    settings = _settings(options, "data_dir")
    failed = create.run(settings, options.title, options.label_config, options.backend, options.videos)
    if failed:
        raise BackendError(f"{failed} tasks are not prepared: see above")


def _prepare(options: argparse.Namespace) -> None:
    from backend.commands import prepare

    failed = prepare.run(_settings(options, "data_dir"), options.project, options.videos)
    if failed:
        raise BackendError(f"{failed} tasks are not prepared: see above")


def _annotate(options: argparse.Namespace) -> None:
    from backend.commands import annotate

    phrases = tuple(phrase for one in (options.text or "").split(",") if (phrase := " ".join(one.split())))
    failed = annotate.run(
        _settings(options, "engine", "model_path", "device", "data_dir"),
        options.project,
        phrases or options.field or "labels",
        tasks=options.tasks,
        view=options.view,
        limit=options.limit,
        dry_run=options.dry_run,
    )
    if failed:
        raise BackendError(f"{failed} tasks have failed: see above")


def _tracks(options: argparse.Namespace) -> None:
    from backend.commands import tracks

    words = list(options.words)
    file = Path(words.pop(0)) if words[0] not in tracks.ACTIONS else None
    if not words or words[0] not in tracks.ACTIONS:
        raise SettingsError(f"say what to do: {', '.join(tracks.ACTIONS)}")
    if file is None and options.task is None:
        raise SettingsError("say of which task: --task N, or a file of tasks before the action")
    asked = tracks.TracksOptions(
        file, options.task, words[0], tuple(words[1:]), options.span, options.into, not options.no_video
    )
    tracks.run(_settings(options, "data_dir"), asked, (lambda: True) if options.yes else _is_sure)


def _is_sure() -> bool:
    """Ask the person at the terminal."""
    if not sys.stdin.isatty():
        raise SettingsError("nothing is changed: add --yes to do it")
    return input("Do it? [y/N] ").strip().lower() in ("y", "yes")


def _doctor(options: argparse.Namespace) -> None:
    from backend.commands import doctor

    failed = doctor.run(partial(_settings, options, "engine", "model_path", "device"), options.task, options.url)
    if failed:
        raise BackendError(f"{failed} of these checks failed")


def _settings(options: argparse.Namespace, *flags: str) -> settings.Settings:
    return settings.load(options.config, {key: getattr(options, key) for key in flags})


_Given = tuple[str, str, str | None, str | None]
"""Option, value, and the track and label before it."""


def _check_names(shown: Sequence[_Given], names: Sequence[str | None]) -> None:
    """Refuse a `--track` that nothing shows."""
    unused = [name for name in names if name is not None and name not in {track for _, _, track, _ in shown}]
    if unused:
        raise SettingsError(
            f"--track {unused[0]}: no box, click or mask follows that shows it, and words make tracks of their own: "
            "leave it out, or give --label for the class of what words find"
        )


def _searches(given: Sequence[_Given]) -> list[TextSearch]:
    """What to find by words."""
    searches: dict[str, TextSearch] = {}
    for option, value, _, label in given:
        what, at, frame = value.rpartition("@") if "@" in value else (value, "", "")
        phrases = [" ".join(phrase.split()) for phrase in what.split(",")]
        if not all(phrases) or (at and not frame.isdecimal()):
            raise SettingsError(f"{option} {value}: write it as {_FORMS[option]}")
        for phrase in phrases:
            if phrase in searches:
                raise SettingsError(f"{option} {value}: {phrase} is looked for twice, name it once")
            searches[phrase] = TextSearch(label, phrase, int(frame) if at else None)
    return list(searches.values())


def _targets(given: Sequence[_Given]) -> dict[str, Target]:
    """Prompts by track and frame, in the order of the command line."""
    shown: dict[str, dict[int, dict[str, Any]]] = {}
    labels: dict[str, str | None] = {}
    for option, value, name, label in given:
        what, at, frame = value.rpartition("@")
        if not at or not frame.isdecimal():
            raise SettingsError(f"{option} {value}: say on which source frame, as in {_FORMS[option]}")
        name = name or "1"
        prompt = shown.setdefault(name, {}).setdefault(int(frame), {"points": ()})
        if option == "--mask":
            prompt["mask"] = _mask(Path(what))
        elif option == "--box":
            x, y, width, height = _numbers(option, value, what, 4)
            prompt["box"] = Box(x, y, x + width, y + height)
        else:
            x, y = _numbers(option, value, what, 2)
            prompt["points"] += (Point(x, y, positive=option == "--point"),)
        labels[name] = label or labels.get(name)
    try:
        return {
            name: Target(labels[name], {frame: Prompt(name, frame, **prompt) for frame, prompt in prompts.items()})
            for name, prompts in shown.items()
        }
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _numbers(option: str, value: str, what: str, count: int) -> list[float]:
    try:
        numbers = [float(number) for number in what.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise SettingsError(f"{option} {value}: write it as {_FORMS[option]}")
    return numbers


def _mask(path: Path) -> NDArray[np.bool_]:
    import cv2

    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise SettingsError(f"--mask: {path.name} is no picture that can be read: give a PNG of the video's size")
    return np.asarray(picture) > 127


def _numbers_of_tasks(text: str) -> frozenset[int]:
    """Numbers and ranges, both ends included."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.strip().partition("..")
        if not (first.isdecimal() and (not dots or (last.isdecimal() and int(first) <= int(last)))):
            raise argparse.ArgumentTypeError(f"{text!r} are no numbers of tasks: write them as 1,2,5..9")
        numbers |= set(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def _span(text: str) -> range:
    first, dots, stop = text.partition("..")
    if not (dots and first.isdecimal() and stop.isdecimal() and int(first) < int(stop)):
        raise argparse.ArgumentTypeError(f"{text!r} is no span: write A..B with A below B")
    return range(int(first), int(stop))
