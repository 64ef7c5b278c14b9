"""A SAM 2 of 2 million random weights: every part of the real one, at 128 pixels, quick enough for tests."""

from pathlib import Path
from typing import Any

import torch
from transformers import Sam2VideoConfig, Sam2VideoModel

from tests.engines.sam.tiny_parts import IMAGE, tracker, vision
from tests.engines.sam3.tiny import enliven_layers, enliven_tracker


def config(**changes: Any) -> Sam2VideoConfig:
    """The configuration; `changes` are of the video model's own keys."""
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 16,
        "image_size": [IMAGE, IMAGE],
        "blocks_per_stage": [1, 2, 3, 2],
        "embed_dim_per_stage": [16, 32, 64, 128],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [4],
    }
    return Sam2VideoConfig(
        vision_config=vision("sam2_vision_model", backbone),
        memory_attention_feed_forward_hidden_size=64,
        **tracker(),
        **changes,
    )


def build(seed: int = 5, **changes: Any) -> Sam2VideoModel:
    """The model with random weights that make masks which change with the picture and the prompt."""
    torch.manual_seed(seed)
    model = Sam2VideoModel(config(**changes)).eval()
    enliven(model, seed)
    return model


@torch.no_grad()
def enliven(model: Sam2VideoModel, seed: int = 0) -> None:
    """As `tests.engines.sam3.tiny.enliven`, of any size."""
    torch.manual_seed(seed + 1)
    enliven_layers(model)
    for table in (model.vision_encoder.backbone.pos_embed, model.vision_encoder.backbone.pos_embed_window):
        table.normal_(0, 0.5)
    enliven_tracker(model)
    model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(6)


def save(folder: Path, seed: int = 5, **changes: Any) -> Path:
    """The model in the hub's layout."""
    build(seed, **changes).save_pretrained(folder)
    return folder
