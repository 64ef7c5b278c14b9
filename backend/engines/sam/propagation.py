"""Sessions on their way, one frame at a time: what they ask of the tracker on one frame is answered in one batch.

A session's steps are a generator that yields calls of the tracker and is sent their answers, and yields a result when
the frame is done. Alone, each call is a batch of its own; of several sessions, calls of one kind on one image are
merged. Sums in larger batches may end in other last digits, so results are equal to the byte for the same sessions
together, and else within a pixel.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.engines.sam import mask_boxes, postprocess
from backend.engines.sam.image_encoder import ImageFeatures
from backend.engines.sam.memory_bank import MemorySelection, MemoryWindow
from backend.engines.sam.model import SamModel
from backend.engines.sam.tracker import MaskPrediction, Tracker
from backend.tracks.track import FrameResult


class TrackerCall(Protocol):
    """What a session asks of the tracker."""

    image: ImageFeatures

    def run(self, tracker: Tracker, others: Sequence[Any]) -> list[Any]:
        """Answer this call and others of its kind on the same image, in this order."""
        ...


@dataclass(slots=True)
class PredictMasks:
    """Predict the masks of objects from their memories; the answer is a `MaskPrediction`."""

    image: ImageFeatures
    memories: Sequence[MemorySelection]
    window: MemoryWindow

    def run(self, tracker: Tracker, others: Sequence[Self]) -> list[MaskPrediction]:
        """See `TrackerCall`."""
        calls = [self, *others]
        memories = [memory for call in calls for memory in call.memories]
        prediction = tracker.track(self.image, memories, self.window)
        parts = [values.split_with_sizes([len(call.memories) for call in calls]) for values in prediction]
        return [MaskPrediction(*values) for values in zip(*parts, strict=True)]


@dataclass(slots=True)
class EncodeMasks:
    """Encode the memory of predicted masks; the answer has shape (n, positions, memory width)."""

    image: ImageFeatures
    prediction: MaskPrediction

    def run(self, tracker: Tracker, others: Sequence[Self]) -> list[Tensor]:
        """See `TrackerCall`."""
        predictions = [call.prediction for call in (self, *others)]
        logits = torch.cat([prediction.logits for prediction in predictions]) if others else predictions[0].logits
        scores = torch.cat([prediction.object_scores for prediction in predictions])
        features = tracker.encode_memory(self.image, logits, scores, full_size=True)
        return list(features.split_with_sizes([len(prediction.logits) for prediction in predictions]))


@dataclass(slots=True)
class FetchMasks:
    """Read masks, shapes (n, h, w), and numbers, shape (m, k), from the device; see `postprocess.fetch`."""

    image: ImageFeatures
    logits: Sequence[Tensor]
    numbers: Tensor

    def run(self, tracker: Tracker, others: Sequence[Self]) -> list[tuple[Tensor, Tensor]]:
        """See `TrackerCall`."""
        calls = [self, *others]
        logits, numbers = postprocess.fetch(
            [part for call in calls for part in call.logits], torch.cat([call.numbers for call in calls])
        )
        counts = [sum(map(len, call.logits)) for call in calls]
        number_parts = numbers.split_with_sizes([len(call.numbers) for call in calls])
        return list(zip(logits.split_with_sizes(counts), number_parts, strict=True))


@dataclass(slots=True)
class FindBoxes:
    """Find the boxes of masks; see `mask_boxes.masks_to_boxes`."""

    image: ImageFeatures
    logits: Tensor
    height: int
    width: int

    def run(self, tracker: Tracker, others: Sequence[Self]) -> list[NDArray[np.float32]]:
        """See `TrackerCall`."""
        logits = [call.logits for call in (self, *others)]
        boxes = mask_boxes.masks_to_boxes(torch.cat(logits) if others else self.logits, self.height, self.width)
        return np.split(boxes, np.cumsum([len(part) for part in logits])[:-1])


Steps = Generator[TrackerCall | FrameResult, Any]


class SamPropagation:
    """A session on its way through a span; see `backend.engines.base.Propagation`."""

    def __init__(self, model: SamModel, steps: Steps) -> None:
        self._model, self._steps = model, steps

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FrameResult:
        (result,) = advance_together([self])
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        """See the contract."""
        self._steps.close()

    def resume(self, answer: Any) -> TrackerCall | FrameResult | Exception:
        """What the session does next, given the answer of its last call (an error: it is raised there)."""
        try:
            with self._model.inference():
                return self._steps.throw(answer) if isinstance(answer, Exception) else self._steps.send(answer)
        except Exception as error:
            return error

    def answer(self, calls: Sequence[TrackerCall]) -> list[Any]:
        """The answers of calls that can be merged; where they fail together, each is tried alone."""
        try:
            with self._model.inference():
                return calls[0].run(self._model.tracker, calls[1:])
        except Exception as error:
            if len(calls) == 1:
                return [error]
        return [answer for call in calls for answer in self.answer([call])]


def advance_together(propagations: Sequence[SamPropagation]) -> list[FrameResult | Exception]:
    """The next result of each of these propagations of one model, or its error."""
    states = {index: propagation.resume(None) for index, propagation in enumerate(propagations)}
    while groups := _group_calls(states):
        for indices, calls in groups:
            answers = propagations[indices[0]].answer(calls)
            for index, answer in zip(indices, answers, strict=True):
                states[index] = propagations[index].resume(answer)
    return [state for _, state in sorted(states.items()) if isinstance(state, FrameResult | Exception)]


def _group_calls(
    states: dict[int, TrackerCall | FrameResult | Exception],
) -> list[tuple[list[int], list[TrackerCall]]]:
    """Calls of one kind on one image, and whose they are."""
    groups: dict[tuple[type, int], tuple[list[int], list[TrackerCall]]] = {}
    for index, state in states.items():
        if not isinstance(state, FrameResult | Exception):
            indices, calls = groups.setdefault((type(state), id(state.image)), ([], []))
            indices.append(index)
            calls.append(state)
    return list(groups.values())
