"""Encodes the memory of all objects that were tracked on a frame."""

from collections.abc import Container, Sequence

import torch
from torch import Tensor

from backend.engines.sam.association import TrackUpdatePlan
from backend.engines.sam.image_encoder import ImageFeatures
from backend.engines.sam.tracker import MaskPrediction, Tracker

_PRESENT_LOGIT = 10.0
"""Logit of "it is there" for a mask that has a pixel, and the negative one for a mask that has none."""


def encode_predicted(
    tracker: Tracker, image: ImageFeatures, names: Sequence[str], prediction: MaskPrediction | None
) -> dict[str, Tensor]:
    """Encode the predicted masks of objects; returns the memory of each, by its name.

    Args:
        names: of the objects in `prediction`.
        prediction: None: there are no objects.
    """
    if prediction is None or not names:
        return {}
    encoded = tracker.encode_memory(image, prediction.logits, prediction.object_scores, full_size=True)
    return dict(zip(names, encoded, strict=True))


def encode_planned(
    tracker: Tracker,
    image: ImageFeatures,
    tracked: Sequence[str],
    prompted: Container[str],
    prediction: MaskPrediction | None,
    names: Sequence[str],
    plan: TrackUpdatePlan,
) -> dict[str, Tensor]:
    """As `encode_predicted`, with the planned masks of objects that a phrase found.

    Args:
        tracked: the objects in `prediction`.
        prompted: objects that the plan does not change.
        prediction: None: there are no objects.
        names: the objects in `plan`.
        plan: of the frame.
    """
    if prediction is None:
        return {}
    rows = [row for row, name in enumerate(tracked) if name in prompted]
    part = MaskPrediction(*(tensor[rows] for tensor in prediction))
    features = encode_predicted(tracker, image, [tracked[row] for row in rows], part)
    if planned := [name for name in tracked if name not in features]:
        logits = plan.memory_logits[[names.index(name) for name in planned]]
        # Present if any pixel is left, as in the original.
        scores = torch.where((logits > 0).flatten(1).any(1), _PRESENT_LOGIT, -_PRESENT_LOGIT)
        encoded = tracker.encode_memory(image, logits, scores, full_size=False)
        features.update(zip(planned, encoded, strict=True))
    return features
