"""Our forward pass of the vision transformer equals the library's."""

from typing import Any

import pytest
import torch
from transformers import Sam3VideoModel

from backend.engines.sam.device import narrow_weights
from backend.engines.sam3.vision_transformer import VisionTransformer
from tests.engines.sam3 import tiny


def backbone_of(side: int) -> Any:
    """A backbone of livelier random weights, with two windowed layers, a global one and a windowed one."""
    config = tiny.config()
    vision = config.detector_config.vision_config
    vision.backbone_config.num_hidden_layers, vision.backbone_config.global_attn_indexes = 4, [2]
    config.image_size = vision.backbone_config.image_size = side
    torch.manual_seed(0)
    model = Sam3VideoModel(config).eval().requires_grad_(False)
    tiny.enliven_layers(model.detector_model.vision_encoder)
    return model.detector_model.vision_encoder.backbone


# Sides whose windows fill the grid, and one that has to be padded.
@pytest.mark.parametrize("side", [112, 126])
def test_it_equals_the_library_in_single_precision(side):
    backbone = backbone_of(side)
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = backbone(pixels).last_hidden_state
        found = VisionTransformer(backbone).encode(pixels)
        again = backbone(pixels).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(again, expected), "the library's own weights are views that hold the same"


@pytest.mark.parametrize("side", [112, 126])
def test_it_equals_the_library_within_bfloat16s_rounding(side):
    backbone = backbone_of(side)
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected = backbone(pixels).last_hidden_state.float()
        narrow_weights(backbone)
        assert torch.equal(backbone(pixels).last_hidden_state.float(), expected), (
            "rounding the weights once is the same"
        )
        found = VisionTransformer(backbone).encode(pixels).float()
    exact = backbone_of(side)(pixels).last_hidden_state
    off, theirs = ((one - exact).abs().max() for one in (found, expected))
    assert off < 1.5 * theirs
    assert (found - expected).abs().mean() < 0.01 * expected.abs().mean()
