"""SAM 3's image encoder: one run for detector and tracker."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

from torch import Tensor
from transformers import Sam3VideoModel
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

from backend.engines.sam.device import compile_part
from backend.engines.sam.image_encoder import ImageEncoder, to_autocast
from backend.engines.sam.preprocess import preprocess_image
from backend.engines.sam3.vision_transformer import VisionTransformer
from backend.video import Picture

RunNeck = Callable[[Any, Tensor], list[Tensor]]


def run_neck(neck: Any, square: Tensor) -> list[Tensor]:
    """Levels 4, 2 and 1 times as fine as the encoder's output, shape (1, width, h, w)."""
    return [layer(square) for layer in neck.fpn_layers[:3]]


class Sam3ImageFeatures:
    """The image features of one frame.

    Attributes:
        hidden: shape (1, positions, width), the encoder's last layer; other features are computed from it on demand.
    """

    def __init__(
        self,
        model: Sam3VideoModel,
        hidden: Tensor,
        position_encodings: dict[int, Tensor],
        run_neck: RunNeck = run_neck,
    ) -> None:
        self._model = model
        self._position_encodings = position_encodings
        self._run_neck = run_neck
        self.hidden = hidden

    @cached_property
    def fpn_levels(self) -> list[Tensor]:
        """For the tracker: shapes (1, channels, h, w), 4, 2 and 1 times as fine as the encoder's grid."""
        fine, middle, coarse = self._pyramid(self._model.tracker_neck)
        decoder = self._model.tracker_model.mask_decoder
        return [decoder.conv_s0(fine), decoder.conv_s1(middle), coarse]

    def detector_features(self) -> Sam3VisionEncoderOutput:
        """For the detector. Large, so it is not cached."""
        neck = self._model.detector_model.vision_encoder.neck
        levels = self._pyramid(neck)
        for level in levels:
            if level.shape[-1] not in self._position_encodings:
                self._position_encodings[level.shape[-1]] = neck.position_encoding(
                    level.shape, level.device, level.dtype
                )
        waves = [self._position_encodings[level.shape[-1]] for level in levels]
        # The detector ignores the last level, half as fine as the grid, so it is not computed.
        return Sam3VisionEncoderOutput(
            last_hidden_state=self.hidden,
            fpn_hidden_states=(*levels, levels[-1]),
            fpn_position_encoding=(*waves, waves[-1]),
        )

    def _pyramid(self, neck: Any) -> list[Tensor]:
        side = self._model.tracker_model.prompt_encoder.image_embedding_size[0]
        return self._run_neck(neck, self.hidden.view(1, side, side, -1).permute(0, 3, 1, 2))


class Sam3ImageEncoder(ImageEncoder[Sam3ImageFeatures]):
    """The image encoder of a whole model; see `ImageEncoder` for the cache.

    Args:
        model: the whole model.
        published: see `preprocess_image`.
    """

    def __init__(self, model: Sam3VideoModel, *, published: bool = False) -> None:
        super().__init__(model)
        self._published = published
        self._transformer = VisionTransformer(model.detector_model.vision_encoder.backbone)
        self._run_transformer, self._run_neck = self._transformer.encode, run_neck
        # Position encodings by the width of the level, the same for every frame.
        self._position_encodings: dict[int, Tensor] = {}

    def compile(self) -> None:
        """See `ImageEncoder`."""
        self._run_transformer, self._run_neck = compile_part(self._transformer.encode), compile_part(run_neck)

    def _encode(self, picture: Picture) -> tuple[Tensor, ...]:
        model = self._model
        pixels = preprocess_image(picture, model.config.image_size, model.device, published=self._published)
        return (to_autocast(self._run_transformer(pixels)),)

    def _features(self, output: tuple[Tensor, ...]) -> Sam3ImageFeatures:
        return Sam3ImageFeatures(self._model, output[0], self._position_encodings, self._run_neck)
