"""SAM 3's two necks: what its tracker and its detector each make of the image encoder's output."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Sam3VideoModel
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

from backend.engines.sam.device import compile_part

Run = Callable[[Tensor], list[Tensor]]
"""From the encoder's output, shape (1, width, h, w), to levels 4, 2 and 1 times as fine, (1, channels, h, w) each."""


class Necks:
    """Both necks of a model.

    The tracker's last convolution on each of its two fine levels is followed by one of the mask decoder, of single
    positions: nothing lies between, so one convolution does both, with 1/8 and 1/4 of the channels. On a CPU the neck
    takes a third of the time.

    Args:
        model: the whole model; its weights are read now.
    """

    def __init__(self, model: Sam3VideoModel) -> None:
        self._side = model.tracker_model.prompt_encoder.image_embedding_size[0]
        self._tracker_layers: list[Any] = [*model.tracker_neck.fpn_layers[:3]]
        fine, middle, _ = self._tracker_layers
        decoder = model.tracker_model.mask_decoder
        self._merged = [_merge(fine.proj2, decoder.conv_s0), _merge(middle.proj2, decoder.conv_s1)]
        self._detector_neck = model.detector_model.vision_encoder.neck
        self._run_tracker_neck: Run = self._make_tracker_levels
        self._run_detector_neck: Run = self._make_detector_levels
        # By the width of the level, the same for every frame.
        self._position_encodings: dict[int, Tensor] = {}

    def compile(self) -> None:
        """Compile both; call it after the first run."""
        self._run_tracker_neck = compile_part(self._make_tracker_levels)
        self._run_detector_neck = compile_part(self._make_detector_levels)

    def tracker_levels(self, hidden: Tensor) -> list[Tensor]:
        """For the tracker: shapes (1, channels, h, w), 4, 2 and 1 times as fine as the encoder's grid.

        Args:
            hidden: the encoder's output, shape (1, positions, width).
        """
        return self._run_tracker_neck(self._to_grid(hidden))

    def detector_features(self, hidden: Tensor) -> Sam3VisionEncoderOutput:
        """For the detector.

        Args:
            hidden: the encoder's output, shape (1, positions, width).
        """
        levels = self._run_detector_neck(self._to_grid(hidden))
        waves = [self._encode_positions(level) for level in levels]
        # The detector ignores the last level, half as fine as the grid, so it is not computed.
        return Sam3VisionEncoderOutput(
            last_hidden_state=hidden,
            fpn_hidden_states=(*levels, levels[-1]),
            fpn_position_encoding=(*waves, waves[-1]),
        )

    def _to_grid(self, hidden: Tensor) -> Tensor:
        return hidden.view(1, self._side, self._side, -1).permute(0, 3, 1, 2)

    def _make_tracker_levels(self, grid: Tensor) -> list[Tensor]:
        *finer, coarse = self._tracker_layers
        levels = []
        for layer, (weight, bias) in zip(finer, self._merged, strict=True):
            level = grid
            for scale in layer.scale_layers:
                level = scale(level)
            levels.append(functional.conv2d(layer.proj1(level), weight, bias, padding=layer.proj2.padding))
        return [*levels, coarse(grid)]

    def _make_detector_levels(self, grid: Tensor) -> list[Tensor]:
        return [layer(grid) for layer in self._detector_neck.fpn_layers[:3]]

    def _encode_positions(self, level: Tensor) -> Tensor:
        width = level.shape[-1]
        if width not in self._position_encodings:
            encode = self._detector_neck.position_encoding
            self._position_encodings[width] = encode(level.shape, level.device, level.dtype)
        return self._position_encodings[width]


def _merge(first: Any, second: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of one convolution that does what these do, of which the second is of single positions."""
    mix = second.weight[:, :, 0, 0].float()
    weight = torch.einsum("om,mihw->oihw", mix, first.weight.float())
    bias = mix @ first.bias.float() + second.bias.float()
    return weight.to(first.weight.dtype), bias.to(first.bias.dtype)
