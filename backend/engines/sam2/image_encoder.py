"""SAM 2's image encoder, Hiera."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional

from backend.engines.sam.device import compile_part
from backend.engines.sam.image_encoder import ImageEncoder, to_autocast
from backend.engines.sam.preprocess import Normalization, preprocess_image
from backend.video import Picture

IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""The statistics with which the published models were trained."""


class Sam2ImageFeatures(NamedTuple):
    """The image features of one frame.

    Attributes:
        fpn_levels: shapes (1, channels, h, w), 4, 2 and 1 times as fine as the memory's grid.
    """

    fpn_levels: tuple[Tensor, ...]


class Sam2ImageEncoder(ImageEncoder[Sam2ImageFeatures]):
    """The image encoder of a `Sam2VideoModel`; see `ImageEncoder` for the cache."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._run = self._levels

    def compile(self) -> None:
        """See `ImageEncoder`."""
        self._run = compile_part(self._levels)

    def _encode(self, picture: Picture) -> tuple[Tensor, ...]:
        model = self._model
        return self._run(preprocess_image(picture, model.config.image_size, model.device, IMAGENET))

    def _levels(self, pixels: Tensor) -> tuple[Tensor, ...]:
        model = self._model
        fine, middle, coarse = self._pyramid(model.vision_encoder.backbone(pixels).intermediate_hidden_states)
        # The projections of the mask decoder are the same for every object, and need less of the cache.
        levels = model.mask_decoder.conv_s0(fine), model.mask_decoder.conv_s1(middle), coarse
        return tuple(to_autocast(level) for level in levels)

    def _pyramid(self, states: Sequence[Tensor]) -> list[Tensor]:
        """The levels of the feature pyramid, finest first, from the backbone's stages, shapes (1, h, w, channels).

        As the neck's own `forward`, which also computes position encodings; the tracker does not use them.
        """
        encoder = self._model.vision_encoder
        neck = encoder.neck
        levels: list[Tensor] = []
        for stage, (state, layer) in enumerate(zip(states[::-1], neck.convs, strict=True)):
            level = layer(state.permute(0, 3, 1, 2))
            if stage and len(states) - 1 - stage in neck.fpn_top_down_levels:
                level = level + functional.interpolate(levels[-1].float(), scale_factor=2.0, mode="nearest").to(level)
            levels.append(level)
        return levels[: -encoder.num_feature_levels - 1 : -1]

    def _features(self, output: tuple[Tensor, ...]) -> Sam2ImageFeatures:
        return Sam2ImageFeatures(output)
