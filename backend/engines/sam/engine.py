"""What the engines of the SAM family share: loading in the background, opening sessions."""

import atexit
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from weakref import WeakSet

import numpy as np
import torch

from backend.engines.base import (
    DOWNLOADING_PREFIX,
    FAILED_PREFIX,
    WAITING_PREFIX,
    CacheUse,
    Propagation,
    read_process_memory,
)
from backend.engines.sam import device as devices
from backend.engines.sam.detections import Query
from backend.engines.sam.hub import DownloadInterrupted
from backend.engines.sam.memory_bank import MemorySelection
from backend.engines.sam.model import SamModel
from backend.engines.sam.preview import Previewer
from backend.engines.sam.propagation import SamPropagation, advance_together
from backend.engines.sam.session import SamSession
from backend.errors import BackendError, SettingsError, where
from backend.settings import Settings
from backend.tracks.prompts import Prompt
from backend.tracks.track import FrameResult, Observation
from backend.video import Video

log = logging.getLogger(__name__)

COMPILED_COUNTS = (1, 2, 16)
"""Numbers of objects for which parts are compiled: each stands for those up to the next. The last is for CPUs alone,
whose convolutions differ from there on."""
RETRY_SECONDS = 60.0
"""How often an interrupted download is tried again."""
_EXIT_TIMEOUT = 20.0
"""Seconds to wait at exit for a model that is loading: torch aborts if the interpreter ends meanwhile."""


class SamEngine(ABC):
    """One model for all sessions; see `backend.engines.base.Engine`.

    It loads in the background; `open` waits for it.

    Args:
        settings: which weights to load, and how to run them.
        version: see `Engine.version`.
        hint: alternatives that errors of loading name; empty: none.
        sharers: how many engines share the machine's memory and its cores.

    Raises:
        SettingsError: the device is not available.
    """

    name: str

    def __init__(self, settings: Settings, version: str, hint: str = "", sharers: int = 1) -> None:
        self._settings = settings
        self._sharers = sharers
        self._hint = hint
        self._device = devices.select_device(settings.device)
        self._attention = devices.select_attention(settings.attention)
        self.version = version
        self._status = "loading"
        self._model: SamModel | None = None
        self._previewer: Previewer | None = None
        self._sessions: WeakSet[SamSession] = WeakSet()
        self._error = ""
        self._percent: int | None = None
        self._download_start = 0.0, 0
        self._closing = threading.Event()
        self._loading = threading.Thread(target=self._load, name=f"load {self.name}", daemon=True)
        self._loading.start()
        atexit.register(self._end_loading)

    @abstractmethod
    def _load_model(self) -> SamModel:
        """Load the weights and put the model together."""

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

    def cache_use(self) -> CacheUse | None:
        """The cache of the image encoder; None while the model loads."""
        return self._model.image_encoder.cache.use() if self._model else None

    @property
    def device_name(self) -> str:
        """The device and what it is, for people."""
        return devices.describe_device(self._device)

    def open(self, video: Video, state: bytes | None = None) -> SamSession:
        """Start on a video, or continue from a saved state.

        Raises:
            SettingsError: the model could not be loaded.
            StateRefused: the state is of another video, or of other weights.
        """
        model = self.model
        if not self._sessions:  # else they would run out of memory again
            model.reset_batches()
        session = SamSession(model, video, state)
        self._sessions.add(session)
        return session

    def advance(self, propagations: Sequence[Propagation]) -> list[FrameResult | Exception]:
        """See the contract; the sessions share the features of the frame, and the tracker's batches."""
        return advance_together([one for one in propagations if isinstance(one, SamPropagation)])

    def encode(self, video: Video, frame: int) -> None:
        """See the contract."""
        self._get_previewer().encode(video, frame)

    def preview(self, video: Video, prompt: Prompt) -> list[Observation]:
        """See the contract."""
        return self._get_previewer().preview(video, prompt)

    def _get_previewer(self) -> Previewer:
        if self._previewer is None:
            self._previewer = Previewer(self.model)
        return self._previewer

    def _load(self) -> None:
        try:
            model = self._load_with_retries()
            model.tracker.prefers_flash = self._settings.attention in ("flash", "flash3")
            self._status = "warming up"
            self._warm_up(model)
            if self._settings.compile:
                model.compile()
                self._warm_up(model)
            self._model, self._status = model, "ready"
        except BackendError as error:
            self._fail(str(error))
        except Exception as error:
            kind = type(error).__name__
            log.error("the model could not be loaded: %s", where(error))
            self._fail(
                f"the model could not be loaded ({kind}): check model_path and device, and that the versions of torch "
                "and transformers are those that the extra sam3 requires"
                + ("; or set compile: false, which needs no compiler" if self._settings.compile else "")
            )

    def _load_with_retries(self) -> SamModel:
        """Load the model; where its download does not go on, try again until it does."""
        while True:
            try:
                return self._load_model()
            except DownloadInterrupted as error:
                self._percent = None
                self._status = (
                    f"{WAITING_PREFIX}{error.trouble}; what has come is kept, and the next try is within "
                    f"{RETRY_SECONDS:.0f} s"
                )
                if self._closing.wait(RETRY_SECONDS):
                    raise

    def _end_loading(self) -> None:
        self._closing.set()
        self._loading.join(_EXIT_TIMEOUT)

    def _show_download(self, done: int, total: int) -> None:
        """Set the status, at every hundredth."""
        percent = 100 * done // total
        if percent == self._percent:
            return
        now = time.monotonic()
        if self._percent is None:
            self._download_start = now, done
        self._percent = percent
        started, before = self._download_start
        rate = (done - before) / max(now - started, 0.001)
        left = (total - done) / rate if rate else None
        time_left = "" if left is None else f", {left:.0f} s left" if left < 90 else f", {left / 60:.0f} min left"
        self._status = f"{DOWNLOADING_PREFIX}{percent} % of {total / 1e9:.1f} GB{time_left}"

    def _fail(self, sentence: str) -> None:
        self._error = f"{sentence}; or {self._hint}" if self._hint else sentence
        self._status = FAILED_PREFIX + self._error

    def _prepare_device(self, model: torch.nn.Module) -> Callable[[], AbstractContextManager[None]]:
        """Move a model to the device; returns the context manager to run it in."""
        if self._device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        else:
            devices.share_cores(self._sharers)
        model.to(self._device)
        if devices.is_narrow(self._device, self._settings.dtype):
            devices.narrow_weights(model)
        return partial(devices.inference, self._device, self._settings.dtype, self._attention)

    def _warm_up(self, model: SamModel) -> None:
        """Run every part once at full size, so that the first request is not slow."""
        # glibc returns memory to the system after every frame until it has freed an allocation as large as this one.
        torch.empty(31 * 2**20, dtype=torch.uint8)
        size = model.tracker.image_size
        with model.inference():
            image = model.image_encoder.encode("warm up", 0, lambda: np.zeros((size, size, 3), np.uint8))
            points = torch.full((1, 2), size / 2, device=self._device)
            labels, window = torch.ones(1, dtype=torch.int32, device=self._device), model.tracker.memory_window(16)
            prediction, features = model.tracker.prompt(image, points, labels, None, None, window)
            memory = MemorySelection([features[0]], [0], [prediction.object_pointers[0]], [1])
            for count in COMPILED_COUNTS if self._settings.compile else ():
                prediction = model.tracker.track(image, [memory] * count, window)
                scores = prediction.object_scores
                model.tracker.encode_memory(image, prediction.logits, scores, full_size=True)
            if model.detector:
                model.detector.detect_queries(image, [Query("object")], prediction.logits)
        model.image_encoder.clear()
        model.image_encoder.cache.resize(*devices.cache_sizes(self._settings.cache, self._device, self._sharers))
