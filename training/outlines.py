"""Outlines of masks: what a trained model's masks are compared with when they are trained further.

The first stages compare masks by cell with how much of it the object covers, so tips that fill less than half of a cell
are left out. Here logits are enlarged as the engine enlarges them, and what counts is the band along the object's
outline, and which rows and columns the object reaches: boxes are made of these.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training import data
from training.losses import dice
from training.model import FINE

SHARP = 4 * FINE
"""Side of an enlarged mask, in cells."""
BAND = 9
"""Width of the band along an outline, in cells of an enlarged mask."""
REACH = 17
"""Width of the same around the ends of an object, among rows and columns."""


@dataclass(frozen=True)
class Outlines:
    """The truth for masks of n objects.

    Attributes:
        masks: shape (n, SHARP, SHARP), how much of each cell the object covers.
        bands: shape (n, SHARP, SHARP), 1 along the outlines, otherwise 0.
        ends: shape (n, 2, SHARP), how much of each column and of each row the object reaches.
        near_ends: shape (n, 2, SHARP), 1 near where that changes, otherwise 0.
    """

    masks: Tensor
    bands: Tensor
    ends: Tensor
    near_ends: Tensor

    @classmethod
    def from_masks(cls, masks: NDArray[np.bool_]) -> "Outlines":
        """Of masks in the picture's size, shape (n, height, width)."""
        fine, ends = data.fine(masks, SHARP), torch.stack([_resize(np.any(masks, axis=axis)) for axis in (1, 2)], 1)
        near_ends = _near_changes(ends.flatten(0, 1)[:, None], (1, REACH)).view_as(ends)
        return cls(fine, _near_changes(fine, (BAND, BAND)), ends, near_ends)

    def of(self, rows: list[int]) -> "Outlines":
        """Of some of the objects."""
        return Outlines(self.masks[rows], self.bands[rows], self.ends[rows], self.near_ends[rows])


def enlarge(logits: Tensor) -> Tensor:
    """From shape (n, k, h, w) to (n, k, SHARP, SHARP)."""
    return functional.interpolate(logits, (SHARP, SHARP), mode="bilinear", align_corners=False)


def outline_loss(logits: Tensor, truth: Outlines) -> Tensor:
    """The loss of enlarged masks, shape (n, k, SHARP, SHARP), of which k are of the same object; shape (n, k)."""
    masks = truth.masks[:, None].expand_as(logits)
    wrong = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    along = _mean(wrong, truth.bands[:, None])
    found = torch.stack([logits.amax(2), logits.amax(3)], 2)
    ends = truth.ends[:, None].expand_as(found)
    wrong_ends = functional.binary_cross_entropy_with_logits(found, ends, reduction="none")
    at_ends = _mean(wrong_ends, truth.near_ends[:, None])
    return 6 * wrong.mean((2, 3)) + 2 * along + dice(logits, masks) + 2 * at_ends + wrong_ends.mean((2, 3))


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean over the last two axes."""
    mean: Tensor = (values * weights).sum((-2, -1)) / weights.sum((-2, -1)).clamp(min=1)
    return mean


def _near_changes(cells: Tensor, window: tuple[int, int]) -> Tensor:
    """Where cells, shape (n, h, w), are not the same all over a window around the place: 1, otherwise 0."""
    around = np.ones(window, np.uint8)
    changes = [cv2.morphologyEx(one, cv2.MORPH_GRADIENT, around) > 0.5 for one in cells.numpy()]
    return torch.from_numpy(np.array(changes, np.float32).reshape(cells.shape))


def _resize(lines: Any) -> Tensor:
    """From pixels, shape (n, length), to cells."""
    cells = [cv2.resize(line.view(np.uint8)[None] * 255, (SHARP, 1), interpolation=cv2.INTER_AREA) for line in lines]
    return torch.from_numpy(np.array(cells, np.float32).reshape(-1, SHARP) / 255)
