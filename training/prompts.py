"""Draws what the detector has to find on a picture: words, exemplars, or both, and the objects that they match."""

from typing import NamedTuple

import numpy as np

from backend.engines.sam3.detector import WORDLESS
from backend.shapes import COLOURS, SHAPES, Frame, ShapePhrase, Thing
from backend.tracks.geometry import Box
from backend.tracks.prompts import Exemplar
from training import data
from training.model import WORDS

NEGATIVE = 0.4
"""Share of the phrases that match nothing in their picture."""
EXEMPLARS = 0.6
"""Share of the prompts that have exemplars."""
JITTER = 0.08
"""Standard deviation of the edges of exemplars, in sides of the box: nobody draws them exactly."""


class Prompt(NamedTuple):
    """What to find on a picture.

    Attributes:
        named: rows of the visible objects that it matches.
        exemplars: with boxes as shares of the picture.
        kind: words for the kind of the first exemplar, if it is positive; otherwise empty.
    """

    text: str
    named: list[int]
    exemplars: tuple[Exemplar, ...] = ()
    kind: str = ""


def draw_prompt(random: np.random.Generator, things: list[Thing], frame: Frame, *, is_first: bool) -> Prompt:
    """A prompt; the first one of a picture mostly matches something."""
    if random.random() < EXEMPLARS and (prompt := _like(random, things, frame)):
        return prompt
    return _words(random, things, frame, random.random() < (0.1 if is_first else NEGATIVE))


def _like(random: np.random.Generator, things: list[Thing], frame: Frame) -> Prompt | None:
    """Exemplars of one kind, which is a shape and a colour, some with words, and exemplars of others.

    One in five has words and only exemplars of what not to find. None: there is nothing to see.
    """
    rows = [int(row) for row in np.flatnonzero(data.seen(frame))]
    if not rows:
        return None
    thing = things[int(random.choice(rows))]
    kind = ShapePhrase(thing.colour, thing.shape)
    like, others = _split(rows, things, kind)
    wider = ShapePhrase(thing.colour, None) if random.random() < 0.5 else ShapePhrase(None, thing.shape)
    style = random.random()
    if style < 0.2:
        return _unlike(random, things, frame, [row for row in rows if wider.names(things[row])], wider)
    near = [row for row in others if thing.colour == things[row].colour or thing.shape == things[row].shape]
    wrong = _some(random, near if near and random.random() < 0.7 else others, int(random.integers(4)))
    shown = _some(random, like, 1 + int(random.random() < 0.2))
    exemplars = [_exemplar(random, frame, row, True) for row in shown]
    exemplars += [_exemplar(random, frame, row, False) for row in wrong]
    text = WORDLESS
    if style < 0.4:
        text = (kind if random.random() < 0.4 else wider).text(plural=random.random() < 0.4)
    return Prompt(text, like, tuple(exemplars), kind.text())


def _unlike(
    random: np.random.Generator, things: list[Thing], frame: Frame, rows: list[int], wider: ShapePhrase
) -> Prompt:
    """Words, and one exemplar of each of some of the kinds that they name: find the others."""
    one_each = {(things[row].colour, things[row].shape): row for row in _some(random, rows, len(rows))}
    wrong = _some(random, list(one_each.values()), int(random.integers(1, max(2, len(one_each)))))
    kinds = {(things[row].colour, things[row].shape) for row in wrong}
    named = [row for row in rows if (things[row].colour, things[row].shape) not in kinds]
    exemplars = tuple(_exemplar(random, frame, row, False) for row in wrong)
    return Prompt(wider.text(plural=random.random() < 0.4), named, exemplars)


def _split(rows: list[int], things: list[Thing], kind: ShapePhrase) -> tuple[list[int], list[int]]:
    return [row for row in rows if kind.names(things[row])], [row for row in rows if not kind.names(things[row])]


def _some(random: np.random.Generator, rows: list[int], count: int) -> list[int]:
    return [int(row) for row in random.permutation(rows)[:count]]


def _exemplar(random: np.random.Generator, frame: Frame, row: int, positive: bool) -> Exemplar:
    x0, y0, x1, y1 = data.boxes(frame)[row].tolist()
    dx0, dx1 = random.normal(0, JITTER, 2) * (x1 - x0)
    dy0, dy1 = random.normal(0, JITTER, 2) * (y1 - y0)
    return Exemplar(Box(x0 + dx0, y0 + dy0, x1 + dx1, y1 + dy1).clip(1, 1), positive)


def _words(random: np.random.Generator, things: list[Thing], frame: Frame, negative: bool) -> Prompt:
    """A phrase, and the visible objects that it matches: none if `negative`, otherwise at least one if possible."""
    seen = data.seen(frame)
    if negative and random.random() < 0.25:
        others = WORDS[-12:]
        noun = str(random.choice([*others, "".join(random.choice(list("abcdefghijklmnoprstuvw"), 5))]))
        return Prompt(f"{noun} {random.choice(SHAPES)}" if noun in others[:5] else noun, [])
    for _ in range(30):
        colour, shape = str(random.choice(list(COLOURS))), str(random.choice(SHAPES))
        if len(things) and random.random() < 0.8:
            near = things[random.integers(len(things))]
            if not negative:
                colour, shape = near.colour, near.shape
            elif random.random() < 0.5:  # A near miss.
                colour = near.colour
            else:
                shape = near.shape
        kind = random.random()
        phrase = ShapePhrase(colour if kind < 0.6 or 0.8 <= kind < 0.95 else None, shape if kind < 0.8 else None)
        named = [row for row, thing in enumerate(things) if phrase.names(thing) and seen[row]]
        if bool(named) != negative:
            break
    before = str(random.choice(["a ", "the ", "all ", "every "])) if random.random() < 0.1 else ""
    return Prompt(before + phrase.text(plural=random.random() < 0.4), named)
