"""The shapes checkpoint, asked by words; in a file of its own, so that it runs beside the clicks."""

import pytest
import torch

from backend.shapes import HELD_OUT
from benchmarks import shapes_accuracy
from tests.needs import THOROUGH

CLIPS = range(HELD_OUT, HELD_OUT + (10 if THOROUGH else 2))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_finds_what_words_name():
    torch.set_num_threads(1)
    words = shapes_accuracy.measure("words", CLIPS, "shapes")
    figures = shapes_accuracy.summary([], [], words, [])
    assert figures["text_precision"] >= (0.8 if THOROUGH else 0.9)
    assert figures["text_recall"] >= (0.68 if THOROUGH else 0.66)
    assert figures["hota"] >= (0.6 if THOROUGH else 0.54)
    assert figures["false_frames"] <= 0.03
