"""Converts clips to training data: square pictures, masks at the model's resolution, boxes from 0 to 1."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.engines.sam.preprocess import preprocess_image
from backend.shapes import HELD_OUT, Clip, Frame, Recipe
from training.model import FINE, SIDE

SEEN = 0.001
"""Minimum share of the picture for an object to count as visible."""
Sizes = Sequence[tuple[int, int]]
SIZES: Sizes = ((320, 180), (320, 180), (300, 200), (256, 192), (240, 240))
"""Small sizes; the model shrinks larger pictures anyway."""
LARGE_SIZES: Sizes = (*((2 * width, 2 * height) for width, height in SIZES), SIZES[0])
"""Where single pixels of an outline count."""
CPU = torch.device("cpu")

cv2.setNumThreads(1)


def random_for(stage: str, seed: int, step: int) -> np.random.Generator:
    """A random generator per step, so that a resumed stage continues as if it had not stopped."""
    return np.random.default_rng([*stage.encode(), seed, step])


def draw(random: np.random.Generator, recipe: Recipe, sizes: Sizes = SIZES) -> Clip:
    """A clip to train on, in one of some sizes."""
    return Clip(int(random.integers(HELD_OUT)), replace(recipe, size=sizes[int(random.integers(len(sizes)))]))


def square(picture: NDArray[np.uint8]) -> Tensor:
    """A picture as the engine preprocesses it for the model: shape (3, SIDE, SIDE)."""
    return preprocess_image(picture, SIDE, CPU)[0]


def fine(masks: NDArray[np.bool_], side: int = FINE) -> Tensor:
    """How much of each grid cell the masks cover: shape (n, side, side), 0 to 1."""
    cells = [cv2.resize(mask.view(np.uint8) * 255, (side, side), interpolation=cv2.INTER_AREA) for mask in masks]
    return torch.from_numpy(np.array(cells, np.float32).reshape(-1, side, side) / 255)


def seen(frame: Frame) -> NDArray[np.bool_]:
    """Which objects are visible, shape (objects,)."""
    there: NDArray[np.bool_] = frame.areas >= SEEN * frame.picture.shape[0] * frame.picture.shape[1]
    return there


def boxes(frame: Frame) -> Tensor:
    """Shape (objects, 4), x0 y0 x1 y1 as shares of the picture; zeros if not visible."""
    height, width = frame.picture.shape[:2]
    return torch.from_numpy(np.nan_to_num(frame.boxes / (width, height, width, height))).float()
