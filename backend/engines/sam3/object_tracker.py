"""The objects of a video on one frame at a time: shown by a person, found by words, found again, and remembered."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from backend.engines.sam3 import postprocess
from backend.engines.sam3.association import Association, TrackUpdatePlan
from backend.engines.sam3.detector import Detections, Detector
from backend.engines.sam3.image_encoder import ImageEncoder, ImageFeatures
from backend.engines.sam3.memory_bank import FrameMemory, is_ahead
from backend.engines.sam3.session_state import DirectionState, ObjectMasks, TrackedObject
from backend.engines.sam3.thresholds import Thresholds
from backend.engines.sam3.tracker import MaskPrediction, Tracker
from backend.errors import BadRequest, EngineError
from backend.tracks.geometry import Box
from backend.tracks.masks import Rle
from backend.tracks.prompts import Phrase, Prompt
from backend.tracks.track import ABSENT, FrameResult, Observation
from backend.video import Picture, Video

_PRESENT_LOGIT = 10.0
"""Logit of "it is there" for a mask that has a pixel, and the negative one for a mask that has none."""


@dataclass(frozen=True, slots=True)
class Sam3Model:
    """The loaded model, in its parts, and how to use it.

    Attributes:
        running: a context of the precision to compute in.
        speck: pixels of the model's masks up to which holes are filled and specks removed; 0: none are.
        masks: whether masks leave the engine.
        fingerprint: of the weights.
    """

    image_encoder: ImageEncoder
    tracker: Tracker
    detector: Detector
    thresholds: Thresholds
    inference: Callable[[], AbstractContextManager[None]]
    max_speck_area: int
    with_masks: bool
    fingerprint: str


class ObjectTracker:
    """The objects of one video, and the words that are looked for.

    Attributes:
        objects: by track id.
        phrases: in the order of their prompts, each with the frames that it was prompted on.
        reach: how far the model looks in this video.
    """

    def __init__(self, model: Sam3Model, video: Video) -> None:
        self._model = model
        self._video = video
        self.window = model.tracker.memory_window(len(video))
        self.objects: dict[str, TrackedObject] = {}
        self.phrases: dict[str, list[int]] = {}

    def encode(self, frame: int, picture: Picture) -> ImageFeatures:
        """See a frame."""
        return self._model.image_encoder.encode((self._video.key, frame), picture)

    def known_objects(self, reverse: bool) -> dict[str, TrackedObject]:
        """The objects that a way knows."""
        return {name: one for name, one in self.objects.items() if one.is_known(reverse)}

    def phrases_by_track(self, names: Iterable[str]) -> dict[str, str]:
        """The phrases of those objects that phrases have found."""
        texts, found = list(self.phrases), {name: self.objects[name].phrase for name in names}
        return {name: texts[phrase] for name, phrase in found.items() if phrase is not None}

    def association(
        self, state: Mapping[str, Any] | None = None, last_number_elsewhere: Callable[[int], int] = lambda _: 0
    ) -> Association:
        """What decides about the tracks that words find, from the start or from a state of it.

        Of a state, the tracks that are still there are known again, and what phrases they answered to.

        Args:
            elsewhere: the last number that another association has given to a track of a phrase.
        """

        def new_name(phrase: int, number: int) -> str | None:
            name = f"{list(self.phrases)[phrase]} {number}"
            return None if name in self.objects or number <= last_number_elsewhere(phrase) else name

        association = Association(self._model.thresholds, new_name, state)
        for name in association.tracks.keys() - self.objects.keys():
            association.forget(name)
        self._update_phrases(association)
        return association

    def _update_phrases(self, association: Association) -> None:
        """Objects answer to the phrases that the association has them under."""
        for name, track in association.tracks.items():
            self.objects[name].phrase = track.phrase

    # What a person shows

    def add_prompt(self, image: ImageFeatures, prompt: Prompt, positions: Mapping[bool, int]) -> None:
        """Take one object's prompt on its frame.

        Args:
            ats: how far the ways have come.

        Raises:
            BadRequest: negative points alone, of an object that is not known.
        """
        tracked_object, frame = self.objects.get(prompt.track, TrackedObject()), prompt.frame
        known = tracked_object.memory_bank.get(frame)
        if prompt.is_negative and not tracked_object.memory_bank.cond_frames:
            raise BadRequest("negative points alone say nothing of a new object: add a positive point or a box")
        if prompt.mask is not None:
            mask = postprocess.preprocess_mask(prompt.mask, self._model.tracker.image_size, image.hidden.device)
            prediction, features = self._model.tracker.use_masks(image, mask[:, 0])
        else:
            directions = [
                reverse
                for reverse, at in positions.items()
                if tracked_object.memory_bank.was_tracked(frame, at, reverse)
            ]
            memory = None
            if directions or (prompt.is_negative and known is None):
                memory = tracked_object.memory_bank.select(frame, directions[:1] == [True], self.window)
            points, labels = self._points(prompt, image.hidden.device)
            previous = known.logits if known and prompt.points else None
            prediction, features = self._model.tracker.prompt(image, points, labels, previous, memory, self.window)
        _check_finite(prediction.logits, prediction.object_scores, frame)
        tracked_object.memory_bank.clear_around(frame, self.window)
        tracked_object.memory_bank.cond_frames[frame] = FrameMemory(
            features[0], prediction.object_pointers[0], prediction.logits[0], float(prediction.object_scores[0])
        )
        for direction in tracked_object.memory_bank.directions.values():
            direction.removed_at = direction.ended_at = None
        self.objects[prompt.track] = replace(tracked_object, is_visual=True, found_reverse=None)

    def result_at(self, frame: int, names: Sequence[str]) -> FrameResult:
        """Objects as they are known on a frame, and no others."""
        object_masks = self._known_masks(frame, names)
        return self._frame_result(frame, object_masks, object_masks.names, names)

    def _points(self, prompt: Prompt, device: torch.device) -> tuple[Tensor, Tensor]:
        """A box's corners and clicks as the model takes them: shape (p, 2), in its own pixels, and labels (p,)."""
        points = [(point.x, point.y, int(point.positive)) for point in prompt.points]
        if prompt.box is not None:
            points = [(prompt.box.x0, prompt.box.y0, 2), (prompt.box.x1, prompt.box.y1, 3), *points]
        side = self._model.tracker.image_size
        scale = torch.tensor([side / self._video.width, side / self._video.height])
        places = torch.tensor([(x, y) for x, y, _ in points]) * scale
        return places.to(device), torch.tensor([label for *_, label in points], dtype=torch.int32, device=device)

    # What words find

    def add_phrases(self, image: ImageFeatures, frame: int, phrases: Sequence[Phrase]) -> list[str]:
        """Take phrases, and find what they name on their frame; the names of those tracks."""
        for phrase in phrases:
            self.phrases.setdefault(phrase.text, []).append(frame)
        texts = {phrase.text for phrase in phrases}
        wanted = {index for index, text in enumerate(self.phrases) if text in texts}
        detections = self._detect(image, frame, wanted)
        object_masks = self._known_masks(frame, self.objects)
        association = self.association()
        for name in object_masks.names:
            self._add_to_association(association, name, frame)
        other_tracks = len(self.objects) - len(object_masks.names)
        plan = association.step(
            frame, detections, object_masks.names, object_masks.logits, object_masks.object_scores, other_tracks
        )
        self._start_tracks(image, frame, None, detections, plan.new_tracks)
        return [
            name
            for name in (*object_masks.names, *(name for name, _ in plan.new_tracks))
            if self.objects[name].phrase in wanted
        ]

    def _detect(self, image: ImageFeatures, frame: int, wanted: set[int]) -> Detections:
        """What is on a frame of the phrases with these indices."""
        indices, texts = sorted(wanted), list(self.phrases)
        text = self._model.detector.encode_phrases([texts[index] for index in indices])
        detections = self._model.detector.detect(image.detector_features(), text)
        _check_finite(detections.logits, detections.scores, frame)
        return replace(detections, phrases=torch.tensor(indices, device=detections.phrases.device)[detections.phrases])

    def _known_masks(self, frame: int, names: Iterable[str]) -> ObjectMasks:
        """Those of the objects of which a mask on this frame is known."""
        known = {name: self.objects[name].memory_bank.get(frame) for name in names}
        memories = {name: memory for name, memory in known.items() if memory and memory.logits is not None}
        logits = self._stack_masks(memory.logits for memory in memories.values())
        return ObjectMasks(list(memories), logits, torch.tensor([memory.object_score for memory in memories.values()]))

    def _add_to_association(self, association: Association, name: str, frame: int) -> None:
        """Tell an association of a track that begins on this frame; those that a person showed it need not know."""
        tracked_object = self.objects[name]
        if tracked_object.phrase is not None and not tracked_object.is_visual:
            memory = tracked_object.memory_bank.get(frame)
            score = torch.tensor(memory.object_score if memory else 0.0).sigmoid()
            association.add(name, tracked_object.phrase, float(score), frame)

    def _start_tracks(
        self,
        image: ImageFeatures,
        frame: int,
        reverse: bool | None,
        detections: Detections,
        new_tracks: Sequence[tuple[str, int]],
    ) -> list[str]:
        """Begin tracks with the masks of detections; their names."""
        if not new_tracks:
            return []
        rows = [row for _, row in new_tracks]
        prediction, features = self._model.tracker.use_masks(image, (detections.logits[rows] >= 0.5).float())
        scores = detections.scores[rows].float().logit(1e-6).tolist()
        for index, (name, row) in enumerate(new_tracks):
            phrase, is_yielded = int(detections.phrases[row]), reverse is None
            tracked_object = TrackedObject(
                phrase=phrase, first_phrase=phrase, is_visual=False, found_reverse=reverse, is_yielded=is_yielded
            )
            memory = FrameMemory(
                features[index], prediction.object_pointers[index], detections.logits[row], scores[index]
            )
            # Kept for long, where a view would keep all that were born on this frame.
            tracked_object.memory_bank.cond_frames[frame] = memory.clone()
            self.objects[name] = tracked_object
        return [name for name, _ in new_tracks]

    # One frame

    def track_frame(self, direction: DirectionState, frame: int, picture: Picture, reverse: bool) -> FrameResult:
        """Find every object on the next frame of a way, and remember it."""
        image = self.encode(frame, picture)
        names = self._active_objects(direction, frame, reverse)
        to_track = [name for name in names if frame not in self.objects[name].memory_bank.cond_frames]
        prediction = self._track(image, frame, to_track, reverse)
        object_masks = self._masks_on_frame(frame, names, to_track, prediction)
        wanted = {
            index
            for index, frames in enumerate(self.phrases.values())
            if not all(is_ahead(prompted, frame, reverse) for prompted in frames)
        }
        if not wanted:
            self._store_memory(image, frame, reverse, to_track, prediction, object_masks)
            return self._frame_result(frame, object_masks, names, self.known_objects(reverse))
        detections = self._detect(image, frame, wanted)
        other_tracks = sum(one.will_join(frame, reverse) for one in self.known_objects(reverse).values())
        plan = direction.association.step(
            frame, detections, names, object_masks.logits, object_masks.object_scores, other_tracks
        )
        self._store_memory(image, frame, reverse, to_track, prediction, object_masks, plan)
        new_names = self._apply_plan(direction, image, frame, reverse, detections, plan)
        object_masks = self._planned_masks(frame, object_masks, new_names, detections, plan)
        visible = set(object_masks.names) - plan.hidden - plan.removed
        return self._frame_result(frame, object_masks, visible, self.known_objects(reverse))

    def start_objects(self, direction: DirectionState, frame: int, reverse: bool) -> None:
        """Objects that were given on a frame of a way are on it from there."""
        for name, tracked_object in self.known_objects(reverse).items():
            memory = tracked_object.memory_bank.directions[reverse]
            if frame in tracked_object.memory_bank.cond_frames and memory.joined_at is None:
                memory.joined_at = frame
                self._add_to_association(direction.association, name, frame)

    def _active_objects(self, direction: DirectionState, frame: int, reverse: bool) -> list[str]:
        """The objects that are on their way, with those that join it on this frame."""
        self.start_objects(direction, frame, reverse)
        return [name for name, one in self.known_objects(reverse).items() if one.is_tracked(reverse)]

    def _apply_plan(
        self,
        direction: DirectionState,
        image: ImageFeatures,
        frame: int,
        reverse: bool,
        detections: Detections,
        plan: TrackUpdatePlan,
    ) -> list[str]:
        """Begin and end tracks; the names of those that begin."""
        for name in plan.removed:
            self.objects[name].memory_bank.directions[reverse].removed_at = frame
        for name in plan.ended:
            self.objects[name].memory_bank.directions[reverse].ended_at = frame
        new_names = self._start_tracks(image, frame, reverse, detections, plan.new_tracks)
        for name in new_names:
            self.objects[name].memory_bank.directions[reverse].joined_at = frame
        self._update_phrases(direction.association)
        return new_names

    def _track(self, image: ImageFeatures, frame: int, names: Sequence[str], reverse: bool) -> MaskPrediction | None:
        """The masks of objects that were not given on this frame; None: there are none."""
        if not names:
            return None
        memories = [self.objects[name].memory_bank.select(frame, reverse, self.window) for name in names]
        prediction = self._model.tracker.track(image, memories, self.window)
        _check_finite(prediction.logits, prediction.object_scores, frame)
        return prediction

    def _masks_on_frame(
        self, frame: int, names: list[str], tracked: Sequence[str], prediction: MaskPrediction | None
    ) -> ObjectMasks:
        """All objects of the way on this frame, found or given."""
        rows = {name: row for row, name in enumerate(tracked)}
        logits: list[Tensor | None] = []
        object_scores: list[Tensor] = []
        for name in names:
            if prediction is not None and name in rows:
                logits.append(prediction.logits[rows[name]])
                object_scores.append(prediction.object_scores[rows[name]])
            else:
                memory = self.objects[name].memory_bank.cond_frames[frame]
                logits.append(memory.logits)
                object_scores.append(memory.object_pointer.new_tensor(memory.object_score, dtype=torch.float32))
        return ObjectMasks(
            names, self._stack_masks(logits), torch.stack(object_scores) if object_scores else torch.zeros(0)
        )

    def _store_memory(
        self,
        image: ImageFeatures,
        frame: int,
        reverse: bool,
        tracked: Sequence[str],
        prediction: MaskPrediction | None,
        object_masks: ObjectMasks,
        plan: TrackUpdatePlan | None = None,
    ) -> None:
        """Keep what was found of each object."""
        if prediction is None:
            return
        features = self._encode_memory(image, tracked, prediction, object_masks, plan)
        numbers = torch.stack([prediction.object_scores, prediction.eff_iou_scores], 1).tolist()
        for row, (name, (score, quality)) in enumerate(zip(tracked, numbers, strict=True)):
            direction = self.objects[name].memory_bank.directions[reverse]
            memory = FrameMemory(
                features[name], prediction.object_pointers[row], prediction.logits[row], score, quality
            )
            if plan is not None and name in plan.reconditioned:
                # It is kept for long, and a view would keep all that were found on this frame.
                direction.recond_frames[frame] = memory.clone()
            else:
                direction.non_cond_frames[frame] = memory

    def _encode_memory(
        self,
        image: ImageFeatures,
        tracked: Sequence[str],
        prediction: MaskPrediction,
        object_masks: ObjectMasks,
        plan: TrackUpdatePlan | None,
    ) -> dict[str, Tensor]:
        """What to remember of each object: of those that words have found, what was planned."""
        planned = [name for name in tracked if plan is not None and not self.objects[name].is_visual]
        others = [row for row, name in enumerate(tracked) if name not in planned]
        features: dict[str, Tensor] = {}
        if others:
            encoded = self._model.tracker.encode_memory(
                image, prediction.logits[others], prediction.object_scores[others], full_size=True
            )
            features.update(zip((tracked[row] for row in others), encoded, strict=True))
        if plan is not None and planned:
            logits = plan.memory_logits[[object_masks.names.index(name) for name in planned]]
            # By what is left of the mask, as the library does.
            scores = torch.where((logits > 0).flatten(1).any(1), _PRESENT_LOGIT, -_PRESENT_LOGIT)
            features.update(
                zip(
                    planned,
                    self._model.tracker.encode_memory(image, logits, scores, full_size=False),
                    strict=True,
                )
            )
        return features

    def _planned_masks(
        self,
        frame: int,
        object_masks: ObjectMasks,
        new_names: Sequence[str],
        detections: Detections,
        plan: TrackUpdatePlan,
    ) -> ObjectMasks:
        """The objects as the plan shows them, with those that were born."""
        logits = plan.logits.clone()
        for name, row in plan.reconditioned.items():
            logits[object_masks.names.index(name)] = detections.logits[row]
        new_masks = self._known_masks(frame, new_names)
        object_scores = torch.cat(
            [object_masks.object_scores, new_masks.object_scores.to(object_masks.object_scores.device)]
        )
        return ObjectMasks(
            [*object_masks.names, *new_masks.names], torch.cat([logits, new_masks.logits]), object_scores
        )

    def _stack_masks(self, logits: Iterable[Tensor | None]) -> Tensor:
        """Masks one upon the other, shape (m, h, w), without small holes and specks."""
        known_logits = [one for one in logits if one is not None]
        if not known_logits:
            return torch.zeros(0, *self._model.tracker.mask_size, device=self._model.tracker.device)
        return postprocess.clean_masks(torch.stack(known_logits).float(), self._model.max_speck_area)

    def _frame_result(
        self, frame: int, object_masks: ObjectMasks, visible: Container[str], names: Iterable[str]
    ) -> FrameResult:
        """Objects as boxes, scores and, where they are asked for, masks, in the picture's pixels.

        Args:
            shown: those of the objects seen that are not hidden.
            named: whom to tell of; who is not shown is absent.
        """
        size = self._video.height, self._video.width
        boxes = postprocess.masks_to_boxes(object_masks.logits, *size)
        scores = object_masks.object_scores.float().sigmoid().tolist()
        rles = self._encode_rles(object_masks) if self._model.with_masks else [None] * len(scores)
        observations = {
            name: Observation(Box(*box), score, mask)
            for name, box, score, mask in zip(object_masks.names, boxes.tolist(), scores, rles, strict=True)
            if name in visible and box[0] == box[0]
        }
        tracks = {name: observations.get(name, ABSENT) for name in names}
        return FrameResult(frame, tracks, self.phrases_by_track(tracks))

    def _encode_rles(self, object_masks: ObjectMasks) -> list[Rle]:
        objects = [self.objects[name] for name in object_masks.names]
        phrases = [None if one.is_visual else one.phrase for one in objects]
        picture_masks = postprocess.resolve_overlaps(
            postprocess.masks_at_size(object_masks.logits, self._video.height, self._video.width),
            object_masks.object_scores,
            phrases,
        )
        return [Rle.from_mask(mask) for mask in picture_masks.cpu().numpy()]


def _check_finite(logits: Tensor, object_scores: Tensor, frame: int) -> None:
    # The scores, too: where they are none, the masks are those of objects that are not there.
    if not (logits.isfinite().all() and object_scores.isfinite().all()):
        raise EngineError(
            f"the masks on frame {frame} are no numbers: set dtype: float32, or check that the weights are whole"
        )
