"""An EdgeTAM of a million random weights: every part of the real one, at 128 pixels, quick enough for tests."""

from pathlib import Path
from typing import Any

import torch
from transformers import EdgeTamVideoConfig, EdgeTamVideoModel

from backend.engines.edgetam.backbone import RepVitConfig
from tests.engines.sam.tiny_parts import tracker, vision
from tests.engines.sam3.tiny import enliven_layers, enliven_tracker

WHOLE, WINDOWS = 8, 4
"""Tokens of a memory: those of the whole frame, and the windows along a side."""


def config(**changes: Any) -> EdgeTamVideoConfig:
    """The configuration; `changes` are of the video model's own keys."""
    backbone = RepVitConfig(widths=(16, 32, 64, 128), depths=(1, 1, 2, 1)).to_dict()
    return EdgeTamVideoConfig(
        vision_config=vision("edgetam_vision_model", backbone),
        enable_temporal_pos_encoding_for_object_pointers=False,
        enable_occlusion_spatial_embedding=False,
        memory_attention_mlp_hidden_size=64,
        memory_attention_rope_k_sizes=[WINDOWS, WINDOWS],
        perceiver_resampler_num_latents=WHOLE,
        perceiver_resampler_num_latents_2d=WINDOWS**2,
        **tracker(),
        **changes,
    )


def build(seed: int = 11, **changes: Any) -> EdgeTamVideoModel:
    """The model with random weights that make masks which change with the picture and the prompt."""
    torch.manual_seed(seed)
    model = EdgeTamVideoModel(config(**changes)).eval()
    enliven(model, seed)
    return model


@torch.no_grad()
def enliven(model: EdgeTamVideoModel, seed: int = 11) -> None:
    """As `tests.engines.sam3.tiny.enliven`, of any size."""
    torch.manual_seed(seed + 1)
    enliven_layers(model)
    enliven_tracker(model)
    model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(6)
    model.mask_decoder.upscale_conv2.bias.zero_()  # else some masks are empty
    model.spatial_perceiver.layer_norm.weight.fill_(0.3)  # else the last bit of a sum grows tenfold every few frames


def save(folder: Path, seed: int = 11, **changes: Any) -> Path:
    """The model in the hub's layout."""
    build(seed, **changes).save_pretrained(folder)
    return folder
