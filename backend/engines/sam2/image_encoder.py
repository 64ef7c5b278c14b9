"""SAM 2's image encoder, Hiera."""

from torch import Tensor

from backend.engines.sam.pyramid_encoder import PyramidEncoder


class Sam2ImageEncoder(PyramidEncoder):
    """The image encoder of a `Sam2VideoModel`."""

    def _run_backbone(self, pixels: Tensor) -> list[Tensor]:
        """See `PyramidEncoder`."""
        states = self._model.vision_encoder.backbone(pixels).intermediate_hidden_states
        return [state.permute(0, 3, 1, 2) for state in states]
