"""Encodes exemplars: boxes on a frame become tokens that follow the words of a query.

As `Sam3GeometryEncoder` of Transformers does, without torchvision, which has no build beside a CPU's torch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

from backend.tracks.geometry import Box
from backend.tracks.prompts import Exemplar


def encode_geometry(encoder: Any, image: Sam3VisionEncoderOutput, exemplars: Sequence[Exemplar] = ()) -> Tensor:
    """The tokens of a frame's exemplars, in their order, and one more that stands for all of them.

    Args:
        encoder: the model's geometry encoder.
        image: features of one frame, batch 1.
        exemplars: with boxes as shares of the picture.

    Returns:
        Shape (1, exemplars + 1, width).
    """
    level = image.fpn_hidden_states[2]
    features, positions = (grid.flatten(2).transpose(1, 2) for grid in (level, image.fpn_position_encoding[2]))
    tokens: Tensor = encoder.cls_embed.weight[None]
    if exemplars:
        tokens = torch.cat([_encode_boxes(encoder, level, exemplars)[None], tokens], 1)
    tokens = encoder.prompt_layer_norm(encoder.final_proj(tokens))
    for layer in encoder.layers:
        tokens = layer(prompt_feats=tokens, vision_feats=features, vision_pos_encoding=positions, prompt_mask=None)
    encoded: Tensor = encoder.output_layer_norm(tokens)
    return encoded


def _encode_boxes(encoder: Any, level: Tensor, exemplars: Sequence[Exemplar]) -> Tensor:
    """What stands for each exemplar before the encoder's layers: shape (exemplars, width)."""
    corners = torch.tensor([exemplar.box for exemplar in exemplars], dtype=torch.float32, device=level.device)
    sides = corners[:, 2:] - corners[:, :2]
    boxes = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, sides], 1)
    normalised = encoder.vision_layer_norm(level.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    pooled = torch.cat([pool_box(normalised, exemplar.box, encoder.roi_size) for exemplar in exemplars])
    positive = torch.tensor([exemplar.positive for exemplar in exemplars], device=level.device).long()
    encoded: Tensor = (
        encoder.boxes_direct_project(boxes)
        + encoder.boxes_pool_project(pooled).flatten(1)
        + encoder.boxes_pos_enc_project(encoder._encode_box_coordinates(*boxes.unbind(1)))
        + encoder.label_embed(positive)
    )
    return encoded


def pool_box(features: Tensor, box: Box, size: int) -> Tensor:
    """RoIAlign (arXiv:1703.06870) of one box, as torchvision's `roi_align` computes it by default.

    Args:
        features: shape (1, channels, h, w).
        box: in shares of the picture.
        size: cells along a side of the result, each the mean of samples at most one cell apart.

    Returns:
        Shape (1, channels, size, size).
    """
    height, width = features.shape[2:]
    across = _samples(box.x0 * width, box.width * width, size, features.device)
    down = _samples(box.y0 * height, box.height * height, size, features.device)
    # `grid_sample` reads places from -1 to 1, which are the centres of the first and of the last cell.
    places = torch.stack(
        torch.meshgrid(2 * across / max(width - 1, 1) - 1, 2 * down / max(height - 1, 1) - 1, indexing="xy"), -1
    )
    sampled = functional.grid_sample(features.float(), places[None], padding_mode="border", align_corners=True)
    inside = ((down >= -1) & (down <= height))[:, None] & ((across >= -1) & (across <= width))
    pooled: Tensor = functional.adaptive_avg_pool2d(sampled * inside, size)
    return pooled.to(features.dtype)


def _samples(start: float, length: float, size: int, device: torch.device) -> Tensor:
    """Where a side of a box is sampled, in cells."""
    length = max(length, 1.0)
    count = size * max(1, -int(-length // size))
    return start + (torch.arange(count, device=device, dtype=torch.float32) + 0.5) * (length / count)
