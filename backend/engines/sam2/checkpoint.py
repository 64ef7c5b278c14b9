"""Converts SAM 2's published checkpoints to the names of Transformers, and reads the model's size off their shapes."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import Sam2VideoConfig

from backend.errors import SettingsError

PERCEPTRON = (
    r"(iou_prediction_head|pred_obj_score_head|output_hypernetworks_mlps\.\d+|object_pointer_proj)\.layers\.",
    ("proj_in.", "layers.0.", "proj_out."),
)
"""Perceptrons of three layers: the first and the last are named, those between are numbered."""
RULES = (
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"\.pe_layer\.positional_encoding_gaussian_matrix$", ".shared_embedding.positional_embedding"),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
    (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
    (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
    (r"\.pix_feat_proj\.", ".feature_projection."),
    (r"\.fuser\.", ".memory_fuser."),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv", ".pointwise_conv"),
    (r"\.gamma$", ".scale"),
    (r"\.mask_downsampler\.encoder\.12\.", ".mask_downsampler.final_conv."),
    # Convolution, norm, activation, four times.
    *((rf"\.mask_downsampler\.encoder\.{3 * n}\.", f".mask_downsampler.layers.{n}.conv.") for n in range(4)),
    *((rf"\.mask_downsampler\.encoder\.{3 * n + 1}\.", f".mask_downsampler.layers.{n}.layer_norm.") for n in range(4)),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.norm", ".layer_norm"),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
    (r"^obj_ptr_proj\.", "object_pointer_proj."),
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
)
"""How names change, rule after rule."""
POINTS = "prompt_encoder.point_embed"
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
    result = {rename_tensor(name): tensor for name, tensor in tensors.items()}
    rows = [result.pop(f"{POINTS}.{n}.weight", None) for n in range(4)]
    if found := [row for row in rows if row is not None]:
        # With fewer than four the table is too short, and loading reports that.
        result[f"{POINTS}.weight"] = torch.cat(found)
    return result


def rename_tensor(name: str) -> str:
    """Rename one tensor."""
    for pattern, new in RULES:
        name = re.sub(pattern, new, name)
    head, layers = PERCEPTRON
    return re.sub(rf"{head}(\d)\.", lambda match: f"{match[1]}.{layers[int(match[2])]}", name)


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
