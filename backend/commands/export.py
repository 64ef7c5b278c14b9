"""`sam3-backend project export`: write the tracks of a project or a file in other tools' formats."""

import argparse
from collections.abc import Callable
from pathlib import Path

from backend.commands.arguments import Subparsers, add_command, add_settings_options, load_settings, parse_size
from backend.commands.console import print_message
from backend.commands.dataset_options import add_dataset_options, read_dataset_options, takes_pictures
from backend.commands.export_dataset import export_dataset
from backend.commands.export_tracks import ExportOptions, export_tracks
from backend.datasets.build import describe_export
from backend.datasets.registry import DATASETS
from backend.datasets.source import TrackSource
from backend.errors import BackendError, SettingsError
from backend.formats.registry import FORMATS, LABELSTUDIO, NAMES
from backend.settings import Settings

_DESCRIPTION = """
Write the tracks of a project, or of a JSON file of tasks, in another format.

For each task, the ground truth is exported, or else the annotation submitted last.
Frames are numbered from 0 (from 1 in mot and mots) as in the video file. If the video
cannot be read, Label Studio's frame k becomes frame k - 1. csv and labelstudio contain
keyframes (with --dense, every frame); the other formats contain every frame.

Datasets have pictures, cut from the videos, and labels for them. An interrupted export of
a dataset goes on where it was if you start the same command again.
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = add_command(
        subparsers,
        "export",
        _run,
        summary="write tracks in other tools' formats",
        description=_DESCRIPTION,
        examples=(
            "sam3-backend project export --project 1 --format yolo --split 80,10,10 -o dataset",
            "sam3-backend project export tasks.json --predictions --format csv -o tracks.csv",
        ),
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("file", nargs="?", type=Path, metavar="FILE", help="JSON from Label Studio or from track -o")
    source.add_argument("--project", type=int, metavar="N", help="number of the project")
    parser.add_argument(
        "--format",
        required=True,
        choices=(*NAMES, *DATASETS),
        help="mot, mots, davis, cvat and datasets write a folder, the others a file; mots and davis need masks",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the file, or a new folder")
    parser.add_argument("--dense", action="store_true", help="write every frame in csv and labelstudio, too")
    parser.add_argument(
        "--predictions", action="store_true", help="use the newest prediction of tasks without a submitted annotation"
    )
    parser.add_argument("--size", type=parse_size, metavar="WxH", help="size of videos whose size is unknown")
    parser.add_argument("--no-video", action="store_true", help="number frames as Label Studio does; open no video")
    add_settings_options(parser)
    add_dataset_options(parser)


def _run(options: argparse.Namespace) -> None:
    export_options = ExportOptions(
        options.format,
        options.output,
        options.dense,
        options.predictions,
        options.size,
        not options.no_video,
        read_dataset_options(options),
        takes_pictures(options),
    )
    source = options.file if options.project is None else options.project
    failed = run(load_settings(options, "data_dir"), source, export_options)
    if failed:
        raise BackendError(f"{failed} tasks were not exported: see above")


def run(
    settings: Settings,
    source: Path | int,
    options: ExportOptions,
    say: Callable[[str], None] = print_message,
) -> int:
    """Export the tasks of a file or of a Label Studio project.

    Masks come from the sidecar that `track` writes next to the file, or from the project's jobs in `data_dir`.

    Args:
        source: a JSON file of tasks, or a project's number.
        say: prints what was done, and each task that is skipped or whose video cannot be read.

    Returns:
        The number of tasks that were not exported.

    Raises:
        BackendError: no task can be exported, or the tasks cannot be read.
    """
    if options.pictures and not options.read_videos:
        raise SettingsError("--no-video leaves no pictures: leave out --pictures")
    _check_output(options)
    has_masks = _has_masks(options)
    if isinstance(source, Path):
        tracks = TrackSource.from_file(settings, source, options.predictions, has_masks)
    else:
        tracks = TrackSource.from_project(settings, source, options.predictions)
    if tracks.skipped:
        fix = "" if options.predictions else "; --predictions exports their predictions"
        say(f"{tracks.skipped} tasks have no submitted annotation and are skipped{fix}")
    if options.dataset:
        more = ["--predictions"] * options.predictions + ["--no-video"] * (not options.read_videos)
        more += ["--size", "{}x{}".format(*options.size)] if options.size else []
        return export_dataset(
            tracks,
            options.format,
            options.dataset,
            options.output,
            describe_export(tracks, options.format, options.dataset, more),
            say,
            size=options.size,
            read_videos=options.read_videos,
        )
    return export_tracks(tracks, options, say)


def _has_masks(options: ExportOptions) -> bool:
    """Whether masks are read."""
    if options.dataset:
        return options.dataset.task == "segment"
    return options.format != LABELSTUDIO and FORMATS[options.format].has_masks


def _check_output(options: ExportOptions) -> None:
    """Reject a bad output path before anything is read."""
    output = options.output
    is_folder = options.format in DATASETS or options.is_folder
    if not output.absolute().parent.is_dir():
        raise SettingsError(f"{output.name} cannot be written: choose a path in an existing folder")
    if is_folder and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SettingsError(f"{output.name} is not an empty folder: choose a new one for {options.format}")
    if not is_folder and output.is_dir():
        raise SettingsError(f"{output.name} is a folder, but {options.format} is a file: add a file name")
