"""What the parsers of all commands share: shared options, value types, examples in `--help`, and suggestions."""

import argparse
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from inspect import cleandoc
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from backend.settings import Settings
from backend.settings_loader import read_settings

Subparsers: TypeAlias = "argparse._SubParsersAction[CommandParser]"


class CommandParser(argparse.ArgumentParser):
    """A parser that suggests the nearest option or command when it is given an unknown one."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Reject unknown words before argparse complains that an argument is missing."""
        if args is not None:
            self._check_words(args)
        return super().parse_known_args(args, namespace)

    def _check_words(self, words: Sequence[str]) -> None:
        commands = [name for action in self._actions for name in _command_names(action)]
        options = [option for action in self._actions for option in action.option_strings]
        for word in words:
            if word == "--":
                return
            name = word.partition("=")[0]
            # argparse takes a word with a space as a value, never as an option.
            if name.startswith("--") and " " not in word and not any(option.startswith(name) for option in options):
                self._reject("option", name, options)
            if commands and not word.startswith("-"):
                if word not in commands:
                    self._reject("command", word, commands)
                return  # The command's own parser checks the rest.

    def _reject(self, kind: str, name: str, known: Sequence[str]) -> NoReturn:
        self.error(f"unknown {kind} {name}: {suggest(name, known) or f'see {self.prog} --help'}")


def _command_names(action: argparse.Action) -> Sequence[str]:
    return list(action.choices or ()) if isinstance(action, argparse._SubParsersAction) else ()


def suggest(name: str, known: Sequence[str]) -> str:
    """A question that names the nearest known word; empty if none is near."""
    by_name = {word.lstrip("-"): word for word in known}
    nearest = get_close_matches(name.lstrip("-"), by_name, n=1, cutoff=0.7)
    return f"did you mean {by_name[nearest[0]]}?" if nearest else ""


def add_command(
    subparsers: Subparsers,
    name: str,
    run: Callable[[argparse.Namespace], None] | None,
    *,
    summary: str,
    examples: tuple[str, str],
    description: str = "",
    usage: str | None = None,
) -> CommandParser:
    """Add the parser of a command.

    Args:
        run: what the command does; None if it only groups commands.
        summary: its line in the list of commands.
        examples: two full command lines, shown at the end of its help.
        description: its help's first paragraph, wrapped by hand; the summary if empty.
        usage: replaces the generated usage line.
    """
    parser = subparsers.add_parser(
        name,
        help=summary,
        description=cleandoc(description) or f"{summary[0].upper()}{summary[1:]}.",
        epilog=format_examples(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=usage,
    )
    if run:
        parser.set_defaults(run=run)
    return parser


def format_examples(examples: tuple[str, str]) -> str:
    """The end of a command's help."""
    return "examples:\n" + "\n".join(f"  {example}" for example in examples)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose the model."""
    parser.add_argument("--engine", metavar="E", help="tracking engine: sam3, sam2, edgetam or opencv")
    parser.add_argument(
        "--model", metavar="M", dest="model_path", help="weights: hub id, folder or the published file, such as sam3.pt"
    )
    parser.add_argument("--device", metavar="D", help="device of the model: auto, cpu, mps, cuda or cuda:N")


def add_workers_option(parser: argparse.ArgumentParser, condition: str = "") -> None:
    """Add the option that chooses where jobs run.

    Args:
        condition: when there are jobs; the beginning of the help.
    """
    parser.add_argument(
        "--workers", metavar="W", help=f"{condition}where jobs run: local, or ray, on a Ray cluster (default: local)"
    )


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add the option for a file of settings."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings; see configs/default.yaml")


def add_settings_options(
    parser: argparse.ArgumentParser, data_dir: str = "folder for downloaded videos; use the one of serve"
) -> None:
    """Add `--config` and `--data-dir`.

    Args:
        data_dir: the help of `--data-dir`.
    """
    add_config_option(parser)
    parser.add_argument("--data-dir", metavar="DIR", help=data_dir)


def load_settings(options: argparse.Namespace, *names: str) -> Settings:
    """The settings, with these options on top."""
    return read_settings(options.config, {name: getattr(options, name) for name in names})


def parse_span(text: str) -> range:
    """Source frames written as A..B, B excluded."""
    start, dots, stop = text.partition("..")
    if not (dots and start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a span: write A..B with A less than B")
    return range(int(start), int(stop))


def parse_size(text: str) -> tuple[int, int]:
    """Width and height written as WIDTHxHEIGHT."""
    width, mark, height = text.lower().partition("x")
    if not (mark and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: write WIDTHxHEIGHT, for example 1920x1080")
    return int(width), int(height)


def parse_task_ids(text: str) -> frozenset[int]:
    """Numbers and ranges, both ends included."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, dots, last = part.strip().partition("..")
        if not (first.isdecimal() and (not dots or (last.isdecimal() and int(first) <= int(last)))):
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of task numbers: write it as 1,2,5..9")
        numbers |= set(range(int(first), int(last or first) + 1))
    return frozenset(numbers)
