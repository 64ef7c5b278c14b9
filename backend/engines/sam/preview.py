"""What a prompt of a new object would select on one frame, without a session."""

from collections import OrderedDict
from collections.abc import Hashable
from functools import partial

import torch

from backend.engines import validation
from backend.engines.base import PREVIEW_FRAMES
from backend.engines.sam import mask_boxes, postprocess
from backend.engines.sam.image_encoder import ImageFeatures
from backend.engines.sam.model import SamModel
from backend.engines.sam.preprocess import preprocess_points
from backend.errors import BadRequest
from backend.tracks.geometry import Box
from backend.tracks.masks import Rle
from backend.tracks.prompts import Prompt
from backend.tracks.track import Observation
from backend.video import Video


class Previewer:
    """Decodes prompts on single frames.

    It keeps their features itself, because a session that runs meanwhile fills the image encoder's cache with its own.
    """

    def __init__(self, model: SamModel) -> None:
        self._model = model
        self._features: OrderedDict[Hashable, ImageFeatures] = OrderedDict()

    def encode(self, video: Video, frame: int) -> None:
        """See `backend.engines.base.Engine.encode`."""
        frame = validation.validate_frame_number(frame, video)
        with self._model.inference():
            # Some features are computed on demand, from others that take as much memory.
            _ = self._get_features(video, frame).fpn_levels

    def preview(self, video: Video, prompt: Prompt) -> list[Observation]:
        """See `backend.engines.base.Engine.preview`."""
        frame = validation.validate_frame([prompt], video)
        (prompt,) = validation.merge_prompts([prompt], video).values()
        if prompt.is_negative or prompt.mask is not None:
            raise BadRequest("negative points alone select nothing: add a positive point or a box")
        model = self._model
        with model.inference():
            features = self._get_features(video, frame)
            size = video.width, video.height
            points, labels = preprocess_points(prompt, size, model.tracker.image_size, model.tracker.device)
            logits, scores = model.tracker.find_candidates(features, points, labels)
            postprocess.check_finite(logits, scores, frame)
            logits = postprocess.clean_masks(logits, model.max_speck_area)
            return _observe(logits, scores, video.height, video.width)

    def _get_features(self, video: Video, frame: int) -> ImageFeatures:
        key = video.key, frame
        features = self._features.pop(key, None)
        if features is None:
            features = self._model.image_encoder.encode(*key, partial(video.read, frame))
        self._features[key] = features
        if len(self._features) > PREVIEW_FRAMES:
            self._features.popitem(last=False)
        return features


def _observe(logits: torch.Tensor, scores: torch.Tensor, height: int, width: int) -> list[Observation]:
    """Masks of shape (k, h, w) in a picture, those that are empty left out."""
    boxes = mask_boxes.masks_to_boxes(logits, height, width).tolist()
    return [
        Observation(
            Box(*box), min(max(score, 0.0), 1.0), Rle.from_mask(mask_boxes.mask_in_box(mask, box, height, width))
        )
        for mask, box, score in zip(logits, boxes, scores.tolist(), strict=True)
        if box[0] == box[0]
    ]
