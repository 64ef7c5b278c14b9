"""Converts SAM 2's published checkpoints to the names of Transformers, and reads the model's size off their shapes."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import Sam2VideoConfig

from backend.engines.sam.published_names import TRACKER_RULES, Rules, convert_published
from backend.errors import SettingsError

RULES: Rules = (
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    *TRACKER_RULES,
)
"""How names change, rule after rule."""
POSITIONS = "vision_encoder.backbone.pos_embed"
SIZES: dict[tuple[int, int], dict[str, Any]] = {
    (96, 12): {"blocks_per_stage": [1, 2, 7, 2], "global_attention_blocks": [5, 7, 9]},
    (96, 16): {"blocks_per_stage": [1, 2, 11, 2], "global_attention_blocks": [7, 10, 13]},
    (112, 24): {"blocks_per_stage": [2, 3, 16, 3], "global_attention_blocks": [12, 16, 20]},
    (144, 48): {
        "blocks_per_stage": [2, 6, 36, 4],
        "global_attention_blocks": [23, 33, 43],
        "window_size_per_stage": [8, 4, 16, 8],
    },
}
"""What no shape tells of tiny, small, base plus and large, by width and number of blocks."""


def convert_checkpoint(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a published checkpoint as in `transformers.Sam2VideoModel`; an unknown name stays."""
    return convert_published(tensors, RULES)


def infer_config(tensors: Mapping[str, Tensor], filename: str) -> Sam2VideoConfig:
    """Read the configuration off the shapes of converted tensors.

    Raises:
        SettingsError: they are of no published model.
    """
    blocks = {int(match[1]) for name in tensors if (match := re.search(r"\.backbone\.blocks\.(\d+)\.", name))}
    positions = tensors.get(POSITIONS)
    size = SIZES.get((positions.shape[1], len(blocks))) if positions is not None and positions.ndim == 4 else None
    if positions is None or size is None:
        raise SettingsError(
            f"{filename} is not a checkpoint of SAM 2: use sam2.1_hiera_tiny.pt, _small, _base_plus or _large, or the "
            f"folder with {filename} and config.json"
        )
    widths = [positions.shape[1] * 2**stage for stage in range(4)]
    heads = 1 if widths[0] == 96 else 2
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": widths[0],
        "num_attention_heads": heads,
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [heads * 2**stage for stage in range(4)],
        "window_positional_embedding_background_size": list(positions.shape[2:]),
        **size,
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": widths[::-1],
    }
    # SAM 2.0 has neither of the two.
    return Sam2VideoConfig(
        vision_config=vision,
        enable_temporal_pos_encoding_for_object_pointers=any(
            name.startswith("temporal_positional_encoding_projection_layer") for name in tensors
        ),
        enable_occlusion_spatial_embedding="occlusion_spatial_embedding_parameter" in tensors,
    )
