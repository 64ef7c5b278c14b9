"""Converts pictures and prompts to the model's input, as the released processor does but without torchvision."""

from typing import NamedTuple

import cv2
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


NO_OBJECT_LOGIT = -1024.0
"""Logit of every pixel of an absent object, and the negative of that of a pixel in a given mask."""
HALF = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""SAM 3's, which gives -1 (black) to 1 (white)."""
IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Of SAM 2 and EdgeTAM."""


def preprocess_image(
    picture: NDArray[np.uint8],
    size: int,
    device: torch.device,
    normalization: Normalization = HALF,
    *,
    published: bool = False,
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
        published: resize as facebookresearch/sam3 reads video files, bicubic without antialiasing, on the CPU. Its
            reader leaves out the division by 255 (its issue 493); this does not.

    Returns:
        Shape (1, 3, size, size), float32, normalized.
    """
    where = device if device.type == "cuda" else torch.device("cpu")
    if published:
        picture = np.asarray(cv2.resize(np.ascontiguousarray(picture), (size, size), interpolation=cv2.INTER_CUBIC))
    # torch.tensor copies; from_numpy warns or fails if the picture is read-only or has negative strides.
    image = torch.tensor(np.ascontiguousarray(picture), device=where).permute(2, 0, 1)[None]
    if where.type == "cuda":
        image = image.float()  # CUDA cannot resize uint8
    if not published:
        image = functional.interpolate(image, (size, size), mode="bilinear", antialias=True).round()
    mean, std = (torch.tensor([[[255 * value]] for value in values], device=where) for values in normalization)
    return image.float().sub_(mean).div_(std).to(device)


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize masks of shape (n, 1, h, w), bilinear with antialiasing."""
    if masks.shape[-2:] == size:
        return masks
    return functional.interpolate(masks, size, mode="bilinear", align_corners=False, antialias=True)


def masks_to_logits(masks: Tensor, picture_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The logits that stand for given masks, as facebookresearch/sam3 makes them.

    Parts thinner than a pixel of the logits may disappear.

    Args:
        masks: shape (n, h, w), from 0 to 1.
        picture_size: height and width of the picture, where they are thresholded at 0.5.
        size: height and width of the result.

    Returns:
        Shape (n, *size).
    """
    inside = resize_masks(masks[:, None].float(), picture_size) > 0.5
    return resize_masks(torch.where(inside, -NO_OBJECT_LOGIT, NO_OBJECT_LOGIT), size)[:, 0]


def threshold_detections(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Detections as masks to begin tracks with: enlarged, then thresholded, as facebookresearch/sam3 does.

    Args:
        logits: shape (n, h, w).
        size: height and width of the result.

    Returns:
        Shape (n, *size), bool.
    """
    return functional.interpolate(logits[:, None].float(), size, mode="bilinear", align_corners=False)[:, 0] > 0


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
