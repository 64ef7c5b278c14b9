"""The engine `edgetam`."""

from backend.engines.edgetam import weights
from backend.engines.edgetam.image_encoder import EdgeTamImageEncoder
from backend.engines.edgetam.tracker import EdgeTamTracker
from backend.engines.edgetam.version import engine_version
from backend.engines.sam.engine import SamEngine
from backend.engines.sam.model import SamModel
from backend.engines.sam.thresholds import Thresholds
from backend.settings import Settings

MAX_SPECK_AREA = 8
"""Pixels of the model's masks; `fill_hole_area` of the published video predictor."""


class EdgeTamEngine(SamEngine):
    """One EdgeTAM for all sessions; see `SamEngine`.

    Raises:
        SettingsError: the device is not available.
    """

    name = "edgetam"

    def __init__(self, settings: Settings, sharers: int = 1) -> None:
        super().__init__(settings, engine_version(settings), sharers=sharers)

    def _load_model(self) -> SamModel:
        settings = self._settings
        model = weights.load_model(
            settings.model_path, settings.model_dir, settings.image_size, settings.revision, self._show_download
        )
        return SamModel(
            inference=self._prepare_device(model),
            image_encoder=EdgeTamImageEncoder(model),
            tracker=EdgeTamTracker(model),
            detector=None,
            thresholds=Thresholds(max_objects=settings.max_objects),
            max_speck_area=MAX_SPECK_AREA,
            with_masks=settings.keeps_masks,
            fingerprint=self.version,
        )
