"""The engine `sam3`: loads the model in the background and opens sessions."""

import atexit
import logging
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from backend.engines.base import FAILED_PREFIX, OPENCV_HINT, read_process_memory
from backend.engines.sam import device as devices
from backend.engines.sam.model import SamModel
from backend.engines.sam.session import SamSession
from backend.engines.sam.thresholds import Thresholds
from backend.engines.sam.tracker import Tracker
from backend.engines.sam3 import weights
from backend.engines.sam3.detector import Detector
from backend.engines.sam3.image_encoder import ImageEncoder
from backend.engines.sam3.version import engine_version
from backend.errors import BackendError, SettingsError, where
from backend.settings import Settings
from backend.video import Video

log = logging.getLogger(__name__)

_EXIT_TIMEOUT = 20.0
"""Seconds to wait at exit for a model that is loading: torch aborts if the interpreter ends meanwhile."""


class Sam3Engine:
    """One SAM 3 model for all sessions; see `backend.engines.base.Engine`.

    It loads in the background; `open` waits for it.

    Raises:
        SettingsError: the device is not available.
    """

    name = "sam3"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._device = devices.select_device(settings.device)
        self.version = engine_version(settings)
        self._status = "loading"
        self._model: SamModel | None = None
        self._error = ""
        self._loading = threading.Thread(target=self._load, name="load sam3", daemon=True)
        self._loading.start()
        atexit.register(self._loading.join, _EXIT_TIMEOUT)

    @property
    def status(self) -> str:
        """See the contract."""
        return self._status

    @property
    def model(self) -> SamModel:
        """The model; waits until it is loaded.

        Raises:
            SettingsError: it could not be loaded.
        """
        self._loading.join()
        if self._model is None:
            raise SettingsError(self._error)
        return self._model

    def memory(self) -> tuple[int, int] | None:
        """Memory of the GPU, including other processes; without a GPU, of this process."""
        if self._device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self._device)
            return total - free, total
        return read_process_memory()

    def open(self, video: Video, state: bytes | None = None) -> SamSession:
        """Start on a video, or continue from a saved state.

        Raises:
            SettingsError: the model could not be loaded.
            Unsupported: the state is of another video, or of other weights.
        """
        return SamSession(self.model, video, state)

    def _load(self) -> None:
        try:
            sam3 = self._load_model()
            self._status = "warming up"
            self._warm_up(sam3)
            self._model, self._status = sam3, "ready"
        except BackendError as error:
            self._fail(str(error))
        except Exception as error:
            kind = type(error).__name__
            log.error("the model could not be loaded: %s", where(error))
            self._fail(
                f"the model could not be loaded ({kind}): check model_path and device, and that the versions of torch "
                "and transformers are those that the extra sam3 requires"
            )

    def _fail(self, sentence: str) -> None:
        self._error = f"{sentence}; or {OPENCV_HINT}" if self._settings.engine == "auto" else sentence
        self._status = FAILED_PREFIX + self._error

    def _load_model(self) -> SamModel:
        settings = self._settings
        folder = Path(settings.model_dir).expanduser() if settings.model_dir else None
        model, tokenizer = weights.load_model(settings.model_path, settings.bpe_path, folder, settings.image_size)
        fingerprint = weights.fingerprint(model)
        if self._device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        elif torch.get_num_threads() > 1:
            # Leave one core to decoding and HTTP: torch threads that wait for each other are slow. With two busy cores,
            # one thread gave 20 to 26 frames/s with the shapes model, two gave 4 to 6.
            torch.set_num_threads(torch.get_num_threads() - 1)
        config = model.config
        config.score_threshold_detection = settings.score_threshold
        thresholds = replace(
            Thresholds.from_config(config),
            new_track_score=settings.new_object_threshold,
            max_objects=settings.max_objects,
        ).with_hotstart(settings.hotstart_frames)
        torch.nn.Module.to(model, self._device)
        return SamModel(
            image_encoder=ImageEncoder(model),
            tracker=Tracker(model),
            detector=Detector(model, tokenizer),
            thresholds=thresholds,
            inference=partial(devices.inference, self._device, settings.dtype),
            max_speck_area=config.fill_hole_area,
            with_masks=settings.show_masks,
            fingerprint=fingerprint,
        )

    def _warm_up(self, sam3: SamModel) -> None:
        """Run every part once at full size, so that the first request is not slow."""
        # glibc returns memory to the system after every frame until it has freed an allocation as large as this one.
        torch.empty(31 * 2**20, dtype=torch.uint8)
        size = sam3.tracker.image_size
        with sam3.inference():
            image = sam3.image_encoder.encode("warm up", np.zeros((size, size, 3), np.uint8))
            points = torch.full((1, 2), size / 2, device=self._device)
            labels = torch.ones(1, dtype=torch.int32, device=self._device)
            sam3.tracker.prompt(image, points, labels, None, None, sam3.tracker.memory_window(16))
            sam3.detector.detect(image.detector_features(), sam3.detector.encode_phrases(["object"]))
        sam3.image_encoder.clear()
