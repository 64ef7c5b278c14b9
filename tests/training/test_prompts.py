"""What is drawn to be found is what its words and its exemplars describe."""

import numpy as np
import pytest

from backend.engines.sam3.detector import WORDLESS
from backend.shapes import ShapePhrase
from backend.tracks.geometry import Box, box_iou
from training import data, detector, prompts

pytestmark = pytest.mark.slow


def scenes(count):
    for seed in range(count):
        clip = data.draw(np.random.default_rng(seed), detector.RECIPE)
        yield clip.things, clip[10]


def test_rows_are_what_their_words_name():
    random, named = np.random.default_rng(0), 0
    for things, frame in scenes(30):
        for negative in (False, True):
            text, rows, exemplars, _ = prompts._words(random, things, frame, negative)
            assert not exemplars
            if negative and rows:
                continue  # Everything is in the picture.
            assert bool(rows) != negative or not data.seen(frame).any()
            for row in rows:
                assert _phrase(text).names(things[row])
                named += 1
    assert named > 30


def test_rows_are_of_the_kind_of_positive_exemplars_or_what_negative_ones_leave_of_the_words():
    random, styles = np.random.default_rng(0), set()
    for things, frame in scenes(60):
        prompt = prompts._like(random, things, frame)
        if prompt is None:
            assert not data.seen(frame).any()
            continue
        seen = [int(row) for row in np.flatnonzero(data.seen(frame))]
        shown = [(things[_row(frame, seen, each.box)], each.positive) for each in prompt.exemplars]
        like = [ShapePhrase(thing.colour, thing.shape) for thing, positive in shown if positive]
        unlike = [ShapePhrase(thing.colour, thing.shape) for thing, positive in shown if not positive]
        kinds = like or [_phrase(prompt.text)]
        expected = [row for row in seen if all(kind.names(things[row]) for kind in kinds)]
        expected = [row for row in expected if not any(kind.names(things[row]) for kind in unlike)]
        assert prompt.named == expected
        styles.add((bool(like), bool(unlike), prompt.text == WORDLESS))
    assert styles == {(True, True, True), (True, False, True), (True, True, False), (True, False, False)} | {
        (False, True, False)
    }


def _phrase(text):
    words = text.removeprefix("all ").removeprefix("every ").removeprefix("the ").removeprefix("a ").split()
    shape = words[-1].removesuffix("s")
    return ShapePhrase(words[0] if len(words) == 2 else None, None if shape == "shape" else shape)


def _row(frame, seen, box):
    """The object that an exemplar is drawn around."""
    overlaps = [float(box_iou(np.array(box), np.array(Box(*data.boxes(frame)[row].tolist())))) for row in seen]
    assert max(overlaps) == pytest.approx(1, abs=0.6)
    return seen[int(np.argmax(overlaps))]
