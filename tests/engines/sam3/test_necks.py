"""The necks, beside the library's own layers one after the other."""

import pytest
import torch

from backend.engines.sam.device import narrow_weights
from backend.engines.sam3.necks import Necks
from tests.engines.sam3 import tiny


@pytest.mark.parametrize("narrow", [False, True])
def test_merged_convolutions_do_what_the_librarys_two_do(narrow):
    model = tiny.build()
    for parameter in model.tracker_neck.parameters():  # the biases, too, which are 0 at first
        torch.nn.init.normal_(parameter, std=0.3)
    if narrow:
        narrow_weights(model)
    width = model.tracker_neck.fpn_layers[2].proj1.in_channels
    side = model.tracker_model.prompt_encoder.image_embedding_size[0]
    hidden = torch.randn(1, side * side, width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        grid = hidden.view(1, side, side, width).permute(0, 3, 1, 2)
        fine, middle, coarse = (layer(grid) for layer in model.tracker_neck.fpn_layers[:3])
        decoder = model.tracker_model.mask_decoder
        expected = [decoder.conv_s0(fine), decoder.conv_s1(middle), coarse]
        levels = Necks(model).tracker_levels(hidden)
    for level, theirs in zip(levels, expected, strict=True):
        assert level.dtype == theirs.dtype
        spread = theirs.float().std().item()
        torch.testing.assert_close(level, theirs, atol=(0.03 if narrow else 1e-5) * spread, rtol=0)
