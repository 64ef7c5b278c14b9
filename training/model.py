"""The model's configuration, its tokenizer, and its initial weights."""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTokenizer, Sam3VideoConfig, Sam3VideoModel

from backend.shapes import COLOURS, SHAPES

SIDE, PATCH = 168, 14
"""Sides of the model's square input and of a patch, in pixels."""
GRID = SIDE // PATCH
FINE = 4 * GRID
"""Side of a mask and of the finest level of the feature pyramid, in cells."""
WIDTH = 128
"""Channels of pyramid, detector and tracker. Memory attention needs a multiple of 64 above 64."""
DEEP = 192
"""Channels of the vision encoder."""
TEXT = 64
QUERIES = 5
"""Side of the grid of the detector's queries; it finds at most QUERIES**2 objects."""
TOKENS = 32
"""Maximum number of tokens of a phrase, including start and end."""
WORDS = (
    *COLOURS,
    *(word for shape in (*SHAPES, "shape", "object") for word in (shape, f"{shape}s")),
    *("a", "an", "the", "all", "and", "of", "every"),
    *("orange", "purple", "white", "black", "pink", "grey", "person", "people", "car", "dog", "cat", "ball"),
)
"""Words with a token of their own; others are spelt in letters."""
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def config() -> Sam3VideoConfig:
    """The architecture of SAM 3 at about a hundredth of its size."""
    levels = [[FINE, FINE], [2 * GRID, 2 * GRID], [GRID, GRID]]
    vision = {
        "model_type": "sam3_vision_model",
        "fpn_hidden_size": WIDTH,
        "backbone_feature_sizes": levels,
        "scale_factors": [4.0, 2.0, 1.0, 0.5],
        "backbone_config": {
            "model_type": "sam3_vit_model",
            "hidden_size": DEEP,
            "intermediate_size": 2 * DEEP,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "image_size": SIDE,
            "pretrain_image_size": SIDE,
            "patch_size": PATCH,
            "window_size": GRID // 2,
            "global_attn_indexes": [1, 3, 5],
            "hidden_act": "gelu",
        },
    }
    part = {"hidden_size": WIDTH, "num_attention_heads": 4, "intermediate_size": 256, "dropout": 0.0}
    words = len(vocabulary())
    detector = {
        "model_type": "sam3",
        "vision_config": vision,
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": words,
            "hidden_size": TEXT,
            "intermediate_size": 2 * TEXT,
            "projection_dim": TEXT,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": TOKENS,
            "hidden_act": "gelu",
            "bos_token_id": words - 2,
            "eos_token_id": words - 1,
            "pad_token_id": words - 1,
        },
        "geometry_encoder_config": {"num_layers": 1, "roi_size": 7, **part},
        "detr_encoder_config": {"num_layers": 2, **part},
        "detr_decoder_config": {"num_layers": 3, "num_queries": QUERIES**2, **part},
        "mask_decoder_config": {"hidden_size": WIDTH, "num_upsampling_stages": 3, "num_attention_heads": 4},
    }
    tracker = {
        "model_type": "sam3_tracker_video",
        "vision_config": vision,
        "prompt_encoder_config": {
            "hidden_size": WIDTH,
            "image_size": SIDE,
            "patch_size": PATCH,
            "mask_input_channels": 16,
        },
        "mask_decoder_config": {
            "hidden_size": WIDTH,
            "mlp_dim": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "iou_head_hidden_dim": 64,
            "dynamic_multimask_via_stability": False,
        },
        "multimask_output_for_tracking": False,
        "image_size": SIDE,
        "memory_attention_hidden_size": WIDTH,
        "memory_attention_num_layers": 2,
        "memory_attention_feed_forward_hidden_size": 256,
        "memory_attention_dropout": 0.0,
        "memory_attention_rope_dropout": 0.0,
        "memory_attention_rope_feat_sizes": [GRID, GRID],
        "memory_encoder_hidden_size": WIDTH,
        "memory_encoder_output_channels": 64,
        "memory_fuser_layer_scale_init_value": 0.1,
        "memory_fuser_embed_dim": WIDTH,
        "memory_fuser_intermediate_dim": 256,
        "mask_downsampler_embed_dim": WIDTH,
    }
    return Sam3VideoConfig(detector_config=detector, tracker_config=tracker, low_res_mask_size=FINE)


def start(seed: int) -> Sam3VideoModel:
    """Create the model with initial weights that preserve the scale of the signal.

    The library draws all weights with a standard deviation of 0.02. At this width, each layer then damps its input
    four- to fivefold, and training takes long to start.
    """
    torch.manual_seed(seed)
    model = Sam3VideoModel(config())
    with torch.no_grad():
        for name, module in model.named_modules():
            if "text_encoder" in name:
                continue
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
            elif isinstance(module, nn.ConvTranspose2d):
                module.weight.normal_(0, module.weight.shape[0] ** -0.5)
            elif isinstance(module, nn.Conv2d):
                module.weight.normal_(0, module.weight[0].numel() ** -0.5)
            else:
                continue
            if module.bias is not None:
                module.bias.zero_()
        _start_tracker(model.tracker_model)
        _start_detector(model.detector_model)
    return model


def _start_tracker(tracker: Any) -> None:
    decoder, prompts = tracker.mask_decoder, tracker.prompt_encoder
    # SAM has one table of positions. A new model of the library has two, so clicks would match no place in the picture.
    prompts.shared_embedding.positional_embedding.copy_(tracker.shared_image_embedding.positional_embedding)
    tokens = (decoder.mask_tokens, decoder.iou_token, decoder.obj_score_token)
    for embedding in (*tokens, prompts.point_embed, prompts.not_a_point_embed):
        embedding.weight.normal_(0, 0.7)
    prompts.no_mask_embed.weight.normal_(0, 0.1)
    tracker.no_memory_embedding.normal_(0, 0.02)
    for parameter in (
        tracker.memory_temporal_positional_encoding,
        tracker.no_object_pointer,
        tracker.occlusion_spatial_embedding_parameter,
    ):
        parameter.normal_(0, 0.2)
    for head in decoder.output_hypernetworks_mlps:
        [module for module in head.modules() if isinstance(module, nn.Linear)][-1].weight.mul_(0.3)
    # Queries and keys start with equal projections, so tokens attend to similar positions and a click has an effect at
    # its place. With independent ones, all clicks in a picture look alike for thousands of pictures.
    for name, attention in decoder.transformer.named_modules():
        if name.endswith(("_token_to_image", "_image_to_token")):
            attention.q_proj.weight.mul_(1.4)
            attention.k_proj.weight.copy_(attention.q_proj.weight)
    _start_memory(tracker)
    # Where a prompt mask is 0, a norm would divide by zero, and its gradient would dominate all others.
    for layer in (prompts.mask_embed.conv1, prompts.mask_embed.conv2):
        layer.bias.normal_(0, 0.5)
    prompts.mask_embed.conv3.weight.mul_(0.3)
    # A mask prompt starts as its own average.
    tracker.mask_downsample.weight.fill_(1 / tracker.mask_downsample.weight[0].numel())
    tracker.mask_downsample.bias.zero_()


def _start_memory(tracker: Any) -> None:
    """Initialise the memory to encode where the object was, and memory attention to search around that place.

    With random weights, the mask is a hundredth of a memory, and attention is uniform. Here queries and keys get a
    constant component in the channel pairs that rotary position encoding turns by more than 0.1 per cell. Their
    product is largest at the same place, and falls to zero within three cells.
    """
    encoder = tracker.memory_encoder
    encoder.feature_projection.weight.mul_(0.1)
    encoder.mask_downsampler.final_conv.weight.mul_(4)
    encoder.projection.weight.mul_(0.25)
    attention = tracker.memory_attention
    cosines, _ = attention.rotary_emb(torch.zeros(1), attention.position_ids)
    by_one = torch.minimum(cosines[0, 1], cosines[0, GRID])
    for layer in attention.layers:
        layer.cross_attn_image.o_proj.weight.mul_(4)
        for projection in (layer.cross_attn_image.q_proj, layer.cross_attn_image.k_proj):
            projection.bias.copy_(1.5 * (by_one < math.cos(0.1)))


def _start_detector(detector: Any) -> None:
    detector.mask_decoder.mask_embedder.layers[-1].weight.mul_(0.1)
    decoder = detector.detr_decoder
    decoder.presence_token.weight.normal_(0, 0.7)
    # Queries start on a grid; in the library, all of them start in the middle of the picture.
    places = (torch.arange(QUERIES) + 0.5) / QUERIES
    down, across = torch.meshgrid(places, places, indexing="ij")
    size = torch.full_like(across, 0.2)
    decoder.reference_points.weight.copy_(torch.logit(torch.stack([across, down, size, size], -1).flatten(0, 1)))
    decoder.query_embed.weight.normal_(0, 1)
    decoder.box_head.layer3.weight.zero_()
    decoder.box_head.layer3.bias.zero_()


def vocabulary() -> dict[str, int]:
    """The vocabulary of a CLIP tokenizer in which each of `WORDS` is one token."""
    letters = _letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge) for merge in _merges())]
    return {token: index for index, token in enumerate([*dict.fromkeys(tokens), BOS, EOS])}


def tokenizer() -> CLIPTokenizer:
    """The library's tokenizer with `vocabulary`."""
    make: Any = CLIPTokenizer  # Its annotations lack these arguments.
    special = {"unk_token": EOS, "bos_token": BOS, "eos_token": EOS, "pad_token": EOS}
    made: CLIPTokenizer = make(vocab=vocabulary(), merges=_merges(), model_max_length=TOKENS, **special)
    return made


def load(folder: Path) -> Sam3VideoModel:
    """Read a folder that `save` wrote, in single precision."""
    model = Sam3VideoModel(Sam3VideoConfig.from_pretrained(folder))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model


def save(model: Sam3VideoModel, folder: Path) -> None:
    """Write a folder in the hub's layout, with the weights in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        tensors[name] = tensor.detach().to("cpu", torch.float16).contiguous().clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _letters() -> list[str]:
    """The characters that GPT-2 and CLIP use for the 256 bytes, printable ones first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(others)]


def _merges() -> list[tuple[str, str]]:
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = _merged([*word[:-1], word[-1] + "</w>"], merges)
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = _merged(parts, merges)
    return merges


def _merged(parts: list[str], merges: list[tuple[str, str]]) -> list[str]:
    for left, right in merges:
        at = 0
        while at < len(parts) - 1:
            if (parts[at], parts[at + 1]) == (left, right):
                parts[at : at + 2] = [left + right]
            at += 1
    return parts
