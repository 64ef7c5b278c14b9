"""SAM 3's image encoder: one run for detector and tracker."""

from functools import cached_property

import torch
from torch import Tensor
from transformers import Sam3VideoModel
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

from backend.engines.sam.device import compile_part
from backend.engines.sam.image_encoder import ImageEncoder, to_autocast
from backend.engines.sam.preprocess import preprocess_image
from backend.engines.sam3.necks import Necks
from backend.engines.sam3.vision_transformer import VisionTransformer
from backend.video import Picture


class Sam3ImageFeatures:
    """The image features of one frame.

    Attributes:
        hidden: shape (1, positions, width), the encoder's last layer; other features are computed from it on demand.
    """

    def __init__(self, necks: Necks, hidden: Tensor) -> None:
        self._necks = necks
        self.hidden = hidden

    @cached_property
    def fpn_levels(self) -> list[Tensor]:
        """For the tracker: shapes (1, channels, h, w), 4, 2 and 1 times as fine as the encoder's grid."""
        return self._necks.tracker_levels(self.hidden)

    def detector_features(self) -> Sam3VisionEncoderOutput:
        """For the detector. Large, so it is not cached."""
        return self._necks.detector_features(self.hidden)


class Sam3ImageEncoder(ImageEncoder[Sam3ImageFeatures]):
    """The image encoder of a whole model; see `ImageEncoder` for the cache.

    Args:
        model: the whole model; its weights do not change any more.
        published: see `preprocess_image`.
    """

    def __init__(self, model: Sam3VideoModel, *, published: bool = False) -> None:
        super().__init__(model)
        self._published = published
        self._transformer = VisionTransformer(model.detector_model.vision_encoder.backbone)
        self._run_transformer = self._transformer.encode
        with torch.no_grad():
            self._necks = Necks(model)

    def compile(self) -> None:
        """See `ImageEncoder`."""
        self._run_transformer = compile_part(self._transformer.encode)
        self._necks.compile()

    def _encode(self, picture: Picture) -> tuple[Tensor, ...]:
        model = self._model
        pixels = preprocess_image(picture, model.config.image_size, model.device, published=self._published)
        return (to_autocast(self._run_transformer(pixels)),)

    def _features(self, output: tuple[Tensor, ...]) -> Sam3ImageFeatures:
        return Sam3ImageFeatures(self._necks, output[0])
