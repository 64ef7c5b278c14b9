"""The loaded SAM3 model: its parts, and how to run them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from backend.engines.sam.thresholds import Thresholds
from backend.engines.sam.tracker import Tracker
from backend.engines.sam3.detector import Detector
from backend.engines.sam3.image_encoder import ImageEncoder


@dataclass(frozen=True, slots=True)
class SamModel:
    """The loaded model.

    Attributes:
        inference: context manager that sets the precision to compute in.
        max_speck_area: largest hole to fill and speck to remove, in pixels of the model's masks; 0 disables both.
        with_masks: whether results contain masks.
        fingerprint: identifies the weights.
    """

    image_encoder: ImageEncoder
    tracker: Tracker
    detector: Detector
    thresholds: Thresholds
    inference: Callable[[], AbstractContextManager[None]]
    max_speck_area: int
    with_masks: bool
    fingerprint: str
