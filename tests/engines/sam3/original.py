"""Numbers that facebookresearch/sam3 itself computed, and the small model that computes them here.

They were taken on a CPU with its own modules, at commit 99d02f2, on weights and features that are noise made from their
names. What it imports and does not use was replaced, as were `.cuda()` and its rounding of memories to bfloat16.
"""

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Sam3VideoModel

from backend.engines.sam3.checkpoint import convert_checkpoint
from tests.engines.sam3 import tiny

TWIN = "tracker_model.shared_image_embedding.positional_embedding"
SAMPLES = 120
"""So many numbers of each of the reference's outputs are kept."""


def normal(name: str, shape: tuple[int, ...]) -> Tensor:
    """Normal noise that a name stands for; RandomState's stream is frozen for ever."""
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    return torch.from_numpy(noise.astype(np.float32))


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weight of a name: noise that keeps activations near one."""
    noise = normal(name, shape)
    if len(shape) > 1:
        return noise / float(np.prod(shape[1:])) ** 0.5
    return 1 + noise / 10 if name.endswith(("weight", "gamma")) else noise / 10


def driver_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """As `weight`, with objects that are there and memories that count for something."""
    if name == "tracker.sam_mask_decoder.pred_obj_score_head.layers.2.bias":
        return weight(name, shape) + 2
    is_strong = ".cross_attn_image." in name and name.endswith(("k_proj.weight", "v_proj.weight", "out_proj.weight"))
    return weight(name, shape) * (3 if is_strong and name.startswith("tracker.transformer.") else 1)


def read() -> dict[str, dict[str, Any]]:
    """The file: `shapes` of the model by original name; samples of the `outputs` of modules and of the `driver`."""
    content = (Path(__file__).parent / "sam3_pt_tiny.json.gz").read_bytes()
    numbers: dict[str, dict[str, Any]] = json.loads(gzip.decompress(content))
    return numbers


def build_model(shapes: Mapping[str, Sequence[int]], weight: Any = weight) -> Sam3VideoModel:
    """The reference's small model in transformers, with the same weights under our names."""
    config = tiny.config()
    # Sizes that the reference cannot make smaller.
    config.detector_config.text_config.intermediate_size = 128
    config.detector_config.text_config.projection_dim = 512
    config.tracker_config.prompt_encoder_config.mask_input_channels = 16
    decoder = config.tracker_config.mask_decoder_config
    decoder.mlp_dim, decoder.num_attention_heads, decoder.iou_head_hidden_dim = 2048, 8, 256
    config.tracker_config.memory_fuser_intermediate_dim = 512
    model = Sam3VideoModel(config).eval().requires_grad_(False)
    weights = convert_checkpoint({name: weight(name, tuple(shape)) for name, shape in shapes.items()})
    weights[TWIN] = weights["tracker_model.prompt_encoder.shared_embedding.positional_embedding"]
    model.load_state_dict(weights, strict=True)
    return model


def sample(ours: Tensor) -> Tensor:
    """Those of an output's numbers that are kept."""
    flat = ours.float().flatten()
    return flat[:: max(1, flat.numel() // SAMPLES)][:SAMPLES]


def relative_difference(ours: Tensor, theirs: Sequence[float]) -> float:
    """The largest difference of an output from a sample of the reference's, as a share of the largest number."""
    wanted = torch.tensor(theirs)
    return float((sample(ours) - wanted).abs().max() / wanted.abs().max())
