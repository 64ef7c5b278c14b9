"""Converts EdgeTAM's published checkpoint to the names of Transformers."""

from collections.abc import Mapping

from torch import Tensor
from transformers import EdgeTamVideoConfig

from backend.engines.edgetam.backbone import BACKBONE, RepVitConfig
from backend.engines.sam.published_names import TRACKER_RULES, Rules, convert_published

_LAYER = r"^(spatial_perceiver\.layers\.\d+)"
RULES: Rules = (
    (r"^image_encoder\.trunk\.body\.", BACKBONE),
    (r"^(memory_attention\.layers\.\d+)\.linear1\.", r"\1.mlp.up_proj."),
    (r"^(memory_attention\.layers\.\d+)\.linear2\.", r"\1.mlp.down_proj."),
    (r"^spatial_perceiver\.latents$", "spatial_perceiver.latents_1d"),
    (_LAYER + r"\.attn\.norm_x\.", r"\1.layer_norm_input."),
    (_LAYER + r"\.attn\.norm_latents\.", r"\1.layer_norm_latents."),
    (_LAYER + r"\.self_attn\.norm\.", r"\1.layer_norm_self."),
    (_LAYER + r"\.attn\.", r"\1.cross_attention."),
    (_LAYER + r"\.self_attn\.", r"\1.self_attention."),
    (_LAYER + r"\.ff\.", r"\1.mlp."),
    (_LAYER + r"\.self_ff\.", r"\1.self_mlp."),
    (_LAYER + r"(\.\w+)\.to_q\.", r"\1\2.q_proj."),
    (_LAYER + r"(\.\w+)\.to_out\.", r"\1\2.o_proj."),
    (_LAYER + r"(\.\w+)\.0\.", r"\1\2.layer_norm."),
    (_LAYER + r"(\.\w+)\.1\.", r"\1\2.up_proj."),
    (_LAYER + r"(\.\w+)\.3\.", r"\1\2.down_proj."),
    *TRACKER_RULES,
)
"""How names change, rule after rule."""


def convert_checkpoint(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors as in `transformers.EdgeTamVideoModel`, but for the backbone's; an unknown name stays."""
    result: dict[str, Tensor] = {}
    for name, tensor in convert_published(tensors, RULES).items():
        if ".to_kv." in name:  # keys and values in one
            for part, half in zip(("k_proj", "v_proj"), tensor.chunk(2), strict=True):
                result[name.replace("to_kv", part)] = half
        else:
            result[name] = tensor
    return result


def published_config() -> EdgeTamVideoConfig:
    """The configuration of the published model: there is one size."""
    return EdgeTamVideoConfig(
        vision_config={"model_type": "edgetam_vision_model", "backbone_config": RepVitConfig().to_dict()},
        enable_temporal_pos_encoding_for_object_pointers=False,
        enable_occlusion_spatial_embedding=False,
    )
