"""The engine `sam2`."""

from backend.engines.sam.engine import SamEngine
from backend.engines.sam.model import SamModel
from backend.engines.sam.thresholds import Thresholds
from backend.engines.sam.tracker import Tracker
from backend.engines.sam2 import weights
from backend.engines.sam2.image_encoder import Sam2ImageEncoder
from backend.engines.sam2.version import engine_version
from backend.settings import Settings

MAX_SPECK_AREA = 8
"""Pixels of the model's masks; `fill_hole_area` of the published video predictor."""


class Sam2Tracker(Tracker):
    """SAM 2's tracker, which uses the last frames as memory, whatever their scores."""

    min_eff_iou = None


class Sam2Engine(SamEngine):
    """One SAM 2 model for all sessions; see `SamEngine`.

    Raises:
        SettingsError: the device is not available.
    """

    name = "sam2"

    def __init__(self, settings: Settings, sharers: int = 1) -> None:
        super().__init__(settings, engine_version(settings), sharers=sharers)

    def _load_model(self) -> SamModel:
        settings = self._settings
        model = weights.load_model(
            settings.model_path, settings.model_dir, settings.image_size, settings.revision, self._show_download
        )
        return SamModel(
            inference=self._prepare_device(model),
            image_encoder=Sam2ImageEncoder(model),
            tracker=Sam2Tracker(model),
            detector=None,
            thresholds=Thresholds(max_objects=settings.max_objects),
            max_speck_area=MAX_SPECK_AREA,
            with_masks=settings.keeps_masks,
            fingerprint=self.version,
        )
