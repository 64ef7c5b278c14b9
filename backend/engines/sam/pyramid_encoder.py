"""What the image encoders of SAM 2 and EdgeTAM share: a feature pyramid over a backbone of four stages."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional

from backend.engines.sam.device import compile_part
from backend.engines.sam.image_encoder import ImageEncoder, to_autocast
from backend.engines.sam.preprocess import IMAGENET, preprocess_image
from backend.video import Picture


class PyramidFeatures(NamedTuple):
    """The image features of one frame.

    Attributes:
        fpn_levels: shapes (1, channels, h, w), 4, 2 and 1 times as fine as the memory's grid.
    """

    fpn_levels: tuple[Tensor, ...]


class PyramidEncoder(ImageEncoder[PyramidFeatures]):
    """The image encoder of a whole model; see `ImageEncoder` for the cache."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._run = self._levels

    @abstractmethod
    def _run_backbone(self, pixels: Tensor) -> Sequence[Tensor]:
        """The stages' outputs of pictures (n, 3, size, size): shapes (n, channels, h, w), finest first."""

    def compile(self) -> None:
        """See `ImageEncoder`."""
        self._run = compile_part(self._levels)

    def _encode(self, picture: Picture) -> tuple[Tensor, ...]:
        model = self._model
        return self._run(preprocess_image(picture, model.config.image_size, model.device, IMAGENET))

    def _levels(self, pixels: Tensor) -> tuple[Tensor, ...]:
        decoder = self._model.mask_decoder
        fine, middle, coarse = self._pyramid(self._run_backbone(pixels))
        # The projections of the mask decoder are the same for every object, and need less of the cache.
        levels = decoder.conv_s0(fine), decoder.conv_s1(middle), coarse
        return tuple(to_autocast(level) for level in levels)

    def _pyramid(self, states: Sequence[Tensor]) -> list[Tensor]:
        """The levels of the feature pyramid, finest first, from the backbone's stages.

        As the neck's own `forward`, which also computes position encodings; the tracker does not use them.
        """
        encoder = self._model.vision_encoder
        neck = encoder.neck
        levels: list[Tensor] = []
        for stage, (state, layer) in enumerate(zip(states[::-1], neck.convs, strict=True)):
            level = layer(state)
            if stage and len(states) - 1 - stage in neck.fpn_top_down_levels:
                level = level + functional.interpolate(levels[-1].float(), scale_factor=2.0, mode="nearest").to(level)
            levels.append(level)
        return levels[: -encoder.num_feature_levels - 1 : -1]

    def _features(self, output: tuple[Tensor, ...]) -> PyramidFeatures:
        return PyramidFeatures(output)
