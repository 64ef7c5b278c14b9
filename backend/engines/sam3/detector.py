"""SAM3's detector: finds every object on a frame that words or exemplars describe, with its mask."""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import Sam3VideoModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

from backend.engines.sam.detections import Detections, Query
from backend.engines.sam.device import Batcher
from backend.engines.sam3.geometry import encode_geometry
from backend.engines.sam3.image_encoder import Sam3ImageFeatures
from backend.engines.sam3.tokenizer import VOCABULARY_SIZE, Tokenizer
from backend.errors import BadRequest
from backend.tracks.prompts import Exemplar

MAX_BATCH = 8
"""Maximum phrases in one batch; each needs about 70 MB for its masks."""
CACHED_PHRASES = 256
"""Phrases whose features are cached."""
WORDLESS = "visual"
"""The words of a query that has none: the published weights are trained and run with it beside boxes."""


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """n encoded phrases.

    Attributes:
        features: shape (n, tokens, width).
        attention_mask: shape (n, tokens), 1 on a token and 0 on padding; None: there is no padding. The library waits
            for the device to see whether a mask is needed.
    """

    features: Tensor
    attention_mask: Tensor | None

    def __len__(self) -> int:
        return len(self.features)


class Sam3Detector:
    """The detector, with a cache of encoded phrases.

    The words of a query are followed by the tokens of its exemplars. Those without exemplars may be followed by one
    token of the geometry encoder, too: the published weights are trained and run with it (facebookresearch/sam3,
    `Sam3Image._encode_prompt`), but Transformers 5.23 leaves it out.

    Args:
        model: the whole model; its `detector_model` is used.

    Attributes:
        batches: runs phrases in batches.
        geometry_token: whether words alone use that token. Defaults to true for weights with CLIP's vocabulary, which
            are the published ones or derived from them; `"geometry_token"` in config.json overrides it.
    """

    def __init__(self, model: Sam3VideoModel, tokenizer: Tokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self.batches = Batcher(MAX_BATCH, "phrases")
        vocabulary = model.detector_model.config.text_config.vocab_size
        self.geometry_token = bool(getattr(model.config, "geometry_token", vocabulary == VOCABULARY_SIZE))
        self._cached: OrderedDict[str, Tensor] = OrderedDict()

    def encode_phrases(self, phrases: Sequence[str]) -> TextFeatures:
        """Encode phrases, or take them from the cache.

        Raises:
            BadRequest: there are none, or one is empty or too long.
        """
        if not phrases:
            raise BadRequest('there is no phrase: name what to find, such as "person"')
        read = {phrase: self._cached[phrase] for phrase in phrases if phrase in self._cached}
        unread = [phrase for phrase in dict.fromkeys(phrases) if phrase not in read]
        if unread:
            read.update(zip(unread, self._encode_new(unread), strict=True))
        self._cache(read)
        return _pad([read[phrase] for phrase in phrases])

    def check_texts(self, texts: Sequence[str]) -> None:
        """See `backend.engines.sam.detections.Detector`."""
        self.encode_phrases([text or WORDLESS for text in texts])

    def detect_queries(self, image: Sam3ImageFeatures, queries: Sequence[Query], tracks: Tensor) -> Detections:
        """Detect the objects of queries; see `detect`."""
        text = self.encode_phrases([query.text or WORDLESS for query in queries])
        return self.detect(image.detector_features(), text, [query.exemplars for query in queries], tracks)

    @torch.no_grad()
    def describe(self, image: Sam3ImageFeatures, masks: Tensor) -> Tensor:
        """See `backend.engines.sam.detections.Detector`."""
        side = math.isqrt(image.hidden.shape[1])
        shares = functional.interpolate(masks[:, None].float(), (side, side), mode="area").flatten(1)
        return shares @ image.hidden[0].float() / shares.sum(1, keepdim=True).clamp(min=1e-6)

    @torch.no_grad()
    def detect(
        self,
        image: Sam3VisionEncoderOutput,
        text: TextFeatures,
        exemplars: Sequence[Sequence[Exemplar]] = (),
        tracks: Tensor | None = None,
    ) -> Detections:
        """Detect the objects of phrases with a score above the model's `score_threshold_detection`.

        Of objects of one phrase with an IoU above `det_nms_thresh` (0: off) only the best is kept.

        Args:
            image: features of one frame, batch 1.
            text: of the phrases.
            exemplars: of each phrase; default: none has any.
            tracks: see `Detections.select`; default: none.
        """
        if self.geometry_token or any(exemplars):
            text = self._add_geometry(image, text, exemplars or [()] * len(text))
        logits, scores, phrases = self.batches.run(len(text), lambda part: self._detect_batch(image, text, part))
        tracks = logits[:0] if tracks is None else tracks
        return Detections.select(logits, scores, phrases, tracks, self._model.config.det_nms_thresh)

    def _add_geometry(
        self, image: Sam3VisionEncoderOutput, text: TextFeatures, exemplars: Sequence[Sequence[Exemplar]]
    ) -> TextFeatures:
        """Phrases with the tokens of the geometry encoder behind them, as many for all: the rest is padding."""
        encoder, dtype = self._model.detector_model.geometry_encoder, text.features.dtype
        encoded: dict[tuple[Exemplar, ...], Tensor] = {}
        for examples in map(tuple, exemplars):
            if examples not in encoded and (examples or self.geometry_token):
                encoded[examples] = encode_geometry(encoder, image, examples)[0].to(dtype)
        nothing = text.features[0, :0]
        geometry = _pad([encoded.get(tuple(examples), nothing) for examples in exemplars])
        features = torch.cat([text.features, geometry.features], 1)
        if text.attention_mask is None and geometry.attention_mask is None:
            return TextFeatures(features, None)
        masks = [
            torch.ones(part.features.shape[:2], dtype=torch.int64, device=features.device)
            if part.attention_mask is None
            else part.attention_mask
            for part in (text, geometry)
        ]
        return TextFeatures(features, torch.cat(masks, 1))

    @torch.no_grad()
    def _encode_new(self, phrases: Sequence[str]) -> list[Tensor]:
        """The features of each phrase's tokens, without padding."""
        encoded = self._tokenizer.encode(phrases)
        ids, attention = (tensor.to(self._model.device) for tensor in encoded)
        text = self._model.detector_model.get_text_features(input_ids=ids, attention_mask=attention, return_dict=True)
        counts = encoded[1].sum(1).tolist()
        return [features[:count] for features, count in zip(text.pooler_output, counts, strict=True)]

    def _cache(self, read: Mapping[str, Tensor]) -> None:
        for phrase, features in read.items():
            self._cached[phrase] = features
            self._cached.move_to_end(phrase)
        while len(self._cached) > CACHED_PHRASES:
            self._cached.popitem(last=False)

    def _detect_batch(
        self, image: Sam3VisionEncoderOutput, text: TextFeatures, part: slice
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, scores and phrases of all detections, for some of the phrases; see `Detections`."""
        features = text.features[part]
        output = self._model.detector_model(
            vision_embeds=repeat_frame(image, len(features)),
            text_embeds=BaseModelOutputWithPooling(pooler_output=features),
            attention_mask=None if text.attention_mask is None else text.attention_mask[part],
        )
        scores = output.pred_logits.float().sigmoid() * output.presence_logits.float().sigmoid()
        phrases, queries = (scores > self._model.config.score_threshold_detection).nonzero(as_tuple=True)
        return output.pred_masks[phrases, queries], scores[phrases, queries], phrases + part.start


def _pad(tokens: Sequence[Tensor]) -> TextFeatures:
    """Features of phrases, each of shape (tokens, width), as many for all."""
    counts, device = [len(some) for some in tokens], tokens[0].device
    if len({*counts}) == 1:
        return TextFeatures(torch.stack([*tokens]), None)
    mask = torch.arange(max(counts), device=device) < torch.tensor(counts, device=device)[:, None]
    return TextFeatures(pad_sequence([*tokens], batch_first=True), mask.long())


def repeat_frame(image: Sam3VisionEncoderOutput, count: int) -> Sam3VisionEncoderOutput:
    """Expand one frame to a batch, without copying."""
    levels, positions = (
        tuple(level.expand(count, -1, -1, -1) for level in levels)
        for levels in (image.fpn_hidden_states, image.fpn_position_encoding)
    )
    return Sam3VisionEncoderOutput(fpn_hidden_states=levels, fpn_position_encoding=positions)
