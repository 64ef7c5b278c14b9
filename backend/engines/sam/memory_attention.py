"""One layer of the memory attention, for many objects at once."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from backend.engines.sam.image_encoder import to_autocast


class MemoryTokens(NamedTuple):
    """What m objects attend to that have equally many tokens.

    Attributes:
        keys: shape (m, tokens, memory width).
        values: the same shape.
        mask: shape (m, 1, 1, tokens), false on padding; None: no padding.
        pointer_count: how many of the last tokens have no position in the image.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None
    pointer_count: int


def attend_to_memory(layer: Any, state: Tensor, memories: Sequence[MemoryTokens], rope: Tensor) -> Tensor:
    """Run one layer.

    Args:
        layer: of the model's memory attention, of SAM 2 or SAM 3.
        state: shape (n, positions, width), or (1, …) while it is still the same for all objects.
        memories: of the n objects, in groups.
        rope: shape (positions, head width / 2), rotary position encoding as complex numbers.
    """
    attention = layer.self_attn
    # Cast once: autocast would do so for each product.
    normed = to_autocast(layer.layer_norm1(state))
    query, key, value = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
    query, key = _apply_rope(torch.cat([query, key], -1), rope).chunk(2, -1)
    state = state + _project(attention, [_attend(attention, query, key, value, None)])
    attention = layer.cross_attn_image
    query = _apply_rope(attention.q_proj(layer.layer_norm2(state)), rope)
    counts = [len(memory.keys) for memory in memories]
    queries = query.expand(sum(counts), -1, -1).split_with_sizes(counts)
    attended = [
        _attend_to_group(attention, query, memory, rope) for query, memory in zip(queries, memories, strict=True)
    ]
    state = state + _project(attention, attended)
    output: Tensor = layer.linear2(layer.activation(layer.linear1(layer.layer_norm3(state))))
    return state + output


def _attend_to_group(attention: Any, query: Tensor, memory: MemoryTokens, rope: Tensor) -> Tensor:
    key, value = attention.k_proj(memory.keys), attention.v_proj(memory.values)
    placed = key.shape[1] - memory.pointer_count
    key = torch.cat([_apply_rope(key[:, :placed], rope), key[:, placed:]], 1)
    return _attend(attention, query, key, value, memory.mask)


def _apply_rope(vectors: Tensor, rope: Tensor) -> Tensor:
    """Apply rotary position encoding (arXiv:2104.09864) to vectors (n, k * positions, width), in single precision."""
    positions, half = rope.shape
    pairs = torch.view_as_complex(
        vectors.float().view(len(vectors), -1, positions, vectors.shape[-1] // half // 2, half, 2)
    )
    return torch.view_as_real(pairs * rope[:, None]).view_as(vectors).to(vectors.dtype)


def _attend(attention: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    def split(vectors: Tensor) -> Tensor:
        return vectors.view(*vectors.shape[:2], attention.num_attention_heads, -1).transpose(1, 2)

    attended = functional.scaled_dot_product_attention(
        split(query), split(key), split(value), attn_mask=mask, scale=attention.scaling
    )
    return attended.transpose(1, 2).flatten(2)


def _project(attention: Any, attended: list[Tensor]) -> Tensor:
    output: Tensor = attention.o_proj(torch.cat(attended) if len(attended) > 1 else attended[0])
    return output
