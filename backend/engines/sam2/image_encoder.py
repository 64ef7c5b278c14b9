"""SAM 2's image encoder, Hiera."""

from typing import NamedTuple

from torch import Tensor

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

    def _encode(self, picture: Picture) -> tuple[Tensor, ...]:
        model = self._model
        pixels = preprocess_image(picture, model.config.image_size, model.device, IMAGENET)
        fine, middle, coarse = model.vision_encoder(pixels).fpn_hidden_states
        # The projections of the mask decoder are the same for every object, and need less of the cache.
        levels = model.mask_decoder.conv_s0(fine), model.mask_decoder.conv_s1(middle), coarse
        return tuple(to_autocast(level) for level in levels)

    def _features(self, output: tuple[Tensor, ...]) -> Sam2ImageFeatures:
        return Sam2ImageFeatures(output)
