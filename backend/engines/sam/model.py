"""The loaded model: its parts, and how to run them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from backend.engines.sam.detections import Detector
from backend.engines.sam.device import Batcher
from backend.engines.sam.image_encoder import ImageEncoder, ImageFeatures
from backend.engines.sam.thresholds import Thresholds
from backend.engines.sam.tracker import Tracker
from backend.errors import Unsupported

NO_PHRASES = (
    "this engine does not find objects by words or examples: draw a box or click on each object, or set engine: sam3, "
    "which does both"
)


@dataclass(frozen=True, slots=True)
class SamModel:
    """The loaded model.

    Attributes:
        detector: finds objects by words and exemplars; None: the model does not support them.
        inference: context manager that sets the precision to compute in.
        max_speck_area: largest hole to fill and speck to remove, in pixels of the model's masks; 0 disables both.
        with_masks: whether results contain masks, unless a session keeps them.
        fingerprint: the engine's version, which identifies the weights; saved states carry it.
        published: follow the authors' own code where Transformers departs from it in how corrections are made.
    """

    image_encoder: ImageEncoder[ImageFeatures]
    tracker: Tracker
    detector: Detector | None
    thresholds: Thresholds
    inference: Callable[[], AbstractContextManager[None]]
    max_speck_area: int
    with_masks: bool
    fingerprint: str
    published: bool = False

    def __post_init__(self) -> None:
        for batches in self._batches():
            batches.give_way = self.image_encoder.cache.give_way

    def compile(self) -> None:
        """Compile image encoder, mask decoder and memory encoder; call it after the first run."""
        self.image_encoder.compile()
        self.tracker.compile()

    def require_detector(self) -> Detector:
        """The detector.

        Raises:
            Unsupported: the model has none.
        """
        if self.detector is None:
            raise Unsupported(NO_PHRASES)
        return self.detector

    def reset_batches(self) -> None:
        """Start with full batches again: memory may be free by now."""
        for batches in self._batches():
            batches.reset()

    def _batches(self) -> list[Batcher]:
        return [self.tracker.batches, *([self.detector.batches] if self.detector else [])]
