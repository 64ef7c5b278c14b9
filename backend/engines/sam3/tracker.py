"""SAM3's tracker on one frame, for many objects at once: prompts to masks, memories to masks, masks to memories.

The library goes through objects one by one. Here they share whatever is the same for all of them, the frame's features
foremost, and go through memory attention, mask decoder and memory encoder together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Sam3VideoModel
from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import (
    Sam3TrackerVideoMemoryAttentionLayer,
    Sam3TrackerVideoRoPEAttention,
    get_1d_sine_pe,
)

from backend.engines.sam3.device import Batches
from backend.engines.sam3.image_encoder import View
from backend.engines.sam3.memory_bank import History, Reach

BATCH = 16
"""Objects that go through the model together at most; halved when the device has no room for them."""
_NOWHERE = -1024.0
_CLAMP = 32.0
_GIVEN = -10.0, 20.0
"""Logits of what was given: outside, and how much more inside."""


class Masks(NamedTuple):
    """What the mask decoder says of n objects on one frame.

    Attributes:
        logits: shape (n, h, w), above 0 on the object.
        scores: shape (n,), logits of "it is there".
        pointers: shape (n, width).
        qualities: shape (n,), from 0 to 1: the IoU that the decoder expects, less where it is not sure of the object.
    """

    logits: Tensor
    scores: Tensor
    pointers: Tensor
    qualities: Tensor


class Tracker:
    """The tracker's weights and what never changes about them.

    Args:
        model: the whole model; its `tracker_model` is used.
    """

    memory_dtype = torch.bfloat16
    """What memories are kept in, as in the published model."""
    least_quality: float | None = 0.01
    """Of what is remembered; see `Reach.least`. So facebookresearch/sam3 runs the published model."""

    def __init__(self, model: Sam3VideoModel) -> None:
        self._model: Any = model.tracker_model
        self._config = model.tracker_model.config
        self.batches = Batches(BATCH, "objects")
        self._constants: _Constants | None = None

    @property
    def side(self) -> int:
        """Width and height of the pictures that the model sees."""
        return int(self._config.image_size)

    @property
    def mask_size(self) -> tuple[int, int]:
        """Height and width of its masks."""
        height, width = self._model.prompt_encoder.mask_input_size
        return int(height), int(width)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self._model.no_memory_embedding.device
        return device

    def reach(self, frames: int) -> Reach:
        """How far it looks in a video of so many frames."""
        config = self._config
        return Reach(
            config.num_maskmem - 1,
            min(frames, config.max_object_pointers_in_encoder),
            config.max_cond_frame_num,
            self.least_quality,
        )

    def prompt(
        self, view: View, points: Tensor, labels: Tensor, previous: Tensor | None, history: History | None, reach: Reach
    ) -> tuple[Masks, Tensor]:
        """One object's mask from what a person showed.

        Args:
            points: shape (p, 2), in pixels of the model's picture.
            labels: shape (p,): 1 on the object, 0 beside it, 2 and 3 the corners of a box.
            previous: shape (h, w), logits of the mask that the points correct; None: they correct none.
            history: what was seen of the object elsewhere; None: the frame stands alone.

        Returns:
            The mask (n = 1), and what to remember of it, as `encode` has it.
        """
        masks, histories = None if previous is None else previous[None], None if history is None else [history]
        return self.prompt_together(view, points[None], labels[None], masks, histories, reach)

    def prompt_together(
        self,
        view: View,
        points: Tensor,
        labels: Tensor,
        previous: Tensor | None,
        histories: Sequence[History] | None,
        reach: Reach,
    ) -> tuple[Masks, Tensor]:
        """As `prompt`, of n objects: points (n, p, 2), labels (n, p), previous (n, h, w), histories `alike`."""
        image = self._alone(view) if histories is None else self._remembered(view, histories, reach)
        several = self._several(labels.shape[1], is_tracking=histories is not None)
        masks = None if previous is None else previous.clamp(-_CLAMP, _CLAMP)[:, None]
        found = self._decode(view, image, points[:, None], labels[:, None], masks, several)
        return found, self._encode(view, found.logits, found.scores, full=True, hard=True)

    def given(self, view: View, masks: Tensor) -> tuple[Masks, Tensor]:
        """Take masks for what they are.

        Args:
            masks: shape (n, h, w), from 0 to 1.

        Returns:
            The masks, and what to remember of them, as `encode` has it.
        """
        *found, features = self.batches.run(len(masks), lambda part: self._given(view, masks[part]))
        return Masks(*found), features

    def track(self, view: View, histories: Sequence[History], reach: Reach) -> Masks:
        """Find n objects again, each by its own history."""
        groups = alike(histories)
        found = [self._track(view, [histories[row] for row in rows], reach) for rows in groups]
        back = torch.tensor([row for rows in groups for row in rows], device=view.hidden.device).argsort()
        return Masks(*(torch.cat(parts)[back] for parts in zip(*found, strict=True)))

    def encode(self, view: View, logits: Tensor, scores: Tensor, *, full: bool) -> Tensor:
        """What to remember of n objects on a frame.

        Args:
            logits: shape (n, h, w).
            scores: shape (n,), logits of "it is there".
            full: go by way of the picture's full size, as the library does for all but objects found by words.

        Returns:
            Shape (n, positions, memory width).
        """
        (features,) = self.batches.run(
            len(logits), lambda part: (self._encode(view, logits[part], scores[part], full=full, hard=False),)
        )
        return features

    def _track(self, view: View, histories: Sequence[History], reach: Reach) -> Masks:
        """As `track`, of objects that look at the same number of frames."""

        def find(part: slice) -> Masks:
            image = self._remembered(view, histories[part], reach)
            return self._decode(view, image, None, None, None, self._several(0, is_tracking=True))

        return Masks(*self.batches.run(len(histories), find))

    def _several(self, points: int, *, is_tracking: bool) -> bool:
        """Whether the decoder proposes several masks, of which the best is taken: where the prompt is ambiguous."""
        config = self._config
        allowed = config.multimask_output_in_sam and (config.multimask_output_for_tracking or not is_tracking)
        return bool(allowed and config.multimask_min_pt_num <= points <= config.multimask_max_pt_num)

    def _given(self, view: View, masks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        whole = _resized(masks[:, None], (self.side, self.side))
        size = self._model.prompt_encoder.mask_input_size
        prompt = _resized(self._model.mask_downsample(whole).float(), size)
        pointers = self._decode(view, view.levels[-1], None, None, prompt, several=True).pointers
        there = masks.flatten(1).any(1)
        pointers = torch.where(there[:, None], pointers, self._model.no_object_pointer.to(pointers.dtype))
        logits, scores = whole * _GIVEN[1] + _GIVEN[0], there * _GIVEN[1] + _GIVEN[0]
        features = self._encode(view, logits[:, 0], scores, full=True, hard=True)
        return _resized(logits, size)[:, 0], scores, pointers, there.float(), features

    def _alone(self, view: View) -> Tensor:
        embedding: Tensor = self._model.no_memory_embedding
        return view.levels[-1] + embedding.view(1, -1, 1, 1)

    def _decode(
        self,
        view: View,
        image: Tensor,
        points: Tensor | None,
        labels: Tensor | None,
        masks: Tensor | None,
        several: bool,
    ) -> Masks:
        constants = self._fixed()
        if points is None and masks is None:
            sparse, dense = constants.nothing
        else:
            if points is None or labels is None:
                points, labels = constants.no_points, constants.no_labels
            sparse, dense = self._model.prompt_encoder(
                input_points=points, input_labels=labels, input_boxes=None, input_masks=masks
            )
        count = max(len(image), len(dense))
        logits, quality, tokens, scores = self._model.mask_decoder(
            image_embeddings=image.expand(count, -1, -1, -1),
            image_positional_embeddings=constants.image_positions,
            sparse_prompt_embeddings=sparse.expand(count, -1, -1, -1),
            dense_prompt_embeddings=dense,
            multimask_output=several,
            high_resolution_features=view.levels[:-1],
        )
        return self._chosen(logits[:, 0], quality[:, 0], tokens[:, 0], scores[:, 0, 0])

    def _chosen(self, logits: Tensor, quality: Tensor, tokens: Tensor, scores: Tensor) -> Masks:
        """Of k masks that the decoder proposes for each of n objects the best; none where the object is not there.

        Args:
            logits: shape (n, k, h, w).
            quality: shape (n, k), the IoU that it expects of each.
            tokens: shape (n, k, width).
            scores: shape (n,).
        """
        scores, rows = scores.float(), torch.arange(len(logits), device=logits.device)
        best = quality.argmax(-1)
        there = scores > 0
        sure = (scores.sigmoid() * 2 - 1).clamp(min=0)
        pointers = self._model.object_pointer_proj(tokens[rows, best])
        return Masks(
            torch.where(there[:, None, None], logits[rows, best].float(), _NOWHERE),
            scores,
            torch.where(there[:, None], pointers, self._model.no_object_pointer.to(pointers.dtype)),
            sure * quality[rows, best].float(),
        )

    def _remembered(self, view: View, histories: Sequence[History], reach: Reach) -> Tensor:
        """The frame's features as each of n objects changes them: shape (n, channels, h, w)."""
        constants, count = self._fixed(), len(histories)
        device = view.hidden.device
        features = torch.stack([one for history in histories for one in history.features])
        features = features.view(count, -1, *features.shape[1:]).to(device, torch.float32)
        ages = torch.tensor([history.ages for history in histories], device=device)
        positions = constants.memory_positions + self._model.memory_temporal_positional_encoding[ages - 1][:, :, :, 0]
        most = max(len(history.pointers) for history in histories)
        pointers, pointer_positions, mask = self._pointers(histories, most, reach, device)
        memories = torch.cat([features.flatten(1, 2), pointers], 1)
        keys = torch.cat([positions.flatten(1, 2), pointer_positions], 1) + memories
        if mask is not None:
            spatial = torch.ones(count, features.shape[1] * features.shape[2], dtype=torch.bool, device=device)
            mask = torch.cat([spatial, mask], 1)[:, None, None]
        coarse = view.levels[-1]
        state = (coarse + 0.1 * constants.frame_positions).flatten(2).transpose(1, 2)
        for layer in self._model.memory_attention.layers:
            state = _attend(layer, state, keys, memories, mask, constants.turns, pointers.shape[1])
        state = self._model.memory_attention.layer_norm(state)
        output: Tensor = state.transpose(1, 2).view(count, *coarse.shape[1:])
        return output

    def _pointers(
        self, histories: Sequence[History], most: int, reach: Reach, device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Pointers as tokens of the memory's width, their positions, and which of them are real; None: all are."""
        model = self._model
        width = int(model.mem_dim)
        if not most:
            none = torch.zeros(len(histories), 0, width, device=device)
            return none, none, None
        blank = model.no_object_pointer[0]
        rows = [[*history.pointers, *[blank] * (most - len(history.pointers))] for history in histories]
        away = [[*history.distances, *[0] * (most - len(history.distances))] for history in histories]
        pointers = torch.stack([one.float() for row in rows for one in row])
        splits = pointers.shape[-1] // width
        pointers = pointers.view(len(rows), most * splits, width)
        if self._config.enable_temporal_pos_encoding_for_object_pointers:
            times = torch.tensor(away, device=device, dtype=torch.float32) / max(1, reach.pointers - 1)
            waves = get_1d_sine_pe(times.flatten(), model.hidden_dim).view(len(rows), most, -1)  # type: ignore[no-untyped-call]
            positions = model.temporal_positional_encoding_projection_layer(waves).repeat_interleave(splits, 1)
        else:
            positions = torch.zeros_like(pointers)
        counts = [len(history.pointers) for history in histories]
        if min(counts) == most:
            return pointers, positions, None
        real = torch.arange(most, device=device) < torch.tensor(counts, device=device)[:, None]
        return pointers, positions, real.repeat_interleave(splits, 1)

    def _encode(self, view: View, logits: Tensor, scores: Tensor, *, full: bool, hard: bool) -> Tensor:
        """As `encode`; `hard` takes masks as yes or no, as the library does for what was given."""
        model, config = self._model, self._config
        logits = logits[:, None].float()
        if full:
            logits = functional.interpolate(logits, (self.side, self.side), mode="bilinear", align_corners=False)
        logits = _resized(logits, tuple(4 * side for side in model.prompt_encoder.mask_input_size))
        shares = (logits > 0).float() if hard else logits.sigmoid()
        shares = shares * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
        features, _ = model.memory_encoder(view.levels[-1], shares)
        if model.occlusion_spatial_embedding_parameter is not None:
            gone = (scores <= 0).to(features.dtype)[:, None, None, None]
            features = features + gone * model.occlusion_spatial_embedding_parameter[..., None, None]
        remembered: Tensor = features.to(self.memory_dtype).flatten(2).transpose(1, 2)
        return remembered

    def _fixed(self) -> "_Constants":
        """What is the same for every frame, made on first use."""
        if self._constants is None:
            self._constants = _Constants.of(self._model)
        return self._constants


def alike(histories: Sequence[History]) -> list[list[int]]:
    """Rows of histories by how many frames they look at: those that can go through memory attention together."""

    def frames(row: int) -> int:
        return len(histories[row].features)

    return [list(rows) for _, rows in groupby(sorted(range(len(histories)), key=frames), key=frames)]


@dataclass(frozen=True, slots=True)
class _Constants:
    """Tensors that depend on the weights alone."""

    no_points: Tensor
    no_labels: Tensor
    nothing: tuple[Tensor, Tensor]
    image_positions: Tensor
    frame_positions: Tensor
    memory_positions: Tensor
    turns: Tensor

    @classmethod
    def of(cls, model: Any) -> "_Constants":
        device = model.no_memory_embedding.device
        points, labels = torch.zeros(1, 1, 1, 2, device=device), -torch.ones(1, 1, 1, dtype=torch.int32, device=device)
        rows, columns = model.backbone_feature_sizes[-1]
        encode = model.memory_encoder.position_encoding
        attention = model.memory_attention
        cosines, sines = attention.rotary_emb(points, attention.position_ids)
        wide = type(encode)(num_position_features=model.hidden_dim // 2, normalize=True)
        return cls(
            no_points=points,
            no_labels=labels,
            nothing=model.prompt_encoder(input_points=points, input_labels=labels, input_boxes=None, input_masks=None),
            image_positions=model.get_image_wide_positional_embeddings(),
            frame_positions=wide(torch.Size((1, model.hidden_dim, rows, columns)), device, torch.float32),
            memory_positions=encode(torch.Size((1, model.mem_dim, rows, columns)), device, torch.float32)[0]
            .flatten(1)
            .T.contiguous(),
            turns=torch.complex(cosines[0, :, ::2].contiguous(), sines[0, :, ::2].contiguous()),
        )


def _attend(
    layer: Sam3TrackerVideoMemoryAttentionLayer,
    state: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    turns: Tensor,
    unturned: int,
) -> Tensor:
    """One layer of memory attention.

    Args:
        state: shape (n, positions, width), or (1, …) while all objects' are still the same.
        keys: shape (n, tokens, memory width); the last `unturned` have no place in the picture.
        values: the same shape.
        mask: shape (n, 1, 1, tokens), true where there is something; None: everywhere.
        turns: shape (positions, head width / 2), rotary position encoding as complex numbers.
    """
    attention = layer.self_attn
    normed = layer.layer_norm1(state)
    query, key, value = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
    state = state + _heads(attention, _turned(query, turns), _turned(key, turns), value, None)
    attention = layer.cross_attn_image
    query = _turned(attention.q_proj(layer.layer_norm2(state)), turns)
    key, value = attention.k_proj(keys), attention.v_proj(values)
    placed = key.shape[1] - unturned
    key = torch.cat([_turned(key[:, :placed], turns), key[:, placed:]], 1)
    state = state + _heads(attention, query.expand(len(key), -1, -1), key, value, mask)
    output: Tensor = layer.linear2(layer.activation(layer.linear1(layer.layer_norm3(state))))
    return state + output


def _turned(vectors: Tensor, turns: Tensor) -> Tensor:
    """Rotary position encoding (arXiv:2104.09864) of shape (n, k * positions, width), in single precision."""
    positions, half = turns.shape
    pairs = torch.view_as_complex(
        vectors.float().view(len(vectors), -1, positions, vectors.shape[-1] // half // 2, half, 2)
    )
    return torch.view_as_real(pairs * turns[:, None]).view_as(vectors).to(vectors.dtype)


def _heads(
    attention: Sam3TrackerVideoRoPEAttention, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> Tensor:
    def split(vectors: Tensor) -> Tensor:
        return vectors.view(*vectors.shape[:2], attention.num_attention_heads, -1).transpose(1, 2)

    looked = functional.scaled_dot_product_attention(
        split(query), split(key), split(value), attn_mask=mask, scale=attention.scaling
    )
    output: Tensor = attention.o_proj(looked.transpose(1, 2).flatten(2))
    return output


def _resized(masks: Tensor, size: tuple[int, ...]) -> Tensor:
    """Masks of shape (n, 1, h, w) at another size, antialiased."""
    if masks.shape[-2:] == size:
        return masks
    return functional.interpolate(masks, size, mode="bilinear", align_corners=False, antialias=True)
