"""Runs an image encoder once for each frame, and caches its output."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from backend.engines.sam.device import empty_cache
from backend.engines.sam.feature_cache import FeatureCache, Output
from backend.video import Picture, ReadPicture


class ImageFeatures(Protocol):
    """The image features of one frame."""

    @property
    def fpn_levels(self) -> Sequence[Tensor]:
        """For the tracker: shapes (1, channels, h, w), 4, 2 and 1 times as fine as the memory's grid."""
        ...


Features = TypeVar("Features", bound=ImageFeatures, covariant=True)


class ImageEncoder(ABC, Generic[Features]):
    """An image encoder, with a cache of frames.

    Args:
        model: the whole model.

    Attributes:
        cache: what it returned for frames.
        runs: how often the encoder ran.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.cache = FeatureCache()
        self._last: tuple[tuple[Hashable, int], Features] | None = None
        self.runs = 0

    @abstractmethod
    def _encode(self, picture: Picture) -> Output:
        """Run the encoder; the cache keeps what this returns."""

    @abstractmethod
    def compile(self) -> None:
        """Compile what runs for every picture; call it after the first run."""

    @abstractmethod
    def _features(self, output: Output) -> Features:
        """The features of a frame from what `_encode` returned."""

    def encode(self, video: Hashable, frame: int, read: ReadPicture) -> Features:
        """Encode a frame, or take it from the cache.

        Args:
            video: identifies the video.
            read: reads the frame.
        """
        if self._last and self._last[0] == (video, frame):  # sessions that travel together share what is made of it
            return self._last[1]
        self._last = None
        output = self.cache.get(video, frame)
        if output is None:
            output = self._encode_with_retry(read())
            self.cache.put(video, frame, output)
        features = self._features(output)
        self._last = (video, frame), features
        return features

    def clear(self) -> None:
        """Clear the cache."""
        self.cache.clear()
        self._last = None

    def _encode_with_retry(self, picture: Picture) -> Output:
        while True:
            self.runs += 1
            try:
                return self._encode(picture)
            except torch.OutOfMemoryError:
                if not self.cache.give_way():
                    raise
            # Outside the handler, so that the tensors of the failed attempt are freed.
            empty_cache()


def to_autocast(tensor: Tensor) -> Tensor:
    """In the precision of autocast, if it is on: later layers read it so anyway, and it takes half the memory."""
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor
