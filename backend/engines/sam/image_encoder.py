"""Runs an image encoder once for each frame, and caches its output."""

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from backend.engines.sam.device import empty_cache
from backend.video import Picture

CACHED_FRAMES = 64
CACHED_BYTES = 2**31
"""64 frames of SAM 3 take 1.3 GB in single precision, and half of that under autocast; of SAM 2 at 1024 px, 1.1 GB."""


class ImageFeatures(Protocol):
    """The image features of one frame."""

    @property
    def fpn_levels(self) -> Sequence[Tensor]:
        """For the tracker: shapes (1, channels, h, w), 4, 2 and 1 times as fine as the memory's grid."""
        ...


Features = TypeVar("Features", bound=ImageFeatures, covariant=True)


class ImageEncoder(ABC, Generic[Features]):
    """An image encoder, with a cache of the last frames.

    Args:
        model: the whole model.
        max_frames: maximum number of cached frames.
        max_bytes: maximum size of the cache on the device.

    Attributes:
        runs: how often the encoder ran.
    """

    def __init__(self, model: Any, max_frames: int = CACHED_FRAMES, max_bytes: int = CACHED_BYTES) -> None:
        self._model = model
        self._max_frames, self._max_bytes = max_frames, max_bytes
        self._bytes = 0
        self._outputs: OrderedDict[Hashable, tuple[Tensor, ...]] = OrderedDict()
        self._last: tuple[Hashable, Features] | None = None
        self._lock = threading.Lock()
        self.runs = 0

    @abstractmethod
    def _encode(self, picture: Picture) -> tuple[Tensor, ...]:
        """Run the encoder; the cache keeps what this returns."""

    @abstractmethod
    def _features(self, output: tuple[Tensor, ...]) -> Features:
        """The features of a frame from what `_encode` returned."""

    def encode(self, key: Hashable, picture: Picture) -> Features:
        """Encode a frame, or take it from the cache.

        Args:
            key: identifies the video and the frame.
            picture: shape (height, width, 3), RGB.
        """
        with self._lock:
            if self._last and self._last[0] == key:  # sessions that travel together share what is made of it, too
                return self._last[1]
            output = self._outputs.get(key)
            if output is not None:
                self._outputs.move_to_end(key)
        if output is None:
            output = self._encode_with_retry(picture)
        features = self._features(output)
        with self._lock:
            self._last = key, features
            if key not in self._outputs:
                self._bytes += _size(output)
            self._outputs[key] = output
            while len(self._outputs) > self._max_frames or (self._bytes > self._max_bytes and len(self._outputs) > 1):
                self._bytes -= _size(self._outputs.popitem(last=False)[1])
        return features

    def clear(self) -> None:
        """Clear the cache."""
        with self._lock:
            self._outputs.clear()
            self._bytes, self._last = 0, None

    def _encode_with_retry(self, picture: Picture) -> tuple[Tensor, ...]:
        self.runs += 1
        try:
            return self._encode(picture)
        except torch.OutOfMemoryError:
            pass  # Retried outside the handler, so that the tensors of the first try are freed.
        self.clear()
        empty_cache()
        self.runs += 1
        return self._encode(picture)


def to_autocast(tensor: Tensor) -> Tensor:
    """In the precision of autocast, if it is on: later layers read it so anyway, and it takes half the memory."""
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor


def _size(output: tuple[Tensor, ...]) -> int:
    return sum(tensor.nbytes for tensor in output)
