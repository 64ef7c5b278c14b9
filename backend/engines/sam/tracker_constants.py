"""What the tracker needs on every frame and computes once."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TrackerConstants:
    """Tensors that depend only on the weights.

    Attributes:
        memory_positions: shape (positions, memory width), of one frame's memory.
        rope: shape (positions, head width / 2), rotary position encoding of a frame as complex numbers.
        memory_rope: the same for one frame's memory.
    """

    no_points: Tensor
    no_labels: Tensor
    no_prompt: tuple[Tensor, Tensor]
    image_positions: Tensor
    frame_positions: Tensor
    pointer_periods: Tensor
    memory_positions: Tensor
    rope: Tensor
    memory_rope: Tensor

    @classmethod
    def from_model(cls, model: Any) -> "TrackerConstants":
        """Compute them for the model of a `Tracker`."""
        device = model.no_memory_embedding.device
        points, labels = torch.zeros(1, 1, 1, 2, device=device), -torch.ones(1, 1, 1, dtype=torch.int32, device=device)
        rows, columns = model.backbone_feature_sizes[-1]
        encode, half = model.memory_encoder.position_encoding, model.hidden_dim // 2
        rope = compute_rope(model.memory_attention, model.memory_attention.position_ids)
        wide = type(encode)(num_position_features=half, normalize=True)
        return cls(
            no_points=points,
            no_labels=labels,
            no_prompt=model.prompt_encoder(
                input_points=points, input_labels=labels, input_boxes=None, input_masks=None
            ),
            image_positions=model.get_image_wide_positional_embeddings(),
            # The library adds a tenth of them to the frame.
            frame_positions=0.1 * wide(torch.Size((1, model.hidden_dim, rows, columns)), device, torch.float32),
            # Of the sines that say how long ago a pointer was, as in the library's `get_1d_sine_pe`.
            pointer_periods=10000 ** (2 * (torch.arange(half, device=device, dtype=torch.float32) // 2) / half),
            memory_positions=encode(torch.Size((1, model.mem_dim, rows, columns)), device, torch.float32)[0]
            .flatten(1)
            .T.contiguous(),
            rope=rope,
            memory_rope=rope,
        )


def compute_rope(attention: Any, positions: Tensor) -> Tensor:
    """Rotary position encoding as complex numbers.

    Args:
        attention: the model's memory attention.
        positions: of n tokens, shape (n, 2).

    Returns:
        Shape (n, head width / 2).
    """
    like = torch.zeros(1, device=positions.device)
    cosines, sines = attention.rotary_emb(like, positions)
    return torch.complex(cosines[0, :, ::2].contiguous(), sines[0, :, ::2].contiguous())
