"""What the library finds by exemplars, for comparisons; it needs torchvision for RoIAlign alone, which is written here.

That is by its definition (arXiv:1703.06870, torchvision's borders), sample by sample.
"""

import math
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from transformers.models.sam3.modeling_sam3 import Sam3Model

from backend.engines.sam.mask_boxes import masks_to_boxes
from backend.engines.sam3.detector import WORDLESS, Sam3Detector
from backend.engines.sam3.geometry import encode_geometry
from backend.tracks.geometry import Box
from backend.tracks.prompts import Exemplar
from tests.engines.sam3 import original
from tests.engines.sam3.test_detector import Letters
from tests.engines.sam3.tiny import IMAGE, build, enliven

EXEMPLARS = (
    Exemplar(Box(0.1, 0.2, 0.45, 0.6)),
    Exemplar(Box(0.55, 0.1, 0.95, 0.3), positive=False),
    Exemplar(Box(0.8, 0.9, 1, 1)),
)
ORIGINAL = tuple(
    Exemplar(Box(*box), positive=number < 2)
    for number, box in enumerate(
        [(0.1, 0.2, 0.45, 0.6), (0.55, 0.1, 0.95, 0.3), (0.8, 0.82, 1, 1), (0.3, 0.7, 0.32, 0.75)]
    )
)
"""Those that the reference's numbers `exemplars` are of."""


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


def _roi_align(features: Tensor, boxes: Sequence[Tensor], size: int) -> Tensor:
    return torch.stack([aligned(features[0], box, size) for (some,) in [boxes] for box in some])


def find_in_library(model: Any, vision: Any, words: tuple[Tensor, Tensor], exemplars: Sequence[Exemplar]) -> Any:
    """The library's own forward pass for words, as ids and mask, and exemplars."""
    boxes = [
        [(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, box.width, box.height]
        for box in (exemplar.box for exemplar in exemplars)
    ]
    operators = SimpleNamespace(ops=SimpleNamespace(roi_align=_roi_align))
    with torch.no_grad(), patch.object(sys.modules[Sam3Model.__module__], "torchvision", operators, create=True):
        return model.detector_model(
            vision_embeds=vision,
            input_ids=words[0],
            attention_mask=words[1],
            input_boxes=torch.tensor([boxes]),
            input_boxes_labels=torch.tensor([[int(exemplar.positive) for exemplar in exemplars]]),
        )


def lively() -> tuple[Any, Any]:
    """A model of random weights that reports everything, and its features of a picture."""
    model = build(score_threshold_detection=0.0, det_nms_thresh=0.0)
    enliven(model)
    with torch.no_grad():
        picture = torch.rand(1, 3, IMAGE, IMAGE, generator=torch.Generator().manual_seed(1)) * 2 - 1
        return model, model.detector_model.get_vision_features(pixel_values=picture)


def is_as_published() -> bool:
    """Whether tokens of boxes are the reference's, and what they find is what the library finds."""
    numbers = original.read()
    with torch.no_grad():
        model = original.build_model(numbers["shapes"]).detector_model
        vision = model.get_vision_features(original.normal("pixels", (1, 3, 112, 112)).clamp(-1, 1))
        tokens = encode_geometry(model.geometry_encoder, vision, ORIGINAL)
    if original.relative_difference(tokens, numbers["outputs"]["exemplars"]) > 1e-4:
        return False
    whole, vision = lively()
    detector = Sam3Detector(whole, Letters())
    found = detector.detect(vision, detector.encode_phrases([WORDLESS]), [EXEMPLARS])
    theirs = find_in_library(whole, vision, Letters().encode([WORDLESS]), EXEMPLARS)
    ours, expected = (masks_to_boxes(logits, 360, 640) for logits in (found.logits, theirs.pred_masks[0]))
    return ours.shape == expected.shape and bool(np.allclose(ours, expected, atol=0.5, equal_nan=True))
