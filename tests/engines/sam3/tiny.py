"""A SAM3 of 4.7 million random weights: every part of the real one, at 112 pixels, quick enough for tests."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPTokenizer, Sam3VideoConfig, Sam3VideoModel

IMAGE, PATCH = 112, 14
GRID = IMAGE // PATCH
WIDTH = 128
VOCABULARY = 512


def vision() -> dict[str, Any]:
    """The backbone and its feature pyramid."""
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": IMAGE,
        "patch_size": PATCH,
        "window_size": 4,
        "global_attn_indexes": [1],
        "pretrain_image_size": 56,
        "hidden_act": "gelu",
    }
    return {
        "model_type": "sam3_vision_model",
        "backbone_config": backbone,
        "fpn_hidden_size": WIDTH,
        "backbone_feature_sizes": [[4 * GRID, 4 * GRID], [2 * GRID, 2 * GRID], [GRID, GRID]],
        "scale_factors": [4.0, 2.0, 1.0, 0.5],
    }


def detector() -> dict[str, Any]:
    """What finds objects by words."""
    text = {
        "model_type": "clip_text_model",
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "projection_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "hidden_act": "gelu",
        "bos_token_id": VOCABULARY - 2,
        "eos_token_id": VOCABULARY - 1,
        "pad_token_id": VOCABULARY - 1,
    }
    heads = {"hidden_size": WIDTH, "num_attention_heads": 2}
    return {
        "model_type": "sam3",
        "vision_config": vision(),
        "text_config": text,
        "geometry_encoder_config": {**heads, "num_layers": 1, "intermediate_size": 64, "roi_size": 7},
        "detr_encoder_config": {**heads, "num_layers": 1, "intermediate_size": 64},
        "detr_decoder_config": {**heads, "num_layers": 2, "num_queries": 10, "intermediate_size": 64},
        "mask_decoder_config": {**heads, "num_upsampling_stages": 3},
    }


def tracker() -> dict[str, Any]:
    """What carries masks through time."""
    return {
        "model_type": "sam3_tracker_video",
        "vision_config": vision(),
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
        "memory_attention_feed_forward_hidden_size": 64,
        "memory_attention_rope_feat_sizes": [GRID, GRID],
        "memory_encoder_hidden_size": WIDTH,
        "memory_encoder_output_channels": 64,
        "mask_downsampler_embed_dim": WIDTH,
        "memory_fuser_embed_dim": WIDTH,
        "memory_fuser_intermediate_dim": 64,
        "num_maskmem": 7,
        "max_object_pointers_in_encoder": 16,
        "max_cond_frame_num": 4,
    }


def config(**changes: Any) -> Sam3VideoConfig:
    """The configuration; `changes` are of the video model's own keys (thresholds and the like)."""
    return Sam3VideoConfig(detector_config=detector(), tracker_config=tracker(), low_res_mask_size=4 * GRID, **changes)


def build(seed: int = 0, **changes: Any) -> Sam3VideoModel:
    """The model with random weights."""
    torch.manual_seed(seed)
    return Sam3VideoModel(config(**changes)).eval()


def save(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """The model in the hub's layout, with a tokenizer that knows letters and digits alone.

    Its weights are livelier than those of `build`: see `enliven`.
    """
    model = build(seed, **changes)
    enliven(model, seed)
    return written(model, folder)


def written(model: Sam3VideoModel, folder: Path) -> Path:
    """A model in the hub's layout, with that tokenizer."""
    model.save_pretrained(folder)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    vocabulary = {letter: index for index, letter in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    vocabulary |= {"<|startoftext|>": VOCABULARY - 2, "<|endoftext|>": VOCABULARY - 1}
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    return folder


@torch.no_grad()
def enliven(model: Sam3VideoModel, seed: int = 0) -> None:
    """Random weights of such a size that masks are parts of the picture which change with it and with the prompt.

    The library's own are so small that all masks are the whole picture. Where these are, chance says; most are there.
    """
    torch.manual_seed(seed + 1)
    enliven_layers(model)
    enliven_tracker(model.tracker_model)
    _enliven_detector(model.detector_model)


def enliven_layers(model: nn.Module) -> None:
    """The part of `enliven` that holds for all layers, but the text encoder's."""
    for name, layer in model.named_modules():
        if "text_encoder" in name:
            continue
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
        elif isinstance(layer, nn.Conv2d):
            layer.weight.normal_(0, layer.weight[0].numel() ** -0.5)
        elif isinstance(layer, nn.ConvTranspose2d):
            layer.weight.normal_(0, len(layer.weight) ** -0.5)


def enliven_tracker(tracker: Any) -> None:
    """The part of `enliven` that is for a tracker, of SAM 2 and EdgeTAM as well."""
    prompts, decoder = tracker.prompt_encoder, tracker.mask_decoder
    for tokens in (decoder.mask_tokens, decoder.iou_token, decoder.obj_score_token, prompts.point_embed):
        tokens.weight.normal_(0, 1.5)
    prompts.not_a_point_embed.weight.normal_(0, 1.5)
    for embedding in (
        tracker.memory_temporal_positional_encoding,
        tracker.no_object_pointer,
        tracker.occlusion_spatial_embedding_parameter,
    ):
        if embedding is not None:
            embedding.normal_(0, 0.2)
    tracker.no_memory_embedding.normal_(0, 0.02)
    for block in tracker.memory_encoder.memory_fuser.layers:
        block.scale.fill_(0.3)
    for layer in tracker.memory_attention.layers:
        attention = layer.cross_attn_image
        for part, gain in ((attention.o_proj, 3), (attention.v_proj, 3), (attention.k_proj, 2)):
            part.weight.mul_(gain)
    for layer in decoder.transformer.layers:
        for part in (layer.cross_attn_token_to_image.k_proj, layer.self_attn.o_proj, layer.self_attn.k_proj):
            part.weight.mul_(2)
    decoder.pred_obj_score_head.proj_out.bias.fill_(1)
    _centre_masks(decoder)


def _centre_masks(decoder: Any) -> None:
    """Masks of a few patches each.

    The decoder's last channels are positive. As pairs of opposite sign, weighed likewise, they are a linear layer,
    whose answer is as often below 0 as above; the first pair is a constant, and takes a little off.
    """
    half = decoder.upscale_conv2.out_channels // 2
    for upscale in (decoder.upscale_conv1, decoder.upscale_conv2):
        upscale.weight.copy_(upscale.weight[:, :, :1, :1].expand_as(upscale.weight))
    last = decoder.upscale_conv2
    last.weight.sub_(last.weight.mean(0, keepdim=True))
    last.weight[:, half:] = -last.weight[:, :half]
    last.bias.zero_()
    last.bias[0], last.bias[half] = 0.7, -0.7
    decoder.conv_s0.bias.zero_()
    decoder.conv_s0.weight[half:] = -decoder.conv_s0.weight[:half]
    decoder.conv_s0.weight.mul_(0.3)
    decoder.conv_s1.weight.mul_(0.3)
    for network in decoder.output_hypernetworks_mlps:
        network.proj_out.weight[half:] = -network.proj_out.weight[:half]
        network.proj_out.bias.zero_()
        network.proj_out.bias[0], network.proj_out.bias[half] = -1, 1


def _enliven_detector(detector: Any) -> None:
    decoder, masks = detector.detr_decoder, detector.mask_decoder
    decoder.query_embed.weight.normal_(0, 3)
    decoder.reference_points.weight.normal_(0, 1)
    decoder.presence_token.weight.normal_(0, 0.7)
    for layer in decoder.layers:
        layer.text_cross_attn.o_proj.weight.mul_(0.2)
        layer.self_attn.o_proj.weight.mul_(0.2)
        layer.vision_cross_attn.k_proj.weight.mul_(3)
    # The pixels' features are half of them 0 and 0.4 on average; the first channel takes something off every mask.
    projection, embedding = masks.instance_projection, masks.mask_embedder.layers[-1]
    projection.bias.copy_(-0.4 * projection.weight.sum((1, 2, 3)))
    projection.weight[0], projection.bias[0] = 0, 1
    embedding.weight[0], embedding.bias[0] = 0, -3
