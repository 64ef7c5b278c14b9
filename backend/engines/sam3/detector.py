"""SAM3's detector: finds every object on a frame that words or exemplars describe, with its mask."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Sam3VideoModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

from backend.engines.sam.detections import Detections, Query
from backend.engines.sam.device import Batcher
from backend.engines.sam.postprocess import suppress_overlaps
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
        attention_mask: shape (n, tokens), 1 on a token and 0 on padding.
    """

    features: Tensor
    attention_mask: Tensor

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
        self._cached: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()

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
        features, attention = zip(*(read[phrase] for phrase in phrases), strict=True)
        return TextFeatures(torch.stack(features), torch.stack(attention))

    def check_texts(self, texts: Sequence[str]) -> None:
        """See `backend.engines.sam.detections.Detector`."""
        self.encode_phrases([text or WORDLESS for text in texts])

    def detect_queries(self, image: Sam3ImageFeatures, queries: Sequence[Query]) -> Detections:
        """Detect the objects of queries; see `detect`."""
        text = self.encode_phrases([query.text or WORDLESS for query in queries])
        return self.detect(image.detector_features(), text, [query.exemplars for query in queries])

    @torch.no_grad()
    def detect(
        self, image: Sam3VisionEncoderOutput, text: TextFeatures, exemplars: Sequence[Sequence[Exemplar]] = ()
    ) -> Detections:
        """Detect the objects of phrases with a score above the model's `score_threshold_detection`.

        Of objects of one phrase with an IoU above `det_nms_thresh` (0: off) only the best is kept.

        Args:
            image: features of one frame, batch 1.
            text: of the phrases.
            exemplars: of each phrase; default: none has any.
        """
        if self.geometry_token or any(exemplars):
            text = self._add_geometry(image, text, exemplars or [()] * len(text))
        return Detections(*self.batches.run(len(text), lambda part: self._detect_batch(image, text, part)))

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
        tokens = [encoded.get(tuple(examples), nothing) for examples in exemplars]
        counts = torch.tensor([len(some) for some in tokens], device=text.attention_mask.device)
        mask = torch.arange(int(counts.max()), device=counts.device) < counts[:, None]
        return TextFeatures(
            torch.cat([text.features, pad_sequence(tokens, batch_first=True)], 1),
            torch.cat([text.attention_mask, mask.to(text.attention_mask.dtype)], 1),
        )

    @torch.no_grad()
    def _encode_new(self, phrases: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        ids, attention = (tensor.to(self._model.device) for tensor in self._tokenizer.encode(phrases))
        text = self._model.detector_model.get_text_features(input_ids=ids, attention_mask=attention, return_dict=True)
        return list(zip(text.pooler_output, attention, strict=True))

    def _cache(self, read: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        for phrase, features in read.items():
            self._cached[phrase] = features
            self._cached.move_to_end(phrase)
        while len(self._cached) > CACHED_PHRASES:
            self._cached.popitem(last=False)

    def _detect_batch(
        self, image: Sam3VisionEncoderOutput, text: TextFeatures, part: slice
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The fields of `Detections`, for some of the phrases."""
        features, attention = text.features[part], text.attention_mask[part]
        output = self._model.detector_model(
            vision_embeds=repeat_frame(image, len(features)),
            text_embeds=BaseModelOutputWithPooling(pooler_output=features),
            attention_mask=attention,
        )
        scores = output.pred_logits.float().sigmoid() * output.presence_logits.float().sigmoid()
        phrases, queries = (scores > self._model.config.score_threshold_detection).nonzero(as_tuple=True)
        logits, scores = output.pred_masks[phrases, queries], scores[phrases, queries]
        keep = self._suppress_overlaps(logits, scores, phrases)
        return logits[keep], scores[keep], phrases[keep] + part.start

    def _suppress_overlaps(self, logits: Tensor, scores: Tensor, phrases: Tensor) -> Tensor:
        """Non-maximum suppression in each phrase: which detections stay, shape (n,), bool."""
        threshold = self._model.config.det_nms_thresh
        keep = torch.ones_like(phrases, dtype=torch.bool)
        for phrase in set(phrases.tolist()) if threshold else ():
            rows = (phrases == phrase).nonzero()[:, 0]
            keep[rows] = suppress_overlaps(logits[rows] > 0, scores[rows], threshold)
        return keep


def repeat_frame(image: Sam3VisionEncoderOutput, count: int) -> Sam3VisionEncoderOutput:
    """Expand one frame to a batch, without copying."""
    levels, positions = (
        tuple(level.expand(count, -1, -1, -1) for level in levels)
        for levels in (image.fpn_hidden_states, image.fpn_position_encoding)
    )
    return Sam3VisionEncoderOutput(fpn_hidden_states=levels, fpn_position_encoding=positions)
