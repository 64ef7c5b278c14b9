"""Runs the image encoder once for each frame, for detector and tracker, and caches its output."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import Sam3VideoModel
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

from backend.engines.sam.device import empty_cache
from backend.engines.sam.preprocess import preprocess_image
from backend.video import Picture

CACHED_FRAMES = 64
CACHED_BYTES = 2**31
"""64 frames of the published model take 1.3 GB in single precision, and half of that under autocast."""


class ImageFeatures:
    """The image features of one frame.

    Attributes:
        hidden: shape (1, positions, width), the encoder's last layer; other features are computed from it on demand.
    """

    def __init__(self, model: Sam3VideoModel, hidden: Tensor, position_encodings: dict[int, Tensor]) -> None:
        self._model = model
        self._position_encodings = position_encodings
        self.hidden = hidden

    @cached_property
    def fpn_levels(self) -> list[Tensor]:
        """For the tracker: shapes (1, channels, h, w), 4, 2 and 1 times as fine as the encoder's grid."""
        fine, middle, coarse = self._pyramid(self._model.tracker_neck)
        decoder = self._model.tracker_model.mask_decoder
        return [decoder.conv_s0(fine), decoder.conv_s1(middle), coarse]

    def detector_features(self) -> Sam3VisionEncoderOutput:
        """For the detector. Large, so it is not cached."""
        neck = self._model.detector_model.vision_encoder.neck
        levels = self._pyramid(neck)
        for level in levels:
            if level.shape[-1] not in self._position_encodings:
                self._position_encodings[level.shape[-1]] = neck.position_encoding(
                    level.shape, level.device, level.dtype
                )
        waves = [self._position_encodings[level.shape[-1]] for level in levels]
        # The detector ignores the last level, half as fine as the grid, so it is not computed.
        return Sam3VisionEncoderOutput(
            last_hidden_state=self.hidden,
            fpn_hidden_states=(*levels, levels[-1]),
            fpn_position_encoding=(*waves, waves[-1]),
        )

    def _pyramid(self, neck: Any) -> list[Tensor]:
        side = self._model.tracker_model.prompt_encoder.image_embedding_size[0]
        square = self.hidden.view(1, side, side, -1).permute(0, 3, 1, 2)
        return [layer(square) for layer in neck.fpn_layers[:3]]


class ImageEncoder:
    """The image encoder, with a cache of the last frames.

    Args:
        max_frames: maximum number of cached frames.
        max_bytes: maximum size of the cache on the device.

    Attributes:
        runs: how often the encoder ran.
    """

    def __init__(self, model: Sam3VideoModel, max_frames: int = CACHED_FRAMES, max_bytes: int = CACHED_BYTES) -> None:
        self._model = model
        self._max_frames, self._max_bytes = max_frames, max_bytes
        self._bytes = 0
        self._hidden: OrderedDict[Hashable, Tensor] = OrderedDict()
        # Position encodings by the width of the level, the same for every frame.
        self._position_encodings: dict[int, Tensor] = {}
        self._lock = threading.Lock()
        self.runs = 0

    def encode(self, key: Hashable, picture: Picture) -> ImageFeatures:
        """Encode a frame, or take it from the cache.

        Args:
            key: identifies the video and the frame.
            picture: shape (height, width, 3), RGB.
        """
        with self._lock:
            hidden = self._hidden.get(key)
            if hidden is not None:
                self._hidden.move_to_end(key)
                return ImageFeatures(self._model, hidden, self._position_encodings)
        hidden = self._encode_with_retry(picture)
        with self._lock:
            if key not in self._hidden:
                self._bytes += hidden.nbytes
            self._hidden[key] = hidden
            while len(self._hidden) > self._max_frames or (self._bytes > self._max_bytes and len(self._hidden) > 1):
                self._bytes -= self._hidden.popitem(last=False)[1].nbytes
        return ImageFeatures(self._model, hidden, self._position_encodings)

    def clear(self) -> None:
        """Clear the cache."""
        with self._lock:
            self._hidden.clear()
            self._bytes = 0

    def _encode_with_retry(self, picture: Picture) -> Tensor:
        try:
            return self._encode(picture)
        except torch.OutOfMemoryError:
            pass  # Retried outside the handler, so that the tensors of the first try are freed.
        self.clear()
        empty_cache()
        return self._encode(picture)

    def _encode(self, picture: Picture) -> Tensor:
        self.runs += 1
        size, backbone = self._model.config.image_size, self._model.detector_model.vision_encoder.backbone
        hidden: Tensor = backbone(preprocess_image(picture, size, self._model.device)).last_hidden_state
        if torch.is_autocast_enabled(hidden.device.type):
            # Later layers read it in this precision anyway, and it takes half the memory.
            hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
        return hidden
