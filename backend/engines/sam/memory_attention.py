"""One layer of the memory attention, for many objects at once."""

from collections.abc import Sequence
from itertools import groupby
from operator import add
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import varlen

from backend.engines.sam.image_encoder import to_autocast

_MAX_FLASH_WIDTH = 256
"""Of a head."""


class MemoryTokens(NamedTuple):
    """What n objects attend to, object by object: the positions of its frames in memory, then its object pointers.

    Attributes:
        keys, values: shape (tokens, memory width).
        frame_counts: how many tokens of frames each object has.
        pointer_counts: how many tokens of pointers each has, which have no position in the image.
        starts: shape (n + 1,) each: where each object's queries and its values start, and where the last ones end;
            None: flash attention is not asked for.
    """

    keys: Tensor
    values: Tensor
    frame_counts: Sequence[int]
    pointer_counts: Sequence[int]
    starts: tuple[Tensor, Tensor] | None

    @property
    def counts(self) -> list[int]:
        """How many tokens each object has."""
        return list(map(add, self.frame_counts, self.pointer_counts))

    def split_alike(self, packed: Tensor) -> list[tuple[Tensor, int]]:
        """Split what each token has, shape (tokens, width), between objects that have other counts than the one before.

        Returns:
            Of each run of objects with equal counts: a view of shape (objects, tokens of one, width), and how many of
            one's tokens are of its frames.
        """
        runs, start = [], 0
        for (frames, pointers), alike in groupby(zip(self.frame_counts, self.pointer_counts, strict=True)):
            rows, count = len([*alike]), frames + pointers
            runs.append((packed[start : start + rows * count].view(rows, count, -1), frames))
            start += rows * count
        return runs


def pack_tokens(frames: Tensor, pointers: Tensor, frame_counts: Sequence[int], pointer_counts: Sequence[int]) -> Tensor:
    """Put the tokens of each object together: those of its frames, then those of its pointers.

    Args:
        frames: shape (tokens, width), of all objects.
        pointers: the same.
        frame_counts: how many tokens of each object; `pointer_counts` as well.
    """
    pieces = zip(frames.split_with_sizes(frame_counts), pointers.split_with_sizes(pointer_counts), strict=True)
    return torch.cat([piece for pair in pieces for piece in pair])


def attend_to_memory(layer: Any, state: Tensor, memory: MemoryTokens, rope: Tensor, memory_rope: Tensor) -> Tensor:
    """The two attentions of one layer; what follows them in it is the family's own.

    Args:
        layer: of the model's memory attention.
        state: shape (n, positions, width), or (1, …) while it is still the same for all objects.
        memory: of the n objects.
        rope, memory_rope: see `TrackerConstants`.
    """
    attention = layer.self_attn
    # Cast once: autocast would do so for each product.
    normed = to_autocast(layer.layer_norm1(state))
    query, key, value = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
    query, key = _rotate(torch.cat([query, key], -1), rope).chunk(2, -1)
    state = state + attention.o_proj(_attend(attention, query, key, value))
    attention = layer.cross_attn_image
    query = _rotate(attention.q_proj(layer.layer_norm2(state)), rope)
    query = query.expand(len(memory.frame_counts), -1, -1)
    output: Tensor = attention.o_proj(attend_to_tokens(attention, query, memory, memory_rope))
    return state + output


def attend_to_tokens(attention: Any, query: Tensor, memory: MemoryTokens, memory_rope: Tensor) -> Tensor:
    """The attention of n objects, shape (n, positions, width), each to its own tokens."""
    key: Tensor = attention.k_proj(memory.keys)
    value: Tensor = attention.v_proj(memory.values)
    keys, values = memory.split_alike(key), memory.split_alike(value)
    for own, frames in keys:
        _rotate(own[:, :frames], memory_rope)
    if memory.starts is not None and fits_flash(query, attention.num_attention_heads):
        return _attend_packed(attention, query, key, value, memory.starts, max(memory.counts))
    queries = query.split_with_sizes([len(own) for own, _ in keys])
    found = [
        _attend(attention, of_run, own_keys, own_values)
        for of_run, (own_keys, _), (own_values, _) in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(found) if len(found) > 1 else found[0]


def fits_flash(query: Tensor, heads: int) -> bool:
    """Whether flash attention takes such a query."""
    is_narrow = query.dtype in (torch.bfloat16, torch.float16)
    return query.is_cuda and is_narrow and query.shape[-1] // heads <= _MAX_FLASH_WIDTH


def _attend_packed(
    attention: Any, query: Tensor, key: Tensor, value: Tensor, starts: tuple[Tensor, Tensor], max_count: int
) -> Tensor:
    """As `attend_to_tokens`, in one call for objects with any numbers of tokens."""
    rows, positions, width = query.shape
    query, key, value = (
        packed.reshape(-1, attention.num_attention_heads, width // attention.num_attention_heads)
        for packed in (query, key, value)
    )
    attended: Any = varlen.varlen_attn(query, key, value, *starts, positions, max_count, scale=attention.scaling)
    output: Tensor = attended.view(rows, positions, width)
    return output


def _rotate(vectors: Tensor, rope: Tensor) -> Tensor:
    """Encode positions in place by rotation (arXiv:2104.09864), in single precision.

    Args:
        vectors: shape (n, k * positions, width).
        rope: see `TrackerConstants`.

    Returns:
        The vectors.
    """
    positions, half = rope.shape
    single = vectors.float()  # the vectors themselves, if they are that
    pairs = single.view(len(vectors), -1, positions, vectors.shape[-1] // half // 2, half, 2)
    torch.view_as_complex(pairs).mul_(rope[:, None])
    return vectors if single is vectors else vectors.copy_(single)


def _attend(attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    def split(vectors: Tensor) -> Tensor:
        return vectors.view(*vectors.shape[:2], attention.num_attention_heads, -1).transpose(1, 2)

    attended = functional.scaled_dot_product_attention(split(query), split(key), split(value), scale=attention.scaling)
    return attended.transpose(1, 2).flatten(2)
