"""Exemplars are encoded, and found by, as the library does it; see `exemplars` for the step that is written there.

The numbers of facebookresearch/sam3 itself are in `test_checkpoint`.
"""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backend.engines.sam3.detector import WORDLESS, Sam3Detector
from backend.engines.sam3.geometry import pool_box
from backend.tracks.geometry import Box
from backend.tracks.prompts import Exemplar
from tests.engines.sam3.exemplars import EXEMPLARS, aligned, find_in_library, lively
from tests.engines.sam3.test_detector import Letters


@given(
    corners=st.tuples(*[st.floats(0, 1, width=16)] * 4),
    size=st.sampled_from([1, 3, 7]),
    sides=st.tuples(st.integers(2, 12), st.integers(2, 12)),
)
def test_a_box_is_pooled_by_the_definition(corners, size, sides):
    x0, x1, y0, y1 = *sorted(corners[:2]), *sorted(corners[2:])
    features = torch.randn(2, *sides, generator=torch.Generator().manual_seed(3))
    expected = aligned(features, torch.tensor([x0, y0, x1, y1]) * torch.tensor([sides[1], sides[0]] * 2), size)
    assert torch.allclose(pool_box(features[None], Box(x0, y0, x1, y1), size)[0], expected, atol=1e-4)


@pytest.fixture(scope="module")
def lively_model() -> Any:
    return lively()


@pytest.mark.parametrize("text", ["", "red car"])
@pytest.mark.parametrize("batch", [1, 8])
def test_exemplars_find_what_they_find_in_the_library(batch, text, lively_model):
    model, vision = lively_model
    detector = Sam3Detector(model, Letters())
    detector.batches.size = batch
    exemplars = [EXEMPLARS, (), EXEMPLARS[:1]]
    found = detector.detect(vision, detector.encode_phrases([text or WORDLESS, "dog", text or WORDLESS]), exemplars)
    for number in (0, 2):
        expected = find_in_library(model, vision, Letters().encode([text or WORDLESS]), exemplars[number])
        scores = expected.pred_logits.sigmoid() * expected.presence_logits.sigmoid()
        rows = found.phrases == number
        assert torch.allclose(found.scores[rows], scores[0], atol=1e-5)
        assert torch.allclose(found.logits[rows], expected.pred_masks[0], atol=1e-3)
    alone = detector.detect(vision, detector.encode_phrases(["dog"]))
    assert torch.allclose(found.scores[found.phrases == 1], alone.scores, atol=1e-5)


def test_the_sign_of_an_exemplar_counts(lively_model):
    model, vision = lively_model
    detector = Sam3Detector(model, Letters())
    text = detector.encode_phrases([WORDLESS] * 2)
    opposite = Exemplar(EXEMPLARS[0].box, positive=False)
    found = detector.detect(vision, text, [EXEMPLARS[:1], (opposite,)])
    assert not torch.allclose(found.scores[found.phrases == 0], found.scores[found.phrases == 1], atol=1e-4)
