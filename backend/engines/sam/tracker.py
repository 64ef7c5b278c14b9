"""The tracker on one frame, for many objects at once: masks from prompts or memory, and memory from masks.

Transformers processes objects one by one. Here they share what is the same for all of them, mainly the image features,
and go through memory attention, mask decoder and memory encoder in batches.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from operator import add
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from backend.engines.sam.device import Batcher, compile_part
from backend.engines.sam.image_encoder import ImageFeatures, to_autocast
from backend.engines.sam.memory_attention import MemoryTokens, attend_to_memory, pack_tokens
from backend.engines.sam.memory_bank import MemorySelection, MemoryWindow
from backend.engines.sam.preprocess import NO_OBJECT_LOGIT, masks_to_logits, resize_masks
from backend.engines.sam.tracker_constants import TrackerConstants

MAX_BATCH = 64
"""Maximum objects in one batch; halved when the device runs out of memory."""
_MAX_PREVIOUS_LOGIT = 32.0
_MASK_PROMPT_SCORE = 10.0
"""Logit of presence of an object that a mask shows, and the negative one of an empty mask."""


class MaskPrediction(NamedTuple):
    """The mask decoder's output for n objects on one frame.

    Attributes:
        logits: shape (n, h, w), above 0 on the object.
        object_scores: shape (n,), logits of presence.
        object_pointers: shape (n, width).
        eff_iou_scores: shape (n,), 0..1: the expected IoU times the certainty of presence.
    """

    logits: Tensor
    object_scores: Tensor
    object_pointers: Tensor
    eff_iou_scores: Tensor


class Tracker:
    """The tracker of a model.

    Args:
        model: a video model of Transformers for clicks, or the `tracker_model` of its `Sam3VideoModel`.

    Attributes:
        prefers_flash: whether objects attend to their memories through flash attention where that can be: in one call,
            however many tokens each of them has.
    """

    memory_dtype = torch.bfloat16
    """The type of stored memory features, as in the published model."""
    min_eff_iou: float | None = 0.01
    """See `MemoryWindow`. The value with which facebookresearch/sam3 runs the published model."""
    restarts_at_prompts = True
    """See `MemoryWindow`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._config = model.config
        self.batches = Batcher(MAX_BATCH, "objects")
        self.prefers_flash = False
        # Of prompts each form would be compiled.
        self._decode_tracked, self._run_memory_encoder = model.mask_decoder, model.memory_encoder

    def compile(self) -> None:
        """Compile what runs for every tracked frame."""
        self._decode_tracked = compile_part(self._model.mask_decoder)
        self._run_memory_encoder = compile_part(self._model.memory_encoder)

    @property
    def image_size(self) -> int:
        """Width and height of the model's input, pixels."""
        return int(self._config.image_size)

    @property
    def mask_size(self) -> tuple[int, int]:
        """Height and width of the predicted masks."""
        height, width = self._model.prompt_encoder.mask_input_size
        return int(height), int(width)

    @property
    def memory_mask_size(self) -> tuple[int, int]:
        """Height and width of the masks that the memory encoder reads, and of those that are given."""
        height, width = self.mask_size
        return 4 * height, 4 * width

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        device: torch.device = self._model.no_memory_embedding.device
        return device

    def memory_window(self, frames: int) -> MemoryWindow:
        """How much memory it uses in a video of so many frames."""
        config = self._config
        return MemoryWindow(
            config.num_maskmem - 1,
            min(frames, config.max_object_pointers_in_encoder),
            config.max_cond_frame_num if config.max_cond_frame_num > 0 else None,
            self.min_eff_iou,
            self.restarts_at_prompts,
        )

    def prompt(
        self,
        image: ImageFeatures,
        points: Tensor,
        labels: Tensor,
        previous_logits: Tensor | None,
        memory: MemorySelection | None,
        window: MemoryWindow,
    ) -> tuple[MaskPrediction, Tensor]:
        """Predict one object's mask from points or a box.

        Args:
            points: shape (p, 2), in pixels of the model's input.
            labels: shape (p,): 1 positive, 0 negative, 2 and 3 the corners of a box.
            previous_logits: shape (h, w), the mask that the points correct; None: there is none.
            memory: of the object on other frames; None: none is used.

        Returns:
            The mask (n = 1), and its memory as `encode_memory` returns it.
        """
        masks, histories = (
            None if previous_logits is None else previous_logits[None],
            None if memory is None else [memory],
        )
        return self.prompt_batch(image, points[None], labels[None], masks, histories, window)

    def find_candidates(self, image: ImageFeatures, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The masks that the prompt of a new object may mean, best first; `prompt` uses the first.

        Args:
            points: shape (p, 2), see `prompt`.
            labels: shape (p,).

        Returns:
            Logits of shape (k, h, w), and the expected IoU of each, shape (k,); k is 0 if there is no object.
        """
        multimask = self._use_multimask(len(labels), is_tracking=False)
        logits, iou_scores, _, object_scores = self._run_decoder(
            image, self._add_no_memory(image), points[None, None], labels[None, None], None, multimask
        )
        order = iou_scores[0].float().argsort(descending=True, stable=True)
        order = order[: len(order) * bool(object_scores[0] > 0)]
        return logits[0, order].float(), iou_scores[0, order].float()

    def prompt_batch(
        self,
        image: ImageFeatures,
        points: Tensor,
        labels: Tensor,
        previous_logits: Tensor | None,
        memories: Sequence[MemorySelection] | None,
        window: MemoryWindow,
    ) -> tuple[MaskPrediction, Tensor]:
        """As `prompt`, for n objects: points (n, p, 2), labels (n, p), logits (n, h, w)."""
        if memories is None:
            embeddings = self._add_no_memory(image)
        else:
            embeddings = self._condition_on_memory(image, memories, window)
        multimask = self._use_multimask(labels.shape[1], is_tracking=memories is not None)
        masks = previous_logits
        if masks is not None:
            masks = masks.clamp(-_MAX_PREVIOUS_LOGIT, _MAX_PREVIOUS_LOGIT)[:, None]
        prediction = self._decode(image, embeddings, points[:, None], labels[:, None], masks, multimask)
        return prediction, self._encode_memory(
            image, prediction.logits, prediction.object_scores, full_size=True, binary=True
        )

    def use_masks(
        self, image: ImageFeatures, masks: Tensor, picture_size: tuple[int, int] | None = None
    ) -> tuple[MaskPrediction, Tensor]:
        """Use masks as the output, without predicting any, as `add_new_mask` of facebookresearch/sam3 does.

        Args:
            masks: shape (n, h, w), from 0 to 1.
            picture_size: height and width of the picture; None: those of the masks.

        Returns:
            The masks, and their memory as `encode_memory` returns it.
        """

        def use(part: slice) -> tuple[Tensor, ...]:
            return self._use_masks(image, masks[part], picture_size or (masks.shape[1], masks.shape[2]))

        *found, features = self.batches.run(len(masks), use)
        return MaskPrediction(*found), features

    def track(self, image: ImageFeatures, memories: Sequence[MemorySelection], window: MemoryWindow) -> MaskPrediction:
        """Predict the masks of n objects, each from its own memory."""

        def find(part: slice) -> MaskPrediction:
            embeddings = self._condition_on_memory(image, memories[part], window)
            return self._decode(image, embeddings, None, None, None, self._use_multimask(0, is_tracking=True))

        return MaskPrediction(*self.batches.run(len(memories), find))

    def encode_memory(self, image: ImageFeatures, logits: Tensor, object_scores: Tensor, *, full_size: bool) -> Tensor:
        """Encode the memory of n objects on a frame.

        Args:
            logits: shape (n, h, w).
            object_scores: shape (n,), logits of presence.
            full_size: threshold or squash them at the model's input size, as facebookresearch/sam3 does for all but
                tracks of phrases, whose masks it enlarges to the memory encoder's size first.

        Returns:
            Shape (n, positions, memory width).
        """
        (features,) = self.batches.run(
            len(logits),
            lambda part: (
                self._encode_memory(image, logits[part], object_scores[part], full_size=full_size, binary=False),
            ),
        )
        return features

    def _use_multimask(self, points: int, *, is_tracking: bool) -> bool:
        """Whether the decoder predicts several masks, for an ambiguous prompt; the best one is used."""
        config = self._config
        allowed = config.multimask_output_in_sam and (config.multimask_output_for_tracking or not is_tracking)
        return bool(allowed and config.multimask_min_pt_num <= points <= config.multimask_max_pt_num)

    def _use_masks(self, image: ImageFeatures, masks: Tensor, picture_size: tuple[int, int]) -> tuple[Tensor, ...]:
        full_masks = resize_masks(masks[:, None].float(), self.memory_mask_size)
        prompt = self._model.mask_downsample(full_masks).float()
        # One mask: its token is the one that the model was trained to remember (`_forward_sam_heads`).
        pointers = self._decode(image, image.fpn_levels[-1], None, None, prompt, multimask=False).object_pointers
        is_present = full_masks.flatten(1).any(1)
        pointers = torch.where(is_present[:, None], pointers, self._model.no_object_pointer.to(pointers.dtype))
        logits = masks_to_logits(masks, picture_size, self.mask_size)
        object_scores = torch.where(is_present, _MASK_PROMPT_SCORE, -_MASK_PROMPT_SCORE)
        features = self._encode_memory(image, logits, object_scores, full_size=True, binary=True)
        return logits, object_scores, pointers, is_present.float(), features

    def _add_no_memory(self, image: ImageFeatures) -> Tensor:
        embedding: Tensor = self._model.no_memory_embedding
        return image.fpn_levels[-1] + embedding.view(1, -1, 1, 1)

    def _decode(
        self,
        image: ImageFeatures,
        embeddings: Tensor,
        points: Tensor | None,
        labels: Tensor | None,
        masks: Tensor | None,
        multimask: bool,
    ) -> MaskPrediction:
        return self._select_best_masks(*self._run_decoder(image, embeddings, points, labels, masks, multimask))

    def _run_decoder(
        self,
        image: ImageFeatures,
        embeddings: Tensor,
        points: Tensor | None,
        labels: Tensor | None,
        masks: Tensor | None,
        multimask: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The arguments of `_select_best_masks`."""
        constants = self._constants
        if points is None and masks is None:
            decode, (sparse, dense) = self._decode_tracked, constants.no_prompt
        else:
            decode = self._model.mask_decoder
            if points is None or labels is None:
                points, labels = constants.no_points, constants.no_labels
            sparse, dense = self._model.prompt_encoder(
                input_points=points, input_labels=labels, input_boxes=None, input_masks=masks
            )
        count = max(len(embeddings), len(dense))
        logits, iou_scores, tokens, object_scores = decode(
            image_embeddings=embeddings.expand(count, -1, -1, -1),
            image_positional_embeddings=constants.image_positions,
            sparse_prompt_embeddings=sparse.expand(count, -1, -1, -1),
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            high_resolution_features=image.fpn_levels[:-1],
        )
        return logits[:, 0], iou_scores[:, 0], tokens[:, 0], object_scores[:, 0, 0]

    def _select_best_masks(
        self, logits: Tensor, iou_scores: Tensor, tokens: Tensor, object_scores: Tensor
    ) -> MaskPrediction:
        """Select the best of k masks for each of n objects; an empty one where the object is absent.

        Args:
            logits: shape (n, k, h, w).
            iou_scores: shape (n, k), the expected IoU of each.
            tokens: shape (n, k, width).
            object_scores: shape (n,).
        """
        object_scores, rows = object_scores.float(), torch.arange(len(logits), device=logits.device)
        best = iou_scores.argmax(-1)
        is_present = object_scores > 0
        certainty = (object_scores.sigmoid() * 2 - 1).clamp(min=0)
        pointers = self._model.object_pointer_proj(tokens[rows, best])
        return MaskPrediction(
            torch.where(is_present[:, None, None], logits[rows, best].float(), NO_OBJECT_LOGIT),
            object_scores,
            torch.where(is_present[:, None], pointers, self._model.no_object_pointer.to(pointers.dtype)),
            certainty * iou_scores[rows, best].float(),
        )

    def _condition_on_memory(
        self, image: ImageFeatures, memories: Sequence[MemorySelection], window: MemoryWindow
    ) -> Tensor:
        """The frame's features, conditioned on the memory of n objects: shape (n, channels, h, w)."""
        constants, coarse = self._constants, image.fpn_levels[-1]
        tokens = self._memory_tokens(memories, window)
        state = (coarse + constants.frame_positions).flatten(2).transpose(1, 2)
        for layer in self._model.memory_attention.layers:
            state = attend_to_memory(layer, state, tokens, constants.rope, constants.memory_rope)
            state = state + self._feed_forward(layer, layer.layer_norm3(state))
        state = self._model.memory_attention.layer_norm(state)
        output: Tensor = state.transpose(1, 2).view(len(memories), *coarse.shape[1:])
        return output

    def _memory_tokens(self, memories: Sequence[MemorySelection], window: MemoryWindow) -> MemoryTokens:
        """What objects attend to."""
        constants, device = self._constants, self.device
        frames = torch.stack([frame for memory in memories for frame in memory.features]).to(device, torch.float32)
        rows = torch.tensor([offset - 1 for memory in memories for offset in memory.offsets], device=device)
        times = self._model.memory_temporal_positional_encoding[rows][:, :, 0]
        placed = (frames + (constants.memory_positions + times)).flatten(0, 1)
        pointers, positions = self._pointer_tokens(memories, window, device)
        frame_counts = [len(memory.features) * frames.shape[1] for memory in memories]
        splits = self._model.hidden_dim // self._model.mem_dim
        pointer_counts = [len(memory.object_pointers) * splits for memory in memories]
        values = pack_tokens(frames.flatten(0, 1), pointers, frame_counts, pointer_counts)
        keys, starts = pack_tokens(placed, pointers + positions, frame_counts, pointer_counts), None
        if self.prefers_flash:
            counts = [len(constants.rope)] * len(memories), list(map(add, frame_counts, pointer_counts))
            ends = torch.tensor([[*accumulate(each, initial=0)] for each in counts], dtype=torch.int32, device=device)
            starts = ends[0], ends[1]
        # Cast once, for all layers.
        return MemoryTokens(to_autocast(keys), to_autocast(values), frame_counts, pointer_counts, starts)

    def _pointer_tokens(
        self, memories: Sequence[MemorySelection], window: MemoryWindow, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Object pointers as tokens, and the positions of these."""
        model = self._model
        width = int(model.mem_dim)
        found = [pointer for memory in memories for pointer in memory.object_pointers]
        if not found:
            none = torch.zeros(0, width, device=device)
            return none, none
        kind = found[0].dtype  # of all of them nearly always: one kernel converts them
        pointers = torch.stack([pointer.to(kind) for pointer in found]).float()
        splits = pointers.shape[-1] // width
        pointers = pointers.view(-1, width)
        if not self._config.enable_temporal_pos_encoding_for_object_pointers:
            return pointers, torch.zeros_like(pointers)
        offsets = [offset for memory in memories for offset in memory.pointer_offsets]
        times = torch.tensor(offsets, device=device, dtype=torch.float32) / max(1, window.pointer_frames - 1)
        angles = times[:, None] / self._constants.pointer_periods
        waves = torch.cat([angles.sin(), angles.cos()], -1)
        positions = model.temporal_positional_encoding_projection_layer(waves)
        return pointers, positions.repeat_interleave(splits, 0)

    def _encode_memory(
        self, image: ImageFeatures, logits: Tensor, object_scores: Tensor, *, full_size: bool, binary: bool
    ) -> Tensor:
        """As `encode_memory`; `binary` thresholds the masks, as on conditioning frames."""
        model, config = self._model, self._config
        size = (self.image_size, self.image_size) if full_size else self.memory_mask_size
        logits = functional.interpolate(logits[:, None].float(), size, mode="bilinear", align_corners=False)
        shares = (logits > 0).float() if binary else logits.sigmoid()
        shares = shares * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
        features, _ = self._run_memory_encoder(image.fpn_levels[-1], resize_masks(shares, self.memory_mask_size))
        if model.occlusion_spatial_embedding_parameter is not None:
            is_absent = (object_scores <= 0).to(features.dtype)[:, None, None, None]
            features = features + is_absent * model.occlusion_spatial_embedding_parameter[..., None, None]
        return self._compress_memory(features).to(self.memory_dtype)

    def _compress_memory(self, features: Tensor) -> Tensor:
        """What is stored of n objects: from shape (n, memory width, h, w) to (n, positions, memory width)."""
        return features.flatten(2).transpose(1, 2)

    def _feed_forward(self, layer: Any, state: Tensor) -> Tensor:
        """The perceptron of a layer of the memory attention."""
        output: Tensor = layer.linear2(layer.activation(layer.linear1(state)))
        return output

    @cached_property
    def _constants(self) -> TrackerConstants:
        """Tensors that are the same for every frame, made on first use."""
        return TrackerConstants.from_model(self._model)
