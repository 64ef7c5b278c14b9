"""The prompts of `sam3-backend track`: from options of the command line to targets and text searches."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backend.errors import SettingsError
from backend.tracks.geometry import Box
from backend.tracks.prompts import Exemplar, Point, Prompt, Target, TextSearch

_FORMS = {
    "--box": "X,Y,W,H@F",
    "--point": "X,Y@F",
    "--not": "X,Y@F",
    "--mask": "FILE.png@F",
    "--text": "PHRASE[, PHRASE...][@F]",
    "--like": "X,Y,W,H@F",
    "--unlike": "X,Y,W,H@F",
}
_HELP = {
    "--box": "a box around the object on source frame F, in pixels",
    "--point": "a point on the object",
    "--not": "a point that is not on the object",
    "--mask": "an image that is white where the object is",
    "--text": "find every object that fits a phrase, from source frame F on (default: the start of the span)",
    "--like": "find every object that is like the one in this box, on source frame F, and track it; the phrase of a "
    "--text before it narrows what is found",
    "--unlike": "a box around what --like on the same frame should not find",
}
_SEARCHES = ("--text", "--like", "--unlike")


class PromptOption(NamedTuple):
    """One prompt as written, with the `--track` and `--label` before it."""

    option: str
    value: str
    track: str | None
    label: str | None


class _AddPrompt(argparse.Action):
    """Collects prompts in the order of the command line."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        prompt = PromptOption(option or "", value, namespace.track, namespace.label)
        namespace.prompts = (*namespace.prompts, prompt)


def add_prompt_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of prompts; they are collected in `prompts`."""
    parser.set_defaults(prompts=())
    parser.add_argument("--track", metavar="NAME", help="the object of the boxes, points and masks that follow")
    parser.add_argument("--label", metavar="L", help="the class of the objects that follow")
    for option, form in _FORMS.items():
        parser.add_argument(option, action=_AddPrompt, dest="prompts", metavar=form, help=_HELP[option])


def parse_prompts(
    prompts: Sequence[PromptOption], last_track: str | None
) -> tuple[dict[str, Target], list[TextSearch]]:
    """Targets by track, and the kinds to search for, each in the order of the command line.

    Args:
        last_track: the last `--track`, which must have a prompt, too.

    Raises:
        SettingsError: there is no prompt, or one of them is wrong.
    """
    if not prompts:
        raise SettingsError("no prompt: add --box X,Y,W,H@F, --point X,Y@F, --text PHRASE or --like X,Y,W,H@F")
    texts = [prompt for prompt in prompts if prompt.option in _SEARCHES]
    visual = [prompt for prompt in prompts if prompt.option not in _SEARCHES]
    tracks = {prompt.track for prompt in visual}
    for name in (last_track, *(prompt.track for prompt in texts)):
        if name is not None and name not in tracks:
            raise SettingsError(
                f"--track {name} has no --box, --point or --mask after it: remove it "
                "(--text and --like create their own tracks; set their class with --label)"
            )
    return _parse_targets(visual), _parse_searches(texts)


def _parse_searches(prompts: Sequence[PromptOption]) -> list[TextSearch]:
    searches: dict[str, TextSearch] = {}
    for group in _group_searches(prompts):
        found = _parse_texts(group[0]) if group[0].option == "--text" else [TextSearch(group[0].label, "")]
        if examples := [prompt for prompt in group if prompt.option != "--text"]:
            found = [_add_exemplars(found, group[0], examples)]
        for search in found:
            if search.name in searches:
                what = search.name if search.exemplars else f"the phrase {search.text}"
                raise SettingsError(f"{group[0].option} {group[0].value}: {what} is given twice: remove one")
            searches[search.name] = search
    return list(searches.values())


def _group_searches(prompts: Sequence[PromptOption]) -> list[list[PromptOption]]:
    """The options of one kind together: examples belong to those before them of the same class."""
    groups: list[list[PromptOption]] = []
    for prompt in prompts:
        if prompt.option == "--text" or not groups or groups[-1][0].label != prompt.label:
            groups.append([])
        groups[-1].append(prompt)
    return groups


def _add_exemplars(found: Sequence[TextSearch], first: PromptOption, examples: Sequence[PromptOption]) -> TextSearch:
    if len(found) != 1 or found[0].frame is not None:
        raise SettingsError(
            f"{first.option} {first.value}: only one phrase, without a frame, can narrow the --like after it"
        )
    exemplars: dict[int, tuple[Exemplar, ...]] = {}
    for option, value, _, _ in examples:
        box, frame = _parse_box(option, value)
        exemplars[frame] = (*exemplars.get(frame, ()), Exemplar(box, positive=option == "--like"))
    search = replace(found[0], exemplars=exemplars)
    try:
        search.phrases(0)
    except ValueError as error:
        raise SettingsError(
            f"{examples[-1].option} {examples[-1].value}: its frame has no --like: add one there, or --text before it"
        ) from error
    return search


def _parse_box(option: str, value: str) -> tuple[Box, int]:
    text, frame = _split_frame(option, value)
    x, y, width, height = _parse_numbers(option, value, text, 4)
    if not (width > 0 and height > 0):
        raise SettingsError(f"{option} {value}: the box is empty: write it as {_FORMS[option]}")
    return Box(x, y, x + width, y + height), frame


def _split_frame(option: str, value: str) -> tuple[str, int]:
    text, at, frame = value.rpartition("@")
    if not at or not frame.isdecimal():
        raise SettingsError(f"{option} {value}: the source frame is missing: write it as {_FORMS[option]}")
    return text, int(frame)


def _parse_texts(prompt: PromptOption) -> list[TextSearch]:
    option, value, _, label = prompt
    text, at, frame = value.rpartition("@") if "@" in value else (value, "", "")
    phrases = [" ".join(phrase.split()) for phrase in text.split(",")]
    if not all(phrases) or (at and not frame.isdecimal()):
        raise SettingsError(f"{option} {value}: write it as {_FORMS[option]}")
    if twice := next((phrase for phrase in phrases if phrases.count(phrase) > 1), None):
        raise SettingsError(f"{option} {value}: the phrase {twice} is given twice: remove one")
    return [TextSearch(label, phrase, int(frame) if at else None) for phrase in phrases]


def _parse_targets(prompts: Sequence[PromptOption]) -> dict[str, Target]:
    fields: dict[str, dict[int, dict[str, Any]]] = {}
    labels: dict[str, str | None] = {}
    for option, value, track, label in prompts:
        text, frame = _split_frame(option, value)
        name = track or "1"
        prompt = fields.setdefault(name, {}).setdefault(frame, {"points": ()})
        if option == "--mask":
            prompt["mask"] = _read_mask(Path(text))
        elif option == "--box":
            x, y, width, height = _parse_numbers(option, value, text, 4)
            prompt["box"] = Box(x, y, x + width, y + height)
        else:
            x, y = _parse_numbers(option, value, text, 2)
            prompt["points"] += (Point(x, y, positive=option == "--point"),)
        labels[name] = label or labels.get(name)
    try:
        return {
            name: Target(labels[name], {frame: Prompt(name, frame, **prompt) for frame, prompt in frames.items()})
            for name, frames in fields.items()
        }
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _parse_numbers(option: str, value: str, text: str, count: int) -> list[float]:
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise SettingsError(f"{option} {value}: write it as {_FORMS[option]}")
    return numbers


def _read_mask(path: Path) -> NDArray[np.bool_]:
    import cv2

    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise SettingsError(f"--mask: {path.name} cannot be read as an image: use a PNG of the video's size")
    return np.asarray(picture) > 127
