"""The forward pass of SAM 3's vision transformer, over the library's weights and in fewer kernels.

Equal to the library's: to rounding in single precision, and within bfloat16's rounding under autocast. Query, key and
value are one product, and are rotated as complex numbers by tables that are computed once. Windowed layers hand windows
to each other, so that they are partitioned once between global layers, and not padded where they divide the grid.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer, with the weights of query, key and value in one tensor.

    Attributes:
        window: edge of its windows, positions; 0: attention is global.
        rope: shape (1, positions, 1, 1, head width / 2, 2), cosines and sines.
    """

    library: Any
    window: int
    rope: Tensor
    weight: Tensor
    bias: Tensor

    @classmethod
    def from_library(cls, layer: Any) -> "_Layer":
        attention = layer.attention
        projections = attention.q_proj, attention.k_proj, attention.v_proj
        weight = torch.cat([projection.weight for projection in projections])
        bias = torch.cat([projection.bias for projection in projections])
        # The library's own are views of it from now on, so that the weights are in memory once.
        for projection, part, shift in zip(projections, weight.chunk(3), bias.chunk(3), strict=True):
            projection.weight.data, projection.bias.data = part, shift
        cosines, sines = layer.rotary_emb(weight, layer.position_ids)
        rope = torch.stack([cosines[0, :, ::2], sines[0, :, ::2]], -1)
        return cls(layer, layer.window_size, rope[None, :, None, None], weight, bias)

    def run(self, hidden: Tensor, inside: Tensor | None, narrow: torch.dtype) -> Tensor:
        """Run it.

        Args:
            hidden: shape (windows, positions, width).
            inside: shape (windows, positions, 1), 0 on padding; None: there is none.
            narrow: the type that products are computed in.
        """
        library, attention = self.library, self.library.attention
        count, positions, width = hidden.shape
        heads = attention.num_attention_heads
        normed = library.layer_norm1(hidden)
        if inside is not None:
            normed = normed * inside  # as the library, which pads after this norm
        mixed = functional.linear(normed.to(narrow), self.weight.to(narrow), self.bias.to(narrow)).view(
            count, positions, 3, heads, width // heads
        )
        pairs = mixed[:, :, :2].float().view(count, positions, 2, heads, -1, 2)
        query, key = _rotate(pairs, self.rope).flatten(-2).to(narrow).transpose(1, 3).unbind(2)
        value = mixed[:, :, 2].transpose(1, 2)
        attended = functional.scaled_dot_product_attention(query, key, value, scale=attention.scaling)
        hidden = hidden + _linear(attention.o_proj, attended.transpose(1, 2).flatten(2), narrow)
        mlp = library.mlp
        inner = mlp.activation_fn(_linear(mlp.fc1, library.layer_norm2(hidden).to(narrow), narrow))
        return hidden + _linear(mlp.fc2, inner, narrow)


class VisionTransformer:
    """The forward pass of a `Sam3ViTModel`.

    Args:
        backbone: the library's; not to be moved or changed afterwards.
    """

    def __init__(self, backbone: Any) -> None:
        self._backbone = backbone
        self._layers: list[_Layer] = []
        self._positions: Tensor | None = None
        self._inside: Tensor | None = None

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode a picture.

        Args:
            pixels: shape (1, 3, height, width), normalized.

        Returns:
            Shape (1, positions, width), the last layer.
        """
        backbone, kind = self._backbone, pixels.device.type
        narrow = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        with torch.autocast(kind, enabled=False):
            patches = backbone.embeddings.patch_embeddings.projection
            grid = functional.conv2d(pixels.to(narrow), patches.weight.to(narrow), stride=patches.stride)
            height, width = grid.shape[2:]
            hidden = grid.flatten(2).transpose(1, 2) + self._prepare(height, width)
            hidden = backbone.layer_norm(hidden)
            window = 0
            for layer in self._layers:
                if layer.window != window:
                    hidden = _merge_windows(hidden, window, height, width)
                    hidden = _split_windows(hidden, layer.window, height, width)
                    window = layer.window
                hidden = layer.run(hidden, self._inside if window else None, narrow)
            return _merge_windows(hidden, window, height, width)

    def _prepare(self, height: int, width: int) -> Tensor:
        """Compute what is the same for every picture, on first use; returns the position embeddings."""
        if self._positions is not None:
            return self._positions
        embeddings, window = self._backbone.embeddings, self._backbone.config.window_size
        # Not as inference tensors, which the library could not use elsewhere.
        with torch.inference_mode(False), torch.no_grad():
            positions: Tensor = embeddings._tile_position_embeddings(embeddings.position_embeddings, height, width)
            self._positions = positions
            self._layers = [_Layer.from_library(layer) for layer in self._backbone.layers]
            if height % window or width % window:
                ones = torch.ones(1, height * width, 1, device=positions.device)
                self._inside = _split_windows(ones, window, height, width)
        return positions


def _rotate(pairs: Tensor, rope: Tensor) -> Tensor:
    """Rotate pairs of numbers, shape (…, 2), by cosines and sines, shape (…, 2)."""
    if not torch.compiler.is_compiling():  # one kernel
        return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rope))
    # The compiler merges these into one, and knows no complex numbers.
    (x, y), (cosine, sine) = pairs.unbind(-1), rope.unbind(-1)
    return torch.stack([x * cosine - y * sine, x * sine + y * cosine], -1)


def _linear(layer: Any, inputs: Tensor, narrow: torch.dtype) -> Tensor:
    return functional.linear(inputs, layer.weight.to(narrow), layer.bias.to(narrow))


def _split_windows(hidden: Tensor, window: int, height: int, width: int) -> Tensor:
    """From shape (1, positions, channels) to (windows, window², channels); 0: as it is."""
    if not window:
        return hidden
    rows, columns = -(-height // window), -(-width // window)
    grid = hidden.view(height, width, -1)
    if height % window or width % window:
        grid = functional.pad(grid, (0, 0, 0, columns * window - width, 0, rows * window - height))
    return grid.view(rows, window, columns, window, -1).transpose(1, 2).reshape(rows * columns, window * window, -1)


def _merge_windows(hidden: Tensor, window: int, height: int, width: int) -> Tensor:
    """The inverse of `_split_windows`."""
    if not window:
        return hidden
    rows, columns = -(-height // window), -(-width // window)
    grid = hidden.view(rows, columns, window, window, -1).transpose(1, 2).reshape(rows * window, columns * window, -1)
    return grid[:height, :width].reshape(1, height * width, -1)
