"""What an image encoder makes of a picture, beside what the library makes of it."""

import numpy as np
import torch
from torch import Tensor

from backend.engines.sam.engine import SamEngine
from tests.engines.sam.tiny_parts import IMAGE


def encode_with_both(engine: SamEngine) -> list[tuple[Tensor, Tensor]]:
    """Level by level, shape (positions, 1, width): ours, and the library's of what ImageNet's statistics normalized."""
    encoder = engine.model.image_encoder
    picture = np.random.default_rng(0).integers(0, 256, (IMAGE, IMAGE, 3), np.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((torch.from_numpy(picture) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.inference_mode():
        levels = encoder.encode("one", 0, lambda: picture).fpn_levels
        expected = encoder._model.get_image_features(pixels).fpn_hidden_states
    return [(level.flatten(2).permute(2, 0, 1), theirs) for level, theirs in zip(levels, expected, strict=True)]
