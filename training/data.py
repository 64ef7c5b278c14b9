"""Clips as what the model is trained on: square pictures, masks at the model's resolution, boxes from 0 to 1."""

from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.engines.sam3.preprocess import preprocess_image
from shapes import HELD_OUT, Clip, Frame, Recipe
from training.model import FINE, SIDE

SEEN = 0.001
"""Share of the picture from which an object counts as seen."""
SIZES = ((320, 180), (320, 180), (300, 200), (256, 192), (240, 240))
"""Small ones: the model sees no more of large ones."""
CPU = torch.device("cpu")

cv2.setNumThreads(1)


def random_for(stage: str, seed: int, step: int) -> np.random.Generator:
    """A step's own randomness, so that a stage that is resumed goes on as if it had not been stopped."""
    return np.random.default_rng([*stage.encode(), seed, step])


def draw(random: np.random.Generator, recipe: Recipe) -> Clip:
    """A clip to train on, in one of `SIZES`."""
    return Clip(int(random.integers(HELD_OUT)), replace(recipe, size=SIZES[random.integers(len(SIZES))]))


def square(picture: NDArray[np.uint8]) -> Tensor:
    """As the engine shows a picture to the model: shape (3, SIDE, SIDE)."""
    return preprocess_image(picture, SIDE, CPU)[0]


def fine(masks: NDArray[np.bool_], side: int = FINE) -> Tensor:
    """How much of each cell of a grid masks cover: shape (n, side, side), 0 to 1."""
    cells = [cv2.resize(mask.view(np.uint8) * 255, (side, side), interpolation=cv2.INTER_AREA) for mask in masks]
    return torch.from_numpy(np.array(cells, np.float32).reshape(-1, side, side) / 255)


def seen(frame: Frame) -> NDArray[np.bool_]:
    """Which objects are seen, shape (objects,)."""
    there: NDArray[np.bool_] = frame.areas >= SEEN * frame.picture.shape[0] * frame.picture.shape[1]
    return there


def boxes(frame: Frame) -> Tensor:
    """Shape (objects, 4), x0 y0 x1 y1 as shares of the picture; zeros where nothing is seen."""
    height, width = frame.picture.shape[:2]
    return torch.from_numpy(np.nan_to_num(frame.boxes / (width, height, width, height))).float()
