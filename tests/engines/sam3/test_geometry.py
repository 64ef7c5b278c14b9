"""Exemplars are encoded, and found by, as the library does it, which needs torchvision for one step.

That step, RoIAlign, is written here by its definition (arXiv:1703.06870, torchvision's borders), sample by sample. The
numbers of facebookresearch/sam3 itself are in `test_checkpoint`.
"""

import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.sam3.modeling_sam3 import Sam3Model

from backend.engines.sam3.detector import WORDLESS, Sam3Detector
from backend.engines.sam3.geometry import pool_box
from backend.tracks.geometry import Box
from backend.tracks.prompts import Exemplar
from tests.engines.sam3.test_detector import Letters
from tests.engines.sam3.tiny import IMAGE, build, enliven

EXEMPLARS = (
    Exemplar(Box(0.1, 0.2, 0.45, 0.6)),
    Exemplar(Box(0.55, 0.1, 0.95, 0.3), positive=False),
    Exemplar(Box(0.8, 0.9, 1, 1)),
)


def sampled(features: Tensor, x: float, y: float) -> Tensor:
    """The value at a place, between the four cells around it; zero beyond a cell outside."""
    height, width = features.shape[1:]
    if not (-1 <= x <= width and -1 <= y <= height):
        return torch.zeros(len(features))
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    left, top = min(int(x), width - 2), min(int(y), height - 2)
    across, down = x - left, y - top
    return (
        features[:, top, left] * (1 - across) * (1 - down)
        + features[:, top, left + 1] * across * (1 - down)
        + features[:, top + 1, left] * (1 - across) * down
        + features[:, top + 1, left + 1] * across * down
    )


def aligned(features: Tensor, box: Tensor, size: int) -> Tensor:
    """RoIAlign of one box in cells: shape (channels, size, size)."""
    x0, y0, x1, y1 = box.tolist()
    width, height = max(x1 - x0, 1), max(y1 - y0, 1)
    columns, rows = math.ceil(width / size), math.ceil(height / size)
    cells = []
    for row in range(size):
        for column in range(size):
            places = [
                (x0 + (column + (i + 0.5) / columns) * width / size, y0 + (row + (j + 0.5) / rows) * height / size)
                for i in range(columns)
                for j in range(rows)
            ]
            cells.append(torch.stack([sampled(features, *place) for place in places]).mean(0))
    return torch.stack(cells, 1).view(-1, size, size)


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
def model() -> Any:
    made = build(score_threshold_detection=0.0, det_nms_thresh=0.0)
    enliven(made)
    return made


@pytest.fixture(scope="module")
def vision(model: Any) -> Any:
    with torch.no_grad():
        picture = torch.rand(1, 3, IMAGE, IMAGE, generator=torch.Generator().manual_seed(1)) * 2 - 1
        return model.detector_model.get_vision_features(pixel_values=picture)


@pytest.fixture
def library(model: Any, vision: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library's own forward pass for words and exemplars."""

    def roi_align(features: Tensor, boxes: Any, size: int) -> Tensor:
        return torch.stack([aligned(features[0], box, size) for (some,) in [boxes] for box in some])

    operators = SimpleNamespace(ops=SimpleNamespace(roi_align=roi_align))
    monkeypatch.setattr(sys.modules[Sam3Model.__module__], "torchvision", operators, raising=False)

    def find(text: str, exemplars: tuple[Exemplar, ...]) -> Any:
        ids, mask = Letters().encode([text])
        boxes = [
            [(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, box.width, box.height]
            for box in (exemplar.box for exemplar in exemplars)
        ]
        with torch.no_grad():
            return model.detector_model(
                vision_embeds=vision,
                input_ids=ids,
                attention_mask=mask,
                input_boxes=torch.tensor([boxes]),
                input_boxes_labels=torch.tensor([[int(exemplar.positive) for exemplar in exemplars]]),
            )

    return find


@pytest.mark.parametrize("text", ["", "red car"])
@pytest.mark.parametrize("batch", [1, 8])
def test_exemplars_find_what_they_find_in_the_library(batch, text, model, vision, library):
    detector = Sam3Detector(model, Letters())
    detector.batches.size = batch
    exemplars = [EXEMPLARS, (), EXEMPLARS[:1]]
    found = detector.detect(vision, detector.encode_phrases([text or WORDLESS, "dog", text or WORDLESS]), exemplars)
    for number in (0, 2):
        expected = library(text or WORDLESS, exemplars[number])
        scores = expected.pred_logits.sigmoid() * expected.presence_logits.sigmoid()
        rows = found.phrases == number
        assert torch.allclose(found.scores[rows], scores[0], atol=1e-5)
        assert torch.allclose(found.logits[rows], expected.pred_masks[0], atol=1e-3)
    alone = detector.detect(vision, detector.encode_phrases(["dog"]))
    assert torch.allclose(found.scores[found.phrases == 1], alone.scores, atol=1e-5)


def test_the_sign_of_an_exemplar_counts(model, vision):
    detector = Sam3Detector(model, Letters())
    text = detector.encode_phrases([WORDLESS] * 2)
    opposite = Exemplar(EXEMPLARS[0].box, positive=False)
    found = detector.detect(vision, text, [EXEMPLARS[:1], (opposite,)])
    assert not torch.allclose(found.scores[found.phrases == 0], found.scores[found.phrases == 1], atol=1e-4)
