"""The command line `sam3-backend`: the list of commands, and what their errors print."""

import argparse
import sys
from collections.abc import Sequence

from backend import __version__
from backend.commands import (
    annotate,
    create,
    demo,
    doctor,
    export,
    import_tracks,
    prepare,
    selftest,
    serve,
    track,
    tracks,
    weights,
)
from backend.commands.arguments import CommandParser, add_command, format_examples
from backend.errors import BackendError, SettingsError

PROJECT_COMMANDS = (create, prepare, export, import_tracks, annotate, tracks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0, 1 if the command failed, 2 if it was called with wrong arguments or settings.
    """
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except BackendError as error:
        print(f"sam3-backend: {error}", file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


def build_parser() -> CommandParser:
    """The parser of all commands; `run` in its result takes the parsed options."""
    parser = CommandParser(
        prog="sam3-backend",
        description="SAM3 video backend for Label Studio.",
        epilog=format_examples(("sam3-backend serve --engine opencv", "sam3-backend doctor")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve.add_parser(commands)
    track.add_parser(commands)
    project = add_command(
        commands,
        "project",
        None,
        summary="work on a Label Studio project",
        examples=(
            "sam3-backend project prepare --project 1 clip.mp4",
            "sam3-backend project export --project 1 --format csv -o tracks.csv",
        ),
    )
    actions = project.add_subparsers(required=True, metavar="ACTION")
    for command in PROJECT_COMMANDS:
        command.add_parser(actions)
    demo.add_parser(commands)
    doctor.add_parser(commands)
    selftest.add_parser(commands)
    weights.add_parser(commands)
    return parser
