"""Converts the checkpoints that SAM 2's authors and those of its kin publish to the names of Transformers."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

Rules = tuple[tuple[str, str], ...]
"""Patterns and what takes their place, rule after rule."""
PERCEPTRON = (
    r"(iou_prediction_head|pred_obj_score_head|output_hypernetworks_mlps\.\d+|object_pointer_proj)\.layers\.",
    ("proj_in.", "layers.0.", "proj_out."),
)
"""Perceptrons of three layers: the first and the last are named, those between are numbered."""
TRACKER_RULES: Rules = (
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
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
"""How names change outside the backbone."""
POINTS = "prompt_encoder.point_embed"


def rename_published(name: str, rules: Rules) -> str:
    """Rename one tensor."""
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    head, layers = PERCEPTRON
    return re.sub(rf"{head}(\d)\.", lambda match: f"{match[1]}.{layers[int(match[2])]}", name)


def convert_published(tensors: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Rename all tensors of a checkpoint, and join the point embeddings; an unknown name stays."""
    result = {rename_published(name, rules): tensor for name, tensor in tensors.items()}
    rows = [result.pop(f"{POINTS}.{n}.weight", None) for n in range(4)]
    if found := [row for row in rows if row is not None]:
        # With fewer than four the table is too short, and loading reports that.
        result[f"{POINTS}.weight"] = torch.cat(found)
    return result
