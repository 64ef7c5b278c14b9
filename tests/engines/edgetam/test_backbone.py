"""The backbone gives what timm's own does, from weights in timm's names and forms."""

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.engines.edgetam.backbone import BACKBONE, RepVit, RepVitConfig, fuse_backbone

pytestmark = pytest.mark.slow

TRUNK = "image_encoder.trunk.body."


def listed() -> dict[str, tuple[int, ...]]:
    """The shapes of every tensor of edgetam.pt."""
    lines = Path(__file__).with_name("edgetam_pt_shapes.txt").read_text().splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    return {name: () if shape == "-" else tuple(map(int, shape.split("x"))) for name, shape in rows}


def formula_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Random weights of a backbone in timm's names, the same everywhere, so large that no stage dies or explodes."""
    weights: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if not shape:
            continue
        values = torch.from_numpy(np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)).float()
        if len(shape) == 4:
            weights[name] = values * (2 / values[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            weights[name] = 1 + values.abs()
        else:
            weights[name] = (0.0 if name.endswith(("bias", "running_mean")) else 0.7) + 0.2 * values
    return weights


def picture() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 64, 64))).float()


TIMM = {
    (1, 48, 16, 16): (0.70272, 0.93733, [-0.5054, -0.3585, 1.0180, 0.2258, 0.2201, -1.0031]),
    (1, 96, 8, 8): (1.17947, 1.85997, [-0.5131, -1.0536, -0.1255, -1.2236, 0.5433, -0.0396]),
    (1, 192, 4, 4): (12.45058, 19.02384, [-3.1549, 20.7734, 0.6848, -1.3284, 12.8278, 3.7881]),
    (1, 384, 2, 2): (30.53228, 48.85038, [24.1095, 16.8760, 31.8899, 1.7416, 40.8460, 25.2011]),
}
"""What timm 1.0.31 gives for `picture` with `formula_weights`: mean of the absolute values, deviation, six values."""


def test_each_stage_equals_timms() -> None:
    shapes = {name.removeprefix(TRUNK): shape for name, shape in listed().items() if name.startswith(TRUNK)}
    published = {f"{BACKBONE}timm_model.{name}": tensor for name, tensor in formula_weights(shapes).items()}
    backbone = RepVit(RepVitConfig()).eval()
    fused = {name.removeprefix(BACKBONE): tensor for name, tensor in fuse_backbone(published).items()}
    backbone.load_state_dict(fused, strict=True)
    with torch.inference_mode():
        stages = backbone.encode(picture())
    for stage, (shape, (mean, deviation, some)) in zip(stages, TIMM.items(), strict=True):
        assert stage.shape == shape
        found = [float(stage.abs().mean()), float(stage.std()), *stage.flatten()[:: stage.numel() // 6][:6].tolist()]
        assert np.allclose(found, [mean, deviation, *some], rtol=1e-3, atol=1e-3)


def test_what_is_fused_already_and_other_parts_stay() -> None:
    tensors = {
        f"{BACKBONE}stem.conv1.weight": torch.ones(2, 3, 3, 3),
        "memory_encoder.projection.weight": torch.ones(1),
    }
    assert fuse_backbone(tensors) == tensors


def test_a_convolution_without_its_norm_is_left_out() -> None:
    assert fuse_backbone({f"{BACKBONE}timm_model.stem.conv1.c.weight": torch.ones(2, 3, 3, 3)}) == {}
