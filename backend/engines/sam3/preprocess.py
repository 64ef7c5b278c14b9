"""Pictures as the model sees them: what the released processor does, without torchvision."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

GREY = 127.5
"""Half the range of a byte: the released mean and standard deviation, both 0.5, in grey levels."""


def preprocess_image(picture: NDArray[np.uint8], size: int, device: torch.device) -> Tensor:
    """Squash a picture to the model's square and centre its values.

    The resize is bilinear with antialiasing and rounds to whole grey levels, as `Sam3ImageProcessor` and the video
    processor of transformers 5.23 do with torchvision: the same values on a CPU with AVX2, at most one grey level
    (0.008) apart between devices, where torch computes in other precisions.

    Args:
        picture: shape (height, width, 3), RGB.
        size: edge of the square, pixels.
        device: where the picture is resized and the result lies.

    Returns:
        Shape (1, 3, size, size), float32, -1 (black) to 1 (white).
    """
    where = device if device.type == "cuda" else torch.device("cpu")
    # torch.tensor copies where from_numpy would warn or fail: a picture may be read-only, or flipped by its strides.
    image = torch.tensor(np.ascontiguousarray(picture), device=where).permute(2, 0, 1)[None]
    if where.type == "cuda":
        image = image.float()  # bytes are resized on a CPU alone
    square = functional.interpolate(image, (size, size), mode="bilinear", antialias=True)
    return square.round().float().sub_(GREY).div_(GREY).to(device)
