"""Removes jitter from a track, bounded by the IoU with the tracked boxes."""

import numpy as np

from backend.tracks.geometry import Boxes, box_iou

_HALVINGS = 5


def smooth_boxes(boxes: Boxes, frames: int, bound: float) -> Boxes:
    """Replace each box by the mean of up to `frames` boxes before it, as many after it, and itself.

    The window is symmetric, so straight motion and the first and last box do not change. A mean that violates the bound
    is moved half-way towards the box a few times; if that is not enough, the box stays.

    Args:
        boxes: shape (n, 4), corners of one object on consecutive frames, no NaN.
        bound: minimum IoU of a smoothed box with the tracked one.
    """
    count = len(boxes)
    places = np.arange(count)
    reach = np.minimum(np.minimum(places, count - 1 - places), frames)
    sums = np.concatenate([np.zeros((1, 4)), np.cumsum(boxes - boxes[0], axis=0)])
    means = boxes[0] + (sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1)[:, None]
    moved = np.where((reach > 0)[:, None], means - boxes, 0.0)
    for _ in range(_HALVINGS):
        moved[box_iou(boxes + moved, boxes) < bound] /= 2
    moved[box_iou(boxes + moved, boxes) < bound] = 0
    return np.asarray(boxes + moved)
