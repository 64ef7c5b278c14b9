"""EdgeTAM's tracker (arXiv:2501.07256): a frame's memory is a number of tokens that do not grow with the picture."""

import math
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from backend.engines.sam.tracker import Tracker
from backend.engines.sam.tracker_constants import TrackerConstants, compute_rope


class EdgeTamTracker(Tracker):
    """The tracker of an `EdgeTamVideoModel`. Like SAM 2's, it uses the last frames, whatever their scores."""

    min_eff_iou = None

    @cached_property
    def _constants(self) -> TrackerConstants:
        """As of the base, with what the tokens of a memory have: of those of the whole frame none has a place."""
        plain, model = TrackerConstants.from_model(self._model), self._model
        perceiver, width, device = model.spatial_perceiver, int(model.mem_dim), self.device
        anywhere = torch.zeros(perceiver.num_latents_1d, width, device=device)
        side = math.isqrt(perceiver.num_latents_2d)
        grid = perceiver.positional_encoding(torch.Size((1, width, side, side)), device, torch.float32)
        placed = compute_rope(model.memory_attention, model.memory_attention.position_ids_k)
        return replace(
            plain,
            memory_positions=torch.cat([anywhere, grid[0].flatten(1).T]),
            memory_rope=torch.cat([torch.ones_like(placed[:1]).expand(len(anywhere), -1), placed]),
        )

    @cached_property
    def _frame_positions(self) -> Tensor:
        """Of the memory before it is compressed, shape (h * w, memory width)."""
        return TrackerConstants.from_model(self._model).memory_positions

    def _compress_memory(self, features: Tensor) -> Tensor:
        """Shape (n, tokens, memory width): those of the whole frame, then one for each window of the grid.

        As the forward of `spatial_perceiver`, for n objects.
        """
        perceiver, count = self._model.spatial_perceiver, len(features)
        frame = features.flatten(2).transpose(1, 2)
        positions = self._frame_positions.expand(count, -1, -1)
        whole = perceiver.latents_1d.expand(count, -1, -1)
        windows = _split_windows(features, math.isqrt(perceiver.num_latents_2d))
        placed = perceiver.latents_2d.repeat(count, 1)[:, None]
        for layer in perceiver.layers:
            whole, placed = layer(whole, frame, positions), layer(placed, windows)
        tokens: Tensor = perceiver.layer_norm(torch.cat([whole, placed.view(count, -1, placed.shape[-1])], 1))
        return tokens

    def _feed_forward(self, layer: Any, state: Tensor) -> Tensor:
        output: Tensor = layer.mlp(state)
        return output


def _split_windows(features: Tensor, side: int) -> Tensor:
    """From shape (n, width, h, w) to (n * side * side, positions of a window, width)."""
    count, width, height, breadth = features.shape
    windows = features.view(count, width, side, height // side, side, breadth // side)
    return windows.permute(0, 2, 4, 3, 5, 1).reshape(count * side * side, -1, width)
