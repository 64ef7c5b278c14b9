"""The engine of a family whose weights anyone may download, and which knows no words."""

from collections.abc import Callable
from typing import Any

from backend.engines.sam.engine import SamEngine
from backend.engines.sam.model import SamModel
from backend.engines.sam.pyramid_encoder import PyramidEncoder
from backend.engines.sam.thresholds import Thresholds
from backend.engines.sam.tracker import Tracker
from backend.engines.sam.version import compute_version
from backend.settings import Settings

MAX_SPECK_AREA = 8
"""Pixels of the model's masks; `fill_hole_area` of the published video predictors."""


class OpenEngine(SamEngine):
    """One model for all sessions; see `SamEngine`.

    Attributes:
        load_weights: the family's `load_model`.
        image_encoder, tracker: what runs its model.

    Raises:
        SettingsError: the device is not available.
    """

    load_weights: Callable[..., Any]
    image_encoder: type[PyramidEncoder]
    tracker: type[Tracker]

    def __init__(self, settings: Settings, sharers: int = 1) -> None:
        super().__init__(settings, compute_version(settings), sharers=sharers)

    def _load_model(self) -> SamModel:
        settings = self._settings
        model = self.load_weights(
            settings.model_path, settings.model_dir, settings.image_size, settings.revision, self._show_download
        )
        return SamModel(
            inference=self._prepare_device(model),
            image_encoder=self.image_encoder(model),
            tracker=self.tracker(model),
            detector=None,
            thresholds=Thresholds(max_objects=settings.max_objects),
            max_speck_area=MAX_SPECK_AREA,
            with_masks=settings.keeps_masks,
            fingerprint=self.version,
        )
