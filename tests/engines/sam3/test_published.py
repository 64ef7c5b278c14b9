"""Sessions do as facebookresearch/sam3 does, where Transformers does otherwise."""

import pytest

from tests.engines.sam3.published import Comparison

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    found = Comparison()
    found.run()
    return found


def test_masks_are_those_of_the_original(comparison):
    assert len(comparison.masks) == 12
    assert {name: value for name, value in comparison.masks.items() if value > 1e-3} == {}


def test_pointers_are_those_of_the_original(comparison):
    assert len(comparison.pointers) == 14
    assert {name: value for name, value in comparison.pointers.items() if value > 1e-2} == {}


def test_memories_are_those_of_the_original(comparison):
    assert {"soft memory", "hard memory", "words tracked", "born 0"} < comparison.memories.keys()
    assert {name: value for name, value in comparison.memories.items() if value > 1e-2} == {}


def test_scores_and_pixels_are_those_of_the_original(comparison):
    assert {name: value for name, value in comparison.others.items() if value > 1e-3} == {}
