"""The engine `sam3`."""

from dataclasses import replace

from backend.engines.base import OPEN_HINT
from backend.engines.sam.engine import SamEngine
from backend.engines.sam.model import SamModel
from backend.engines.sam.thresholds import Thresholds
from backend.engines.sam.tracker import Tracker
from backend.engines.sam3 import weights
from backend.engines.sam3.detector import Sam3Detector
from backend.engines.sam3.image_encoder import Sam3ImageEncoder
from backend.engines.sam3.version import engine_version
from backend.settings import Settings


class Sam3Engine(SamEngine):
    """One SAM 3 model for all sessions; see `SamEngine`.

    Raises:
        SettingsError: the device is not available.
    """

    name = "sam3"

    def __init__(self, settings: Settings, sharers: int = 1) -> None:
        super().__init__(settings, engine_version(settings), OPEN_HINT if settings.engine == "auto" else "", sharers)

    def _load_model(self) -> SamModel:
        settings = self._settings
        model, tokenizer = weights.load_model(
            settings.model_path,
            settings.bpe_path,
            settings.model_dir,
            settings.image_size,
            settings.revision,
            self._show_download,
        )
        config = model.config
        published = getattr(config, "reference", settings.reference) == "published"
        config.score_threshold_detection = settings.score_threshold
        thresholds = replace(
            Thresholds.from_config(config),
            new_track_score=settings.new_object_threshold,
            max_objects=settings.max_objects,
        ).with_hotstart(settings.hotstart_frames)
        return SamModel(
            inference=self._prepare_device(model),
            image_encoder=Sam3ImageEncoder(model, published=published),
            tracker=Tracker(model.tracker_model),
            detector=Sam3Detector(model, tokenizer),
            thresholds=thresholds,
            max_speck_area=config.fill_hole_area,
            with_masks=settings.keeps_masks,
            fingerprint=self.version,
            published=published,
        )
