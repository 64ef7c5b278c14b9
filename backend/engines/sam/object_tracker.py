"""Prompts, detects and tracks the objects of one video, one frame at a time."""

from collections.abc import Callable, Container, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.engines.sam import mask_boxes, postprocess
from backend.engines.sam.association import Association, TrackUpdatePlan
from backend.engines.sam.detections import Detections, Query
from backend.engines.sam.image_encoder import ImageFeatures
from backend.engines.sam.memory_bank import FrameMemory
from backend.engines.sam.memory_encoding import encode_planned
from backend.engines.sam.model import SamModel
from backend.engines.sam.phrases import SearchedPhrases
from backend.engines.sam.preprocess import masks_to_logits, preprocess_points, threshold_detections
from backend.engines.sam.propagation import EncodeMasks, FetchMasks, FindBoxes, PredictMasks, TrackerCall
from backend.engines.sam.session_state import DirectionState, ObjectMasks, TrackedObject
from backend.engines.sam.tracker import MaskPrediction
from backend.engines.sam.unlike import detect
from backend.errors import BadRequest
from backend.tracks.geometry import Box
from backend.tracks.masks import Rle
from backend.tracks.prompts import Phrase, Prompt
from backend.tracks.track import ABSENT, FrameResult, Observation
from backend.video import ReadPicture, Video


class ObjectTracker:
    """The objects of one video and the phrases to search for.

    Attributes:
        objects: by track id.
        phrases: the kinds of objects to search for.
        window: how much memory the model uses in this video.
        with_masks: whether results contain masks.
    """

    def __init__(self, model: SamModel, video: Video) -> None:
        self._model = model
        self._video = video
        self._picture_size = video.height, video.width
        self.window = model.tracker.memory_window(len(video))
        self.objects: dict[str, TrackedObject] = {}
        self.phrases = SearchedPhrases()
        self.with_masks = model.with_masks

    def encode(self, frame: int, read: ReadPicture) -> ImageFeatures:
        """Run the image encoder on a frame, or take its output from the cache."""
        return self._model.image_encoder.encode(self._video.key, frame, read)

    def known_objects(self, reverse: bool) -> dict[str, TrackedObject]:
        """The objects that exist in a direction."""
        return {name: obj for name, obj in self.objects.items() if obj.is_known(reverse)}

    def phrases_by_track(self, names: Iterable[str]) -> dict[str, str]:
        """The phrases of those objects that a phrase found, by track id."""
        phrases, found = self.phrases.names, {name: self.objects[name].phrase for name in names}
        return {name: phrases[phrase] for name, phrase in found.items() if phrase is not None}

    def association(
        self, state: Mapping[str, Any] | None = None, last_number_elsewhere: Callable[[int], int] = lambda _: 0
    ) -> Association:
        """Make an association, new or from a saved state.

        From a state it keeps the tracks that still exist, with their phrases.

        Args:
            state: of `Association.state`.
            last_number_elsewhere: the last number that the other direction gave to a track of a phrase.
        """

        def new_name(phrase: int, number: int) -> str | None:
            name = f"{self.phrases.names[phrase]} {number}"
            return None if name in self.objects or number <= last_number_elsewhere(phrase) else name

        association = Association(self._model.thresholds, new_name, state)
        for name in association.tracks.keys() - self.objects.keys():
            association.forget(name)
        self._update_phrases(association)
        return association

    def _update_phrases(self, association: Association) -> None:
        """Copy the phrases of an association's tracks to the objects."""
        for name, track in association.tracks.items():
            self.objects[name].phrase = track.phrase

    # Prompts

    def add_prompt(self, image: ImageFeatures, prompt: Prompt, positions: Mapping[bool, int]) -> None:
        """Apply the prompt of one object on its frame.

        Args:
            positions: the last frame of each direction.

        Raises:
            BadRequest: a new object has negative points only.
        """
        obj, frame, tracker = self.objects.get(prompt.track, TrackedObject()), prompt.frame, self._model.tracker
        if prompt.is_negative and not obj.memory_bank.cond_frames:
            raise BadRequest("a new object needs more than negative points: add a positive point or a box")
        directions = [reverse for reverse, at in positions.items() if obj.memory_bank.was_tracked(frame, at, reverse)]
        if prompt.mask is not None:
            prediction, features = tracker.use_masks(image, torch.tensor(prompt.mask, device=tracker.device)[None])
        else:
            previous = self._previous_logits(obj, frame)
            # The original keeps the logits of all frames, and corrects a tracked one without memory.
            memory = None
            if (directions or prompt.is_negative) if previous is None else (directions and not self._model.published):
                memory = obj.memory_bank.select(frame, directions[:1] == [True], self.window)
            points, labels = preprocess_points(prompt, self._picture_size[::-1], tracker.image_size, tracker.device)
            fed_back = previous if prompt.points else None
            prediction, features = tracker.prompt(image, points, labels, fed_back, memory, self.window)
        postprocess.check_finite(prediction.logits, prediction.object_scores, frame)
        obj.memory_bank.clear_around(frame, self.window)
        if self._model.published and directions:
            obj.memory_bank.clear_detected(frame, obj.detected_at)
        obj.memory_bank.cond_frames[frame] = FrameMemory(
            features[0], prediction.object_pointers[0], prediction.logits[0], float(prediction.object_scores[0])
        )
        for direction in obj.memory_bank.directions.values():
            direction.removed_at = direction.ended_at = None
        self.objects[prompt.track] = replace(obj, is_visual=True, found_reverse=None)

    def _previous_logits(self, obj: TrackedObject, frame: int) -> Tensor | None:
        """An object's mask on a frame, as logits that points may correct; None: there is none."""
        known = obj.memory_bank.get(frame)
        logits = known.logits if known else None
        if logits is None or frame != obj.detected_at or not self._model.published:
            return logits
        mask = threshold_detections(logits[None], self._model.tracker.memory_mask_size)
        return masks_to_logits(mask, self._picture_size, self._model.tracker.mask_size)[0]

    def result_at(self, frame: int, names: Sequence[str]) -> FrameResult:
        """The stored masks of objects on a frame."""
        masks = self._known_masks(frame, names)
        boxes = mask_boxes.masks_to_boxes(masks.logits, *self._picture_size)
        return self._frame_result(frame, masks, boxes, masks.names, names)

    # Phrases

    def add_phrases(self, image: ImageFeatures, frame: int, phrases: Sequence[Phrase]) -> list[str]:
        """Add phrases and detect their objects on a frame; returns the ids of these tracks."""
        for phrase in phrases:
            self.phrases.add(phrase, self._video.width, self._video.height)
        prompted = {phrase.name for phrase in phrases}
        wanted = {index for index, name in enumerate(self.phrases.names) if name in prompted}
        masks = self._known_masks(frame, self.objects)
        detections = self._detect(image, frame, self.phrases.queries(wanted, frame), masks.logits)
        association = self.association()
        for name in masks.names:
            self._add_to_association(association, name, frame)
        other_tracks = len(self.objects) - len(masks.names)
        plan = association.step(frame, detections, masks.names, masks.logits, masks.object_scores, other_tracks)
        self._start_tracks(image, frame, None, detections, plan.new_tracks)
        there = [*masks.names, *(name for name, _ in plan.new_tracks)]
        return [name for name in there if self.objects[name].phrase in wanted]

    def _detect(self, image: ImageFeatures, frame: int, queries: Mapping[int, Query], tracks: Tensor) -> Detections:
        """Detect the objects of these queries, by index of their phrase, beside tracks' masks."""
        if not queries:
            return Detections.none(tracks)
        detections = detect(self._model.require_detector(), image, list(queries.values()), tracks)
        if not detections.is_finite:
            raise postprocess.not_finite(frame)
        return replace(detections, phrases=torch.tensor(list(queries))[detections.phrases])

    def _known_masks(self, frame: int, names: Iterable[str]) -> ObjectMasks:
        """The objects for which a mask on this frame is stored."""
        known = {name: self.objects[name].memory_bank.get(frame) for name in names}
        memories = {name: memory for name, memory in known.items() if memory and memory.logits is not None}
        logits = self._stack_masks(memory.logits for memory in memories.values())
        return ObjectMasks(list(memories), logits, torch.tensor([memory.object_score for memory in memories.values()]))

    def _add_to_association(self, association: Association, name: str, frame: int) -> None:
        """Add a track that begins on this frame to an association; prompted tracks are not part of one."""
        obj = self.objects[name]
        if obj.phrase is not None and not obj.is_visual:
            memory = obj.memory_bank.get(frame)
            score = torch.tensor(memory.object_score if memory else 0.0).sigmoid()
            association.add(name, obj.phrase, float(score), frame)

    def _start_tracks(
        self,
        image: ImageFeatures,
        frame: int,
        reverse: bool | None,
        detections: Detections,
        new_tracks: Sequence[tuple[str, int]],
    ) -> list[str]:
        """Start tracks with the masks of detections; returns their ids."""
        if not new_tracks:
            return []
        rows = [row for _, row in new_tracks]
        masks = threshold_detections(detections.logits[rows], self._model.tracker.memory_mask_size)
        prediction, features = self._model.tracker.use_masks(image, masks, self._picture_size)
        scores = detections.scores[rows].float().logit(1e-6).tolist()
        for index, (name, row) in enumerate(new_tracks):
            phrase = int(detections.phrases[row])
            obj = TrackedObject(
                phrase=phrase,
                first_phrase=phrase,
                is_visual=False,
                found_reverse=reverse,
                is_yielded=reverse is None,
                detected_at=frame,
            )
            memory = FrameMemory(
                features[index], prediction.object_pointers[index], detections.logits[row], scores[index]
            )
            obj.memory_bank.cond_frames[frame] = memory.clone()  # a view would keep all new tracks' memory alive
            self.objects[name] = obj
        return [name for name, _ in new_tracks]

    # Tracking

    def track_frame(
        self, direction: DirectionState, frame: int, read: ReadPicture, reverse: bool
    ) -> Generator[TrackerCall, Any, FrameResult]:
        """Track, detect and store all objects on the next frame of a direction; yields what it asks of the tracker."""
        image = self.encode(frame, read)
        names = self._active_objects(direction, frame, reverse)
        to_track = [name for name in names if frame not in self.objects[name].memory_bank.cond_frames]
        prediction: MaskPrediction | None = None
        if to_track:
            memories = [self.objects[name].memory_bank.select(frame, reverse, self.window) for name in to_track]
            prediction = yield PredictMasks(image, memories, self.window)
        reached = self.phrases.reached(frame, reverse)
        # Before the masks are fetched, so that the device has work meanwhile.
        features: dict[str, Tensor] = {}
        if prediction is not None and not reached:
            features = dict(zip(to_track, (yield EncodeMasks(image, prediction)), strict=True))
        masks, numbers = yield from self._fetch_masks(image, frame, names, to_track, prediction)
        if not reached:
            self._store_memory(frame, reverse, to_track, prediction, features, numbers)
            boxes = yield FindBoxes(image, masks.logits, *self._picture_size)
            return self._frame_result(frame, masks, boxes, names, self.known_objects(reverse))
        queries = self.phrases.queries(reached, frame, reverse)
        logits = masks.logits.to(self._model.tracker.device)
        detections = self._detect(image, frame, queries, logits)
        other_tracks = sum(obj.will_join(frame, reverse) for obj in self.known_objects(reverse).values())
        plan = direction.association.step(
            frame, detections, names, logits, masks.object_scores, other_tracks, reached - queries.keys()
        )
        shown = {name for name in to_track if self.objects[name].is_visual}
        features = encode_planned(self._model.tracker, image, to_track, shown, prediction, names, plan)
        self._store_memory(frame, reverse, to_track, prediction, features, numbers, plan.reconditioned)
        new_names = self._apply_plan(direction, image, frame, reverse, detections, plan)
        masks = self._planned_masks(frame, masks, new_names, detections, plan)
        visible = set(masks.names) - plan.hidden - plan.removed
        boxes = yield FindBoxes(image, masks.logits, *self._picture_size)
        return self._frame_result(frame, masks, boxes, visible, self.known_objects(reverse))

    def start_objects(self, direction: DirectionState, frame: int, reverse: bool) -> None:
        """Start to track the objects that have a conditioning frame here."""
        for name, obj in self.known_objects(reverse).items():
            memory = obj.memory_bank.directions[reverse]
            if frame in obj.memory_bank.cond_frames and memory.joined_at is None:
                memory.joined_at = frame
                self._add_to_association(direction.association, name, frame)

    def _active_objects(self, direction: DirectionState, frame: int, reverse: bool) -> list[str]:
        """The objects that are tracked in a direction, including those that start on this frame."""
        self.start_objects(direction, frame, reverse)
        return [name for name, obj in self.known_objects(reverse).items() if obj.is_tracked(reverse)]

    def _apply_plan(
        self,
        direction: DirectionState,
        image: ImageFeatures,
        frame: int,
        reverse: bool,
        detections: Detections,
        plan: TrackUpdatePlan,
    ) -> list[str]:
        """Start and end tracks; returns the ids of new ones."""
        for name in plan.removed:
            self.objects[name].memory_bank.directions[reverse].removed_at = frame
        for name in plan.ended:
            self.objects[name].memory_bank.directions[reverse].ended_at = frame
        new_names = self._start_tracks(image, frame, reverse, detections, plan.new_tracks)
        for name in new_names:
            self.objects[name].memory_bank.directions[reverse].joined_at = frame
        self._update_phrases(direction.association)
        return new_names

    def _fetch_masks(
        self,
        image: ImageFeatures,
        frame: int,
        names: list[str],
        tracked: Sequence[str],
        prediction: MaskPrediction | None,
    ) -> Generator[TrackerCall, Any, tuple[ObjectMasks, list[tuple[float, float]]]]:
        """All objects on this frame, predicted or stored as a conditioning frame, read from the device at once.

        Returns:
            The objects, on the host, and the object score and expected IoU of each tracked one.
        """
        stored = {name: memory for name in names if (memory := self.objects[name].memory_bank.cond_frames.get(frame))}
        parts = [memory.logits[None] for memory in stored.values() if memory.logits is not None]
        scores = torch.zeros(0, 2, device=self._model.tracker.device)
        if prediction is not None:
            scores = torch.stack([prediction.object_scores, prediction.eff_iou_scores], 1)
            parts.insert(0, prediction.logits)
        logits, numbers = yield FetchMasks(image, parts, scores)
        postprocess.check_finite(logits, numbers, frame)
        values = dict(zip(tracked, numbers[:, 0].tolist(), strict=True))
        values |= {name: memory.object_score for name, memory in stored.items()}
        order = [*tracked, *stored]
        if order != names:
            logits = logits[[order.index(name) for name in names]]
        if not len(logits):
            logits = torch.zeros(0, *self._model.tracker.mask_size)
        cleaned = postprocess.clean_masks(logits, self._model.max_speck_area)
        return ObjectMasks(names, cleaned, torch.tensor([values[name] for name in names])), numbers.tolist()

    def _store_memory(
        self,
        frame: int,
        reverse: bool,
        tracked: Sequence[str],
        prediction: MaskPrediction | None,
        features: Mapping[str, Tensor],
        numbers: Sequence[tuple[float, float]],
        reconditioned: Container[str] = (),
    ) -> None:
        """Store the memory of each tracked object."""
        if prediction is None:
            return
        for row, (name, (score, quality)) in enumerate(zip(tracked, numbers, strict=True)):
            direction = self.objects[name].memory_bank.directions[reverse]
            memory = FrameMemory(
                features[name], prediction.object_pointers[row], prediction.logits[row], score, quality
            )
            if name in reconditioned:
                # Cloned: it is kept for long, and a view would keep the memory of all objects alive.
                direction.recond_frames[frame] = memory.clone()
            else:
                direction.non_cond_frames[frame] = memory

    def _planned_masks(
        self,
        frame: int,
        masks: ObjectMasks,
        new_names: Sequence[str],
        detections: Detections,
        plan: TrackUpdatePlan,
    ) -> ObjectMasks:
        """The objects with the plan's masks, and the new ones."""
        logits = plan.logits.clone()
        for name, row in plan.reconditioned.items():
            logits[masks.names.index(name)] = detections.logits[row]
        new_masks = self._known_masks(frame, new_names)
        logits, _ = postprocess.fetch([logits, new_masks.logits], torch.zeros(0))
        object_scores = torch.cat([masks.object_scores, new_masks.object_scores])
        return ObjectMasks([*masks.names, *new_masks.names], logits, object_scores)

    def _stack_masks(self, logits: Iterable[Tensor | None]) -> Tensor:
        """Stack masks to shape (m, h, w), without small holes and specks."""
        known_logits = [mask for mask in logits if mask is not None]
        if not known_logits:
            return torch.zeros(0, *self._model.tracker.mask_size, device=self._model.tracker.device)
        return postprocess.clean_masks(torch.stack(known_logits).float(), self._model.max_speck_area)

    def _frame_result(
        self,
        frame: int,
        masks: ObjectMasks,
        boxes: NDArray[np.float32],
        visible: Container[str],
        names: Iterable[str],
    ) -> FrameResult:
        """Convert masks to scores and, if enabled, RLE masks in pixels of the video, like the boxes.

        Args:
            visible: objects that are not hidden.
            names: objects to include; those that are not visible are absent.
        """
        scores = masks.object_scores.float().sigmoid().tolist()
        rles = self._encode_rles(masks) if self.with_masks else [None] * len(scores)
        observations = {
            name: Observation(Box(*box), score, mask)
            for name, box, score, mask in zip(masks.names, boxes.tolist(), scores, rles, strict=True)
            if name in visible and box[0] == box[0]
        }
        tracks = {name: observations.get(name, ABSENT) for name in names}
        return FrameResult(frame, tracks, self.phrases_by_track(tracks))

    def _encode_rles(self, masks: ObjectMasks) -> list[Rle]:
        phrases = [None if self.objects[name].is_visual else self.objects[name].phrase for name in masks.names]
        whole = mask_boxes.masks_at_size(masks.logits.to(self._model.tracker.device), *self._picture_size)
        whole = postprocess.resolve_overlaps(whole, masks.object_scores, phrases)
        return [Rle.from_mask(mask) for mask in whole.cpu().numpy()]
