"""An EdgeTAM of a million random weights: every part of the real one, at 128 pixels, quick enough for tests."""

from pathlib import Path
from typing import Any

import torch
from transformers import EdgeTamVideoConfig, EdgeTamVideoModel

from backend.engines.edgetam.backbone import RepVitConfig
from tests.engines.sam3.tiny import enliven_layers, enliven_tracker

IMAGE, PATCH = 128, 16
GRID = IMAGE // PATCH
WIDTH = 128
WHOLE, WINDOWS = 8, 4
"""Tokens of a memory: those of the whole frame, and the windows along a side."""


def config(**changes: Any) -> EdgeTamVideoConfig:
    """The configuration; `changes` are of the video model's own keys."""
    vision = {
        "model_type": "edgetam_vision_model",
        "backbone_config": RepVitConfig(widths=(16, 32, 64, 128), depths=(1, 1, 2, 1)).to_dict(),
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[scale * GRID, scale * GRID] for scale in (4, 2, 1)],
        "fpn_hidden_size": WIDTH,
    }
    decoder = {
        "hidden_size": WIDTH,
        "mlp_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 32,
    }
    return EdgeTamVideoConfig(
        vision_config=vision,
        prompt_encoder_config={
            "hidden_size": WIDTH,
            "image_size": IMAGE,
            "patch_size": PATCH,
            "mask_input_channels": 4,
        },
        mask_decoder_config=decoder,
        image_size=IMAGE,
        enable_temporal_pos_encoding_for_object_pointers=False,
        enable_occlusion_spatial_embedding=False,
        memory_attention_hidden_size=WIDTH,
        memory_attention_num_layers=2,
        memory_attention_mlp_hidden_size=64,
        memory_attention_rope_feat_sizes=[GRID, GRID],
        memory_attention_rope_k_sizes=[WINDOWS, WINDOWS],
        perceiver_resampler_num_latents=WHOLE,
        perceiver_resampler_num_latents_2d=WINDOWS**2,
        memory_encoder_hidden_size=WIDTH,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=WIDTH,
        memory_fuser_embed_dim=WIDTH,
        memory_fuser_intermediate_dim=64,
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
