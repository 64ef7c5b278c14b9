"""The memory bank of one object: its conditioning frames, and the last frames on which it was tracked.

A tracked frame is used for `MemoryWindow.pointer_frames` frames and then dropped, so memory does not grow with the
video. The two directions share conditioning frames and have their own tracked frames.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

DETECTED_WINDOW = 16
"""Frames around a correction in which conditioning frames from detections are dropped
(`refinement_detector_cond_frame_removal_window` in facebookresearch/sam3)."""


class FrameMemory(NamedTuple):
    """One frame of one object.

    Attributes:
        features: shape (positions, memory width), from the memory encoder (`maskmem_features`); None: dropped.
        object_pointer: shape (width,).
        logits: shape (h, w), the mask at the model's resolution; None: dropped.
        object_score: logit of presence.
        eff_iou_score: expected IoU times certainty of presence, 0..1.
    """

    features: Tensor | None
    object_pointer: Tensor
    logits: Tensor | None
    object_score: float
    eff_iou_score: float = 1.0

    def clone(self) -> "FrameMemory":
        """A copy with storage of its own."""
        return FrameMemory._make(value.clone() if isinstance(value, Tensor) else value for value in self)


class MemoryWindow(NamedTuple):
    """How many frames of memory the model uses.

    Attributes:
        maskmem_frames: tracked frames whose features it uses (`num_maskmem` - 1).
        pointer_frames: frames whose object pointers it uses.
        cond_frames: conditioning frames that it uses; None: all.
        min_eff_iou: besides the last tracked frame, use only those with a higher `eff_iou_score`, so that the object is
            not lost while it is hidden; None: use all, as Transformers 5.23 does.
        restarts_at_prompts: from a conditioning frame on, do not use what was tracked before it: it may be the wrong
            object, and the prompt its correction. The published predictors mean to forget it when a person corrects a
            tracked frame (`clear_non_cond_mem_around_input`); here all prompts are known before the video is read.
    """

    maskmem_frames: int
    pointer_frames: int
    cond_frames: int | None
    min_eff_iou: float | None = None
    restarts_at_prompts: bool = False


class MemorySelection(NamedTuple):
    """The memory that the model uses to track an object on a frame.

    Attributes:
        features: of K frames, each shape (positions, memory width).
        offsets: of the same frames: 0 for a conditioning frame, else how many frames ago.
        object_pointers: of P frames, each shape (width,).
        pointer_offsets: of the same frames: how many frames ago.
    """

    features: list[Tensor]
    offsets: list[int]
    object_pointers: list[Tensor]
    pointer_offsets: list[int]


def is_ahead(frame: int, position: int, reverse: bool) -> bool:
    """Whether a frame comes after `position` in a direction."""
    return frame < position if reverse else frame > position


@dataclass(slots=True)
class DirectionMemory:
    """What one direction keeps of an object.

    Attributes:
        joined_at: the frame on which the direction reached the object; None: not yet.
        removed_at: the frame on which the hot start removed it; None: it did not.
        ended_at: the frame on which it ended after a long absence; None: it did not.
        non_cond_frames: tracked frames, newest last.
        recond_frames: tracked frames that a detection confirmed; used as conditioning frames.
    """

    joined_at: int | None = None
    removed_at: int | None = None
    ended_at: int | None = None
    non_cond_frames: dict[int, FrameMemory] = field(default_factory=dict)
    recond_frames: dict[int, FrameMemory] = field(default_factory=dict)

    def snapshot(self, position: int, reverse: bool) -> Self:
        """A copy as of the frame `position`."""
        since, removed, ended = (
            None if frame is None or is_ahead(frame, position, reverse) else frame
            for frame in (self.joined_at, self.removed_at, self.ended_at)
        )
        tracked, confirmed = (
            {frame: memory for frame, memory in memories.items() if not is_ahead(frame, position, reverse)}
            for memories in (self.non_cond_frames, self.recond_frames)
        )
        return type(self)(since, removed, ended, tracked, confirmed)

    def is_over(self, position: int, reverse: bool) -> bool:
        """Whether it is removed or ended at `position`."""
        last = self.ended_at if self.removed_at is None else self.removed_at
        return last is not None and not is_ahead(last, position, reverse)


@dataclass(slots=True)
class MemoryBank:
    """The memory of one object, by source frame; `reverse` is the direction of propagation."""

    cond_frames: dict[int, FrameMemory] = field(default_factory=dict)
    directions: dict[bool, DirectionMemory] = field(
        default_factory=lambda: {False: DirectionMemory(), True: DirectionMemory()}
    )

    def select(self, frame: int, reverse: bool, window: MemoryWindow) -> MemorySelection:
        """Select the memory for a frame as SAM 2 and SAM 3 do (arXiv:2408.00714, section 4): the nearest conditioning
        frames, then the last tracked frames, and the object pointers of those that were passed."""
        trail, back = self.directions[reverse], -1 if reverse else 1
        chosen = select_cond_frames({**self.cond_frames, **trail.recond_frames}, frame, window.cond_frames)
        tracked, past = self._tracked_frames(frame, reverse, window), self._select_non_cond(frame, reverse, window)
        seen = [(0, memory) for memory in chosen.values()]
        for age, at in reversed(past[: window.maskmem_frames]):
            memory = tracked.get(at) or (
                None if at in chosen else trail.recond_frames.get(at) or self.cond_frames.get(at)
            )
            if memory is not None:
                seen.append((age, memory))
        pointers = [(back * (frame - at), memory) for at, memory in chosen.items() if back * (frame - at) >= 0]
        # The original stops one short of the frames that it selected (`t_diff < len(valid_indices)`).
        near = past if window.min_eff_iou is None else past[:-1]
        pointers += [(age, tracked[at]) for age, at in near if at in tracked]
        ages, features = [], []
        for age, memory in seen:
            if memory.features is not None:
                ages.append(age)
                features.append(memory.features)
        return MemorySelection(
            features, ages, [memory.object_pointer for _, memory in pointers], [age for age, _ in pointers]
        )

    def _select_non_cond(self, frame: int, reverse: bool, window: MemoryWindow) -> list[tuple[int, int]]:
        """The tracked frames to use on a frame, last one first: their offsets and numbers.

        With `min_eff_iou` the offset is the rank, as in facebookresearch/sam3 (`Sam3TrackerBase.frame_filter`).
        """
        back = -1 if reverse else 1
        if window.min_eff_iou is None:
            return [(age, frame - back * age) for age in range(1, window.pointer_frames)]
        tracked = self._tracked_frames(frame, reverse, window)
        good = (at for at, memory in tracked.items() if memory.eff_iou_score > window.min_eff_iou)
        before = sorted((at for at in good if back * (frame - at) > 0), key=lambda at: back * (frame - at))
        before = before[: window.pointer_frames - 1]
        return list(enumerate(before if frame - back in before else [frame - back, *before], 1))

    def _tracked_frames(self, frame: int, reverse: bool, window: MemoryWindow) -> Mapping[int, FrameMemory]:
        """The tracked frames that may be used on a frame."""
        tracked, back = self.directions[reverse].non_cond_frames, -1 if reverse else 1
        passed = [at for at in self.cond_frames if back * (frame - at) > 0]
        if not passed or not window.restarts_at_prompts:
            return tracked
        last = min(passed) if reverse else max(passed)
        return {at: memory for at, memory in tracked.items() if back * (at - last) > 0}

    def get(self, frame: int) -> FrameMemory | None:
        """The stored memory of a frame."""
        for memories in self._frames():
            if frame in memories:
                return memories[frame]
        return None

    def was_tracked(self, frame: int, position: int, reverse: bool) -> bool:
        """Whether a direction at `position` has tracked the object on a frame."""
        since = self.directions[reverse].joined_at
        return since is not None and not is_ahead(frame, position, reverse) and not is_ahead(since, frame, reverse)

    def clear_around(self, frame: int, window: MemoryWindow) -> None:
        """Drop tracked frames near a corrected frame: they contain the error."""
        for trail in self.directions.values():
            for memories in (trail.non_cond_frames, trail.recond_frames):
                for at in [at for at in memories if abs(at - frame) <= window.maskmem_frames + 1]:
                    del memories[at]

    def clear_detected(self, frame: int, detected_at: int | None) -> None:
        """Drop the conditioning frames near a corrected frame that came from detections: they may be what was wrong.

        Args:
            frame: the corrected one, which stays.
            detected_at: the conditioning frame on which a phrase found the object; None: it did not.
        """

        def is_near(at: int) -> bool:
            return at != frame and abs(at - frame) <= DETECTED_WINDOW

        if detected_at is not None and is_near(detected_at):
            self.cond_frames.pop(detected_at, None)
        for trail in self.directions.values():
            trail.recond_frames = {at: memory for at, memory in trail.recond_frames.items() if not is_near(at)}

    def prune(self, frame: int, reverse: bool, window: MemoryWindow) -> None:
        """Drop what no later frame in this direction will use."""
        trail, back = self.directions[reverse], -1 if reverse else 1
        pasts = [self._select_non_cond(now, reverse, window) for now in (frame, frame + back)]
        whole = {at for past in pasts for _, at in past[: window.maskmem_frames]}
        pointers = {at for past in pasts for _, at in past}
        for at in list(trail.non_cond_frames):
            age = back * (frame - at)
            if age <= window.maskmem_frames or at in whole:
                continue
            if at not in pointers:
                del trail.non_cond_frames[at]
            elif trail.non_cond_frames[at].features is not None:
                trail.non_cond_frames[at] = trail.non_cond_frames[at]._replace(features=None, logits=None)
        # Frames ahead were computed but not yielded, and may be undone.
        passed = [at for at in trail.recond_frames if not is_ahead(at, frame, reverse)]
        for at in passed[: -window.cond_frames] if window.cond_frames is not None else ():
            if back * (frame - at) > window.maskmem_frames:
                del trail.recond_frames[at]

    def strip(self, positions: Mapping[bool, int], window: MemoryWindow) -> None:
        """Drop what only a prompt on a tracked frame would use, and not the frames after these positions.

        Masks of tracked frames are dropped, too. What is left is what a saved state needs.
        """
        for reverse, direction in self.directions.items():
            past = self._select_non_cond(positions[reverse] + (-1 if reverse else 1), reverse, window)
            pointers, whole = [at for _, at in past], {at for _, at in past[: window.maskmem_frames]}
            direction.non_cond_frames = {
                at: memory._replace(logits=None, features=memory.features if at in whole else None)
                for at, memory in direction.non_cond_frames.items()
                if at in pointers
            }

    def snapshot(self, positions: Mapping[bool, int]) -> Self:
        """A copy as of these frames of the two directions."""
        return type(self)(
            dict(self.cond_frames),
            {reverse: trail.snapshot(positions[reverse], reverse) for reverse, trail in self.directions.items()},
        )

    def state(self) -> dict[str, Any]:
        """As plain values and tensors. The keys are those of stored sessions: do not change them."""
        return {
            "given": _frames_state(self.cond_frames),
            "trails": {
                reverse: [
                    trail.joined_at,
                    trail.removed_at,
                    trail.ended_at,
                    _frames_state(trail.non_cond_frames),
                    _frames_state(trail.recond_frames),
                ]
                for reverse, trail in self.directions.items()
            },
        }

    @classmethod
    def from_state(cls, saved: Mapping[str, Any], device: torch.device) -> Self:
        """From `state`, onto a device."""
        return cls(
            _frames_from_state(saved["given"], device),
            {
                reverse: DirectionMemory(
                    since, removed, ended, _frames_from_state(tracked, device), _frames_from_state(confirmed, device)
                )
                for reverse, (since, removed, ended, tracked, confirmed) in saved["trails"].items()
            },
        )

    def _frames(self) -> Iterator[Mapping[int, FrameMemory]]:
        yield self.cond_frames
        for trail in self.directions.values():
            yield trail.recond_frames
            yield trail.non_cond_frames


def select_cond_frames(memories: Mapping[int, FrameMemory], frame: int, count: int | None) -> dict[int, FrameMemory]:
    """Select at most `count` (>= 2; None: all): the last before the frame, the first from it on, then the nearest."""
    if count is None or len(memories) <= count:
        return dict(memories)
    first = [
        max((at for at in memories if at < frame), default=None),
        min((at for at in memories if at >= frame), default=None),
    ]
    chosen = [at for at in first if at is not None]
    others = sorted((at for at in memories if at not in chosen), key=lambda at: abs(at - frame))
    return {at: memories[at] for at in [*chosen, *others[: count - len(chosen)]]}


def _frames_state(memories: Mapping[int, FrameMemory]) -> dict[int, tuple[Any, ...]]:
    # Cloned, because a view would be saved together with its whole storage.
    return {at: tuple(memory.clone()) for at, memory in memories.items()}


def _frames_from_state(saved: Mapping[int, Sequence[Any]], device: torch.device) -> dict[int, FrameMemory]:
    return {
        at: FrameMemory._make(value.to(device) if isinstance(value, Tensor) else value for value in memory)
        for at, memory in saved.items()
    }
