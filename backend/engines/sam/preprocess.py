"""Converts pictures and prompts to the model's input, as the released processor does but without torchvision."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from backend.tracks.prompts import Prompt


class Normalization(NamedTuple):
    """Mean and standard deviation of red, green and blue, which a model expects; 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


HALF = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""SAM 3's, which gives -1 (black) to 1 (white)."""


def preprocess_image(
    picture: NDArray[np.uint8], size: int, device: torch.device, normalization: Normalization = HALF
) -> Tensor:
    """Resize a picture to the model's square and normalise its values.

    The resize is bilinear with antialiasing and rounds to whole grey levels, as `Sam3ImageProcessor` and the video
    processor of transformers 5.23 do with torchvision: the same values on a CPU with AVX2, at most one grey level
    (0.008) apart between devices, where torch computes in other precisions.

    Args:
        picture: shape (height, width, 3), RGB.
        size: edge of the square, pixels.
        device: where the picture is resized and the result lies.
        normalization: of the model.

    Returns:
        Shape (1, 3, size, size), float32, normalized.
    """
    where = device if device.type == "cuda" else torch.device("cpu")
    # torch.tensor copies; from_numpy warns or fails if the picture is read-only or has negative strides.
    image = torch.tensor(np.ascontiguousarray(picture), device=where).permute(2, 0, 1)[None]
    if where.type == "cuda":
        image = image.float()  # CUDA cannot resize uint8
    square = functional.interpolate(image, (size, size), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values, device=where).mul(255)[:, None, None] for values in normalization)
    return square.round().float().sub_(mean).div_(std).to(device)


def preprocess_mask(mask: NDArray[np.bool_], size: int, device: torch.device) -> Tensor:
    """Resize a prompted mask to the model's square, with antialiasing, and threshold it at 0.5.

    As `Sam3TrackerVideoProcessor.process_new_mask_for_video_frame` of transformers 5.23. Parts thinner than
    a pixel of the square may disappear.

    Args:
        mask: shape (height, width), at the size of the picture.
        size: edge of the square, pixels.
        device: where the result lies.

    Returns:
        Shape (1, 1, size, size), float32, 0 or 1.
    """
    given = torch.tensor(np.ascontiguousarray(mask)).float()[None, None]
    square = functional.interpolate(given, (size, size), mode="bilinear", antialias=True)
    return (square >= 0.5).float().to(device)


def preprocess_points(
    prompt: Prompt, picture_size: tuple[int, int], size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Scale a prompt's box and clicks to the model's square.

    Args:
        prompt: with a box or points.
        picture_size: width and height of the picture.
        size: edge of the square, pixels.
        device: where the result lies.

    Returns:
        Points of shape (p, 2) in pixels of the square, and labels of shape (p,): 1 positive, 0 negative, 2 and 3 the
        corners of the box.
    """
    points = [(point.x, point.y, int(point.positive)) for point in prompt.points]
    if prompt.box is not None:
        points = [(prompt.box.x0, prompt.box.y0, 2), (prompt.box.x1, prompt.box.y1, 3), *points]
    scale = torch.tensor([size / side for side in picture_size])
    coordinates = torch.tensor([(x, y) for x, y, _ in points]) * scale
    return coordinates.to(device), torch.tensor([label for *_, label in points], dtype=torch.int32, device=device)
