"""`sam3-backend weights`: download a model's weights before they are needed."""

import argparse
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from backend.commands.arguments import Subparsers, add_command, add_config_option, load_settings
from backend.commands.console import print_message
from backend.engines import download_weights, guess_engine
from backend.settings import Settings

_DESCRIPTION = """
Download the weights of a model from the hub, and print where they lie. A download that was cut
off goes on. `serve` does the same when it starts; this is for machines that will have no network
then, and for images.
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add the command's arguments."""
    parser = add_command(
        subparsers,
        "weights",
        _run,
        summary="download a model's weights beforehand",
        description=_DESCRIPTION,
        examples=(
            "sam3-backend weights facebook/sam2.1-hiera-tiny --engine sam2",
            "sam3-backend weights --config configs/sam3.yaml",
        ),
    )
    parser.add_argument("model_path", nargs="?", metavar="NAME", help="hub id (default: model_path in the settings)")
    parser.add_argument("--engine", metavar="E", help="tracking engine: sam3, sam2 or edgetam")
    add_config_option(parser)


def _run(options: argparse.Namespace) -> None:
    if options.engine is None and options.model_path and (guessed := guess_engine(options.model_path)) != "sam3":
        options.engine = guessed
    run(load_settings(options, "engine", "model_path"))


def run(settings: Settings, say: Callable[[str], None] = print_message) -> Path:
    """Download the weights that the settings name.

    Args:
        say: prints what was done.

    Returns:
        The folder with the files.

    Raises:
        SettingsError: they cannot be downloaded, or the engine has no weights.
    """
    with tqdm(unit="B", unit_scale=True, desc=settings.shown()["model_path"]) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        folder = download_weights(settings, show)
    say(f"{settings.shown()['model_path']}: in {folder}")
    return folder
