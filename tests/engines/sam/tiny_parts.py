"""What tiny models of SAM 2 and its kin have in common, at 128 pixels."""

from typing import Any

IMAGE, PATCH = 128, 16
GRID = IMAGE // PATCH
WIDTH = 128


def vision(kind: str, backbone: dict[str, Any]) -> dict[str, Any]:
    """The configuration of an image encoder of a kind, with four levels."""
    return {
        "model_type": kind,
        "backbone_config": backbone,
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[scale * GRID, scale * GRID] for scale in (4, 2, 1)],
        "fpn_hidden_size": WIDTH,
    }


def tracker() -> dict[str, Any]:
    """The configuration of all else."""
    return {
        "prompt_encoder_config": {
            "hidden_size": WIDTH,
            "image_size": IMAGE,
            "patch_size": PATCH,
            "mask_input_channels": 4,
        },
        "mask_decoder_config": {
            "hidden_size": WIDTH,
            "mlp_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 32,
        },
        "image_size": IMAGE,
        "memory_attention_hidden_size": WIDTH,
        "memory_attention_num_layers": 2,
        "memory_attention_rope_feat_sizes": [GRID, GRID],
        "memory_encoder_hidden_size": WIDTH,
        "memory_encoder_output_channels": 64,
        "mask_downsampler_embed_dim": WIDTH,
        "memory_fuser_embed_dim": WIDTH,
        "memory_fuser_intermediate_dim": 64,
    }
