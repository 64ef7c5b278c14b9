"""Leaves out what negative exemplars are around and what looks more like them, whatever a detector makes of them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from backend.engines.sam.detections import Detections, Detector, Query
from backend.engines.sam.mask_boxes import masks_to_boxes
from backend.tracks.geometry import box_iou
from backend.tracks.prompts import Exemplar

_SAME_IOU = 0.5
"""IoU of an exemplar's box and a detection's from which both are of one object."""


def detect(detector: Detector, image: Any, queries: Sequence[Query], tracks: Tensor) -> Detections:
    """What a detector finds, by `drop_unlike`; the arguments are those of `Detector.detect_queries`."""
    found = detector.detect_queries(image, queries, tracks)
    return drop_unlike(found, queries, lambda masks: detector.describe(image, masks))


def drop_unlike(detections: Detections, queries: Sequence[Query], describe: Callable[[Tensor], Tensor]) -> Detections:
    """Drop what negative exemplars of its query are around, and what looks more like one than like a positive one.

    The object of a positive exemplar stays, whatever it looks like.

    Args:
        describe: the features of n masks; see `Detector.describe`.
    """
    exemplars = [(index, one) for index, query in enumerate(queries) for one in query.exemplars]
    is_like = np.array([one.positive for _, one in exemplars], bool)
    if is_like.all() or not len(detections):
        return detections
    count, height, width = detections.logits.shape
    boxes = masks_to_boxes(detections.logits, height, width) / (width, height, width, height)
    is_own = detections.phrases.numpy()[:, None] == [index for index, _ in exemplars]
    is_around = is_own & (box_iou(boxes[:, None], np.array([one.box for _, one in exemplars])) >= _SAME_IOU)
    masks = torch.cat([detections.logits > 0, _draw_boxes([one for _, one in exemplars], detections.logits)])
    looks = functional.normalize(describe(masks), dim=1)
    cosines = np.where(is_own, (looks[:count] @ looks[count:].T).cpu().numpy(), -np.inf)
    like, unlike = (cosines[:, chosen].max(1, initial=-np.inf) for chosen in (is_like, ~is_like))
    is_out = is_around[:, ~is_like].any(1)
    is_out |= (unlike > like) & np.isfinite(like) & ~is_around[:, is_like].any(1)
    return detections.keep(np.flatnonzero(~is_out).tolist())


def _draw_boxes(exemplars: Sequence[Exemplar], logits: Tensor) -> Tensor:
    """The boxes of exemplars as masks, at least a pixel each; of the size and on the device of logits."""
    height, width = logits.shape[1:]
    masks = torch.zeros(len(exemplars), height, width, dtype=torch.bool)
    for mask, one in zip(masks, exemplars, strict=True):
        x, y = min(int(one.box.x0 * width), width - 1), min(int(one.box.y0 * height), height - 1)
        mask[y : max(round(one.box.y1 * height), y + 1), x : max(round(one.box.x1 * width), x + 1)] = True
    return masks.to(logits.device)
