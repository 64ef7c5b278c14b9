"""EdgeTAM's image encoder, RepViT."""

from torch import Tensor

from backend.engines.sam.pyramid_encoder import PyramidEncoder


class EdgeTamImageEncoder(PyramidEncoder):
    """The image encoder of an `EdgeTamVideoModel`."""

    def _run_backbone(self, pixels: Tensor) -> list[Tensor]:
        """See `PyramidEncoder`."""
        states: list[Tensor] = self._model.vision_encoder.backbone.encode(pixels)
        return states
