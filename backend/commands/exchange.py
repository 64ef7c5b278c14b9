"""The command line of `project export` and `project import`."""

import argparse
from pathlib import Path
from typing import Any

from backend import settings
from backend.errors import BackendError

_FORMATS = ("mot", "mots", "coco-vid", "youtube-vis", "yolo", "davis", "csv", "labelstudio")


def add(actions: Any) -> None:
    """Add the two to the actions on projects."""
    _add_export(actions)
    _add_import(actions)


def _add_export(actions: Any) -> None:
    export = actions.add_parser(
        "export",
        help="write tracks in the formats that others read",
        description="Write the tracks of a project, or of a file of tasks, exactly to the frame. Of each task counts "
        "the ground truth, else what was submitted last. Frames count from 0, in mot and mots from 1: those of the "
        "video where it can be read, and where not, Label Studio's frame k is frame k - 1. csv and labelstudio hold "
        "keyframes (every frame with --dense), all others every frame.",
    )
    export.set_defaults(run=_export)
    source = export.add_mutually_exclusive_group(required=True)
    source.add_argument("file", nargs="?", type=Path, metavar="FILE", help="Label Studio's JSON export, or of track -o")
    source.add_argument("--project", type=int, metavar="N", help="the project's number")
    export.add_argument(
        "--format",
        required=True,
        choices=_FORMATS,
        help="mot, mots, yolo and davis are folders, the others files; mots and davis hold the tracks that have masks",
    )
    export.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the file, or a new folder")
    export.add_argument("--dense", action="store_true", help="every frame in csv and labelstudio, too")
    export.add_argument(
        "--predictions", action="store_true", help="the newest prediction of tasks where nothing was submitted, too"
    )
    export.add_argument("--size", type=_size, metavar="WxH", help="of all pictures, where nothing else tells it")
    export.add_argument("--no-video", action="store_true", help="open no video: count frames as Label Studio does")
    _add_settings(export)


def _add_import(actions: Any) -> None:
    load = actions.add_parser(
        "import",
        help="give tasks the tracks of other tools as predictions",
        description="Give tasks the tracks of a file as predictions, once. Without --task they are found by the names "
        "of their videos, or of the folders that export makes.",
    )
    load.set_defaults(run=_import)
    load.add_argument("file", type=Path, metavar="FILE", help="gt.txt or a folder of sequences; a COCO-VID file")
    load.add_argument("--project", type=int, required=True, metavar="N", help="the project's number")
    load.add_argument("--task", type=int, metavar="N", help="the task of the one video in the file")
    load.add_argument("--format", required=True, choices=("mot", "coco-vid"))
    load.add_argument("--label", metavar="L", help="the class of all tracks (as the file names them)")
    load.add_argument("--size", type=_size, metavar="WxH", help="of the pictures, where nothing else tells it")
    _add_settings(load)


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, metavar="FILE", help="settings in YAML")
    command.add_argument("--data-dir", metavar="DIR", help="folder for downloaded videos, the same as of serve")


def _export(options: argparse.Namespace) -> None:
    from backend.commands import export

    wanted = export.ExportOptions(
        options.format, options.output, options.dense, options.predictions, options.size, not options.no_video
    )
    source = options.file if options.project is None else options.project
    failed = export.run(_settings(options), source, wanted)
    if failed:
        raise BackendError(f"{failed} tasks are not exported: see above")


def _import(options: argparse.Namespace) -> None:
    from backend.commands import import_tracks

    given = import_tracks.ImportOptions(options.file, options.format, options.task, options.label, options.size)
    failed = import_tracks.run(_settings(options), given, options.project)
    if failed:
        raise BackendError(f"{failed} videos are not imported: see above")


def _settings(options: argparse.Namespace) -> settings.Settings:
    return settings.load(options.config, {"data_dir": options.data_dir})


def _size(text: str) -> tuple[int, int]:
    width, mark, height = text.lower().partition("x")
    if not (mark and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write WIDTHxHEIGHT, as 1920x1080")
    return int(width), int(height)
