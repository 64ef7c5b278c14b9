"""The library's own way through a film, to compare with: frame by frame, all frames in memory, objects one by one."""

import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import EdgeTamVideoModel, Sam2VideoModel, Sam3TrackerVideoModel, Sam3VideoModel
from transformers.models.edgetam_video.modeling_edgetam_video import EdgeTamVideoInferenceSession
from transformers.models.sam2_video import modeling_sam2_video
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession
from transformers.models.sam3_tracker_video import modeling_sam3_tracker_video
from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import (
    Sam3TrackerVideoInferenceCache,
    Sam3TrackerVideoInferenceSession,
)
from transformers.models.sam3_video.modeling_sam3_video import Sam3VideoInferenceSession

from backend.engines.sam.preprocess import (
    HALF,
    IMAGENET,
    Normalization,
    masks_to_logits,
    preprocess_image,
    resize_masks,
    threshold_detections,
)
from backend.engines.sam.tracker import Tracker
from backend.engines.sam3.engine import Sam3Engine
from backend.engines.sam3.image_encoder import Sam3ImageEncoder
from backend.engines.sam3.tokenizer import Tokenizer
from backend.tracks.prompts import Phrase, Prompt
from tests.engines.contract import FakeVideo

CPU = torch.device("cpu")
BOX_PX = 0.5
Boxes = dict[int, Sequence[float]]
"""Of one object, by frame."""
ClickModel = Sam3TrackerVideoModel | Sam2VideoModel | EdgeTamVideoModel
"""A tracker of the library for clicks."""
_SESSIONS: dict[type, type] = {
    Sam3TrackerVideoModel: Sam3TrackerVideoInferenceSession,
    Sam2VideoModel: Sam2VideoInferenceSession,
    EdgeTamVideoModel: EdgeTamVideoInferenceSession,
}


def model_of(engine: Sam3Engine) -> Sam3VideoModel:
    """The library's model, whose weights an engine has."""
    return engine.model.image_encoder._model


def bare(engine: Sam3Engine) -> Sam3Engine:
    """An engine as the library, without what that does not have here, and the library's model with its thresholds."""
    sam3, model = engine.model, model_of(engine)
    engine._model = replace(sam3, max_speck_area=0, published=False, image_encoder=Sam3ImageEncoder(model))
    sam3.tracker.min_eff_iou, sam3.tracker.restarts_at_prompts = None, False
    model.config.det_nms_thresh = model.det_nms_thresh = 0.0
    model.fill_hole_area = 0
    model.score_threshold_detection = model.config.score_threshold_detection
    model.new_det_thresh, model.max_num_objects = sam3.thresholds.new_track_score, sam3.thresholds.max_objects
    return engine


def stacked(video: FakeVideo, side: int, normalization: Normalization = HALF) -> Tensor:
    """All pictures as the model sees them: shape (n, 3, side, side)."""
    frames = torch.empty(len(video), 3, side, side)
    for frame, picture in zip(frames, video.pictures, strict=True):
        frame[:] = preprocess_image(picture, side, CPU, normalization)[0]
    return frames


def session_of(tracker: ClickModel, video: FakeVideo, noise: float = 0.0) -> Any:
    """The library's session for clicks, on a film.

    Args:
        noise: standard deviation of what is added to the pictures as the model sees them.
    """
    frames = stacked(video, tracker.config.image_size, HALF if isinstance(tracker, Sam3TrackerVideoModel) else IMAGENET)
    if noise:
        frames += noise * torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    device = tracker.no_memory_embedding.device
    return _SESSIONS[type(tracker)](
        video=frames,
        video_height=video.height,
        video_width=video.width,
        inference_device=device,
        inference_state_device=device,
        dtype=torch.float32,
    )


def alone(model: Sam3VideoModel) -> Sam3TrackerVideoModel:
    """The library's tracker for clicks, with the model's own weights."""
    tracker = Sam3TrackerVideoModel(model.config.tracker_config).eval()
    missing, left = tracker.load_state_dict(model.tracker_model.state_dict(), strict=False)
    assert not left
    assert all(name.startswith("vision_encoder") for name in missing)
    tracker.vision_encoder.backbone = model.detector_model.vision_encoder.backbone
    tracker.vision_encoder.neck = model.tracker_neck
    return tracker.to(model.device)


def clicked(
    tracker: ClickModel,
    video: FakeVideo,
    clicks: Sequence[tuple[float, float]],
    noise: float = 0.0,
) -> Iterator[Tensor]:
    """One object for each click on frame 0, in pixels of the video; yields logits of shape (n, h, w) frame by frame.

    Args:
        noise: standard deviation of what is added to the pictures as the model sees them.
    """
    session = session_of(as_published(tracker, video), video, noise)
    scale = torch.tensor([tracker.config.image_size / video.width, tracker.config.image_size / video.height])
    for number, click in enumerate(clicks):
        point = {
            "point_coords": (torch.tensor(click) * scale)[None, None, None],
            "point_labels": torch.ones(1, 1, 1, dtype=torch.int32),
        }
        session.add_point_inputs(session.obj_id_to_idx(number), 0, point)
    session.obj_with_new_inputs = list(range(len(clicks)))
    for output in tracker.propagate_in_video_iterator(session, start_frame_idx=0):
        yield output.pred_masks[:, 0].clone()


def named(
    model: Sam3VideoModel, video: FakeVideo, ids: Tensor, attention: Tensor
) -> Iterator[Mapping[int, list[float]]]:
    """Objects of one phrase; yields their boxes (x0, y0, x1, y1, half-open, in pixels) by number, frame by frame."""
    as_published(model.tracker_model, video)
    session = Sam3VideoInferenceSession(
        video=stacked(video, model.config.image_size),
        video_height=video.height,
        video_width=video.width,
        dtype=torch.float32,
    )
    prompt = session.add_prompt("phrase")
    session.prompt_input_ids[prompt], session.prompt_attention_masks[prompt] = ids, attention
    for output in model.propagate_in_video_iterator(session):
        hidden = output.suppressed_obj_ids | session.hotstart_removed_obj_ids
        boxes = {
            number: box_of(mask, video)
            for number, mask in sorted(output.obj_id_to_mask.items())
            if number not in hidden
        }
        yield {number: box for number, box in boxes.items() if box}


def both_named(engine: Sam3Engine, folder: Path, video: FakeVideo, phrase: str) -> tuple[list[Boxes], list[Boxes]]:
    """The objects of one phrase in ours and, mended, in the library.

    Args:
        engine: a bare one.
        folder: of its tokenizer.
    """
    with engine.open(video) as session:
        session.prompt([Phrase(phrase, 0)])
        results = session.propagate(range(len(video)))
        ours = _by_object({name: [*seen.box] for name, seen in one.tracks.items() if seen.box} for one in results)
    with mended():
        theirs = _by_object(named(model_of(engine), video, *Tokenizer.from_folder(folder).encode([phrase])))
    return ours, theirs


def _by_object(results: Iterable[Mapping[Any, Sequence[float]]]) -> list[Boxes]:
    objects: dict[Any, Boxes] = {}
    for frame, boxes in enumerate(results):
        for name, box in boxes.items():
            objects.setdefault(name, {})[frame] = box
    return list(objects.values())


def are_same(ours: Sequence[Boxes], theirs: Sequence[Boxes]) -> bool:
    """Whether objects map one to one, on the same frames with the same boxes."""
    left = list(theirs)
    for boxes in ours:
        twins = [index for index, other in enumerate(left) if _is_same(boxes, other)]
        if not twins:
            return False
        del left[twins[0]]
    return not left


def _is_same(a: Boxes, b: Boxes) -> bool:
    return a.keys() == b.keys() and all(np.abs(np.subtract(a[frame], b[frame])).max() <= BOX_PX for frame in a)


class Alone:
    """One object on the library's tracker for clicks, with what `sam3.md` says of its defects put right.

    Objects never meet there, and by themselves they do not suffer from each other's prompts.

    Args:
        seen: what the vision encoder has seen of the video so far, for several objects.
    """

    def __init__(
        self,
        tracker: ClickModel,
        video: FakeVideo,
        seen: Sam3TrackerVideoInferenceCache | None = None,
    ) -> None:
        self._tracker = as_published(tracker, video)
        self._side = tracker.config.image_size
        self._scale = torch.tensor([self._side / video.width, self._side / video.height])
        self._session = session_of(tracker, video)
        self._session.obj_id_to_idx(0)
        if seen is not None:
            self._session.cache = seen

    def show(self, prompt: Prompt, reverse: bool = False) -> Tensor:
        """Prompt a frame; logits of shape (h, w). On a frame that was tracked it corrects the mask there."""
        session, frame = self._session, prompt.frame
        session.point_inputs_per_obj[0].pop(frame, None)
        if prompt.mask is not None:
            session.add_mask_inputs(0, frame, torch.tensor(prompt.mask)[None, None])
        else:
            points = [(point.x, point.y, int(point.positive)) for point in prompt.points]
            corners = [(prompt.box.x0, prompt.box.y0, 2), (prompt.box.x1, prompt.box.y1, 3)] if prompt.box else []
            table = torch.tensor([*corners, *points])
            inputs = {
                "point_coords": (table[:, :2] * self._scale)[None, None],
                "point_labels": table[None, None, :, 2].int(),
            }
            session.add_point_inputs(0, frame, inputs)
        session.obj_with_new_inputs = [0]
        outputs = session.output_dict_per_obj[0]
        known = outputs["cond_frame_outputs"].get(frame) or outputs["non_cond_frame_outputs"].get(frame)
        run = self._tracker._run_single_frame_inference
        if known is not None and prompt.points:
            run = partial(run, prev_sam_mask_logits=known["pred_masks"].clamp(-32, 32))
        with patch.object(self._tracker, "_run_single_frame_inference", run):
            logits = self._tracker(session, frame_idx=frame, reverse=reverse).pred_masks[0, 0].clone()
        tracked = outputs["non_cond_frame_outputs"]
        if frame in tracked:
            outputs["cond_frame_outputs"][frame] = tracked.pop(frame)
            session.frames_tracked_per_obj[0].pop(frame)
        for near in [at for at in tracked if abs(at - frame) <= self._tracker.num_maskmem]:
            del tracked[near]
        return logits

    def propagate(self, span: range, reverse: bool = False) -> dict[int, Tensor]:
        """Logits of shape (h, w), by frame."""
        start = span.stop - 1 if reverse else span.start
        outputs = self._tracker.propagate_in_video_iterator(self._session, start, len(span) - 1, reverse=reverse)
        return {output.frame_idx: output.pred_masks[0, 0].clone() for output in outputs}


def as_published(tracker: Any, video: FakeVideo) -> Any:
    """A tracker of the library's that takes given masks, and remembers masks, as the original does."""
    encode, use = type(tracker)._encode_new_memory, type(tracker)._use_mask_as_output
    low = tuple(tracker.prompt_encoder.mask_input_size)
    high, side = tuple(4 * edge for edge in low), 2 * (tracker.config.image_size,)

    def encoding(pred_masks_high_res: Tensor, is_mask_from_pts: bool, **kwargs: Any) -> Any:
        masks = pred_masks_high_res.float()
        if masks.shape[-2:] == low:  # of tracks of phrases
            masks = functional.interpolate(masks, high, mode="bilinear")
        shares = (masks > 0).float() if is_mask_from_pts else masks.sigmoid()
        logits = resize_masks(shares, high).logit()
        return encode(tracker, pred_masks_high_res=logits, is_mask_from_pts=False, **kwargs)

    def using(backbone_features: Tensor, high_res_features: list[Tensor], mask_inputs: Tensor) -> Any:
        output = use(tracker, backbone_features, high_res_features, mask_inputs)
        output.object_pointer = tracker._single_frame_forward(
            input_masks=tracker.mask_downsample(resize_masks(mask_inputs.float(), high)),
            image_embeddings=[*high_res_features, backbone_features],
            multimask_output=False,
        ).object_pointer
        output.pred_masks = masks_to_logits(mask_inputs[:, 0], (video.height, video.width), low)[:, None]
        output.high_res_masks = functional.interpolate(output.pred_masks, side, mode="bilinear")
        return output

    tracker._encode_new_memory, tracker._use_mask_as_output = encoding, using
    return tracker


@contextmanager
def memories_in_float32() -> Iterator[None]:
    """With memories as they were computed, where ours and the library round them to bfloat16."""
    with ExitStack() as stack:
        for kind, module in (
            (Sam3TrackerVideoModel, modeling_sam3_tracker_video),
            (Sam2VideoModel, modeling_sam2_video),
        ):
            source = textwrap.dedent(inspect.getsource(kind._encode_new_memory))
            assert "torch.bfloat16" in source
            made: dict[str, Any] = {}
            exec(source.replace("torch.bfloat16", "torch.float32"), vars(module), made)
            stack.enter_context(patch.object(kind, "_encode_new_memory", made["_encode_new_memory"]))
        stack.enter_context(patch.object(Tracker, "memory_dtype", torch.float32))
        yield


@contextmanager
def mended() -> Iterator[None]:
    """Words without two defects of the library, and beginning with masks as in the original.

    Where an object begins, it remembers the others anew, rounded to yes or no and without what it has just decided
    about them. Where one is removed, those behind it get each other's masks on that frame.
    """
    find, add, build = (
        getattr(Sam3VideoModel, name)
        for name in ("run_tracker_propagation", "_tracker_add_new_objects", "build_outputs")
    )
    ids: list[int] = []

    def finding(self: Sam3VideoModel, inference_session: Any, *args: Any, **kwargs: Any) -> Any:
        ids[:] = inference_session.obj_ids
        return find(self, inference_session, *args, **kwargs)

    def adding(
        self: Sam3VideoModel, inference_session: Any, frame_idx: int, new_obj_masks: Tensor, **kwargs: Any
    ) -> None:
        size = tuple(4 * side for side in self.tracker_model.prompt_encoder.mask_input_size)
        new_obj_masks = threshold_detections(new_obj_masks, size).float()
        kept = [
            (outputs, dict(outputs[frame_idx]))
            for both in inference_session.output_dict_per_obj.values()
            for outputs in both.values()
            if frame_idx in outputs
        ]
        add(self, inference_session, frame_idx, new_obj_masks=new_obj_masks, **kwargs)
        for outputs, output in kept:
            outputs[frame_idx] = output

    def building(self: Sam3VideoModel, inference_session: Any, *args: Any, **kwargs: Any) -> dict[int, Tensor]:
        with patch.object(inference_session, "obj_ids", list(ids)):
            masks = build(self, inference_session, *args, **kwargs)
        return {number: mask for number, mask in masks.items() if number in inference_session.obj_ids}

    with patch.multiple(
        Sam3VideoModel, run_tracker_propagation=finding, _tracker_add_new_objects=adding, build_outputs=building
    ):
        yield


def box_of(logits: Tensor, video: Any) -> list[float] | None:
    """The box around one mask of shape (1, h, w), as the library's processors make it of masks at full size."""
    full = functional.interpolate(logits[None].float(), (video.height, video.width), mode="bilinear")[0, 0] > 0
    rows, columns = full.any(1).nonzero(), full.any(0).nonzero()
    if not len(rows):
        return None
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]
