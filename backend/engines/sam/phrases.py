"""What a session searches for: kinds of objects, by words or by exemplars on single frames."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from backend.engines.sam.detections import Detections, Detector, Query
from backend.engines.sam.memory_bank import is_ahead
from backend.engines.sam.postprocess import masks_to_boxes
from backend.tracks.geometry import Box, Boxes, box_iou
from backend.tracks.prompts import Exemplar, Phrase

_SAME_IOU = 0.5
"""IoU from which two are of one object: an exemplar's box and a detection, or two detections."""


@dataclass(slots=True)
class SearchedPhrase:
    """One kind of object.

    Attributes:
        text_frames: where its words alone were prompted; they are searched for from there on.
        queries: by frame, what is searched for on that frame alone, with boxes as shares of the picture.
    """

    text: str
    text_frames: list[int] = field(default_factory=list)
    queries: dict[int, Query] = field(default_factory=dict)

    def query(self, frame: int, reverse: bool | None = None) -> Query | None:
        """What to search for on a frame; None: nothing.

        Args:
            reverse: the direction that has come to the frame; None: it is a prompted frame.
        """
        if frame in self.queries:
            return self.queries[frame]
        has_words = frame in self.text_frames if reverse is None else _is_reached(self.text_frames, frame, reverse)
        return Query(self.text) if has_words else None


class SearchedPhrases:
    """The kinds of objects of a session, by name, in the order in which they were prompted."""

    def __init__(self) -> None:
        self._phrases: dict[str, SearchedPhrase] = {}

    def __len__(self) -> int:
        return len(self._phrases)

    @property
    def names(self) -> list[str]:
        """A phrase's place in this list is its index."""
        return list(self._phrases)

    def add(self, phrase: Phrase, width: int, height: int) -> None:
        """Add a phrase of a video whose pictures have this size; its exemplars replace earlier ones on the frame."""
        known = self._phrases.setdefault(phrase.name, SearchedPhrase(phrase.text))
        if not phrase.exemplars:
            known.text = phrase.text
            known.text_frames.append(phrase.frame)
            return
        exemplars = tuple(
            Exemplar(Box(box.x0 / width, box.y0 / height, box.x1 / width, box.y1 / height), exemplar.positive)
            for exemplar in phrase.exemplars
            for box in [exemplar.box.clip(width, height)]
        )
        known.queries[phrase.frame] = Query(phrase.text, exemplars)

    def reached(self, frame: int, reverse: bool) -> set[int]:
        """The indices of those that a direction has reached at a frame, so that it may have tracks of them."""
        return {
            index
            for index, phrase in enumerate(self._phrases.values())
            if _is_reached([*phrase.text_frames, *phrase.queries], frame, reverse)
        }

    def queries(self, indices: Collection[int], frame: int, reverse: bool | None = None) -> dict[int, Query]:
        """By index, what to search for on a frame; see `SearchedPhrase.query`."""
        phrases = list(self._phrases.values())
        found = {index: phrases[index].query(frame, reverse) for index in sorted(indices)}
        return {index: query for index, query in found.items() if query}

    def copy(self) -> Self:
        """A copy that later phrases do not change."""
        return deepcopy(self)

    def state(self) -> dict[str, Any]:
        """As plain values. The keys are those of stored sessions: do not change them."""
        return {
            "phrases": {name: list(phrase.text_frames) for name, phrase in self._phrases.items()},
            "exemplars": {
                name: [phrase.text, {frame: _query_state(query) for frame, query in phrase.queries.items()}]
                for name, phrase in self._phrases.items()
            },
        }

    @classmethod
    def from_state(cls, saved: Mapping[str, Any]) -> Self:
        """From `state`; that of older versions has words alone, which are their own names."""
        phrases, exemplars = cls(), saved.get("exemplars", {})
        for name, frames in saved["phrases"].items():
            text, queries = exemplars.get(name, (name, {}))
            restored = {int(frame): _restore_query(query) for frame, query in queries.items()}
            phrases._phrases[name] = SearchedPhrase(text, list(frames), restored)
        return phrases


def detect(detector: Detector, image: Any, queries: Sequence[Query], tracks: Tensor) -> Detections:
    """What a detector finds, without what negative exemplars are around and without what is more like them.

    A model may find either, whatever it is shown. So each negative exemplar is also a query of its own, and an object
    that both find goes to the one with the higher score. The arguments are those of `Detector.detect_queries`.
    """
    unlike = [Query("", (replace(one, positive=True),)) for _, one in _exemplars(queries, positive=False)]
    return drop_unlike(detector.detect_queries(image, [*queries, *unlike], tracks), queries)


def drop_unlike(detections: Detections, queries: Sequence[Query]) -> Detections:
    """The detections of queries that are not of their negative exemplars.

    Args:
        detections: those of the queries, and those of each negative exemplar as one more query.
    """
    unlike = _exemplars(queries, positive=False)
    if not unlike or not len(detections):
        return detections
    height, width = detections.logits.shape[1:]
    boxes = masks_to_boxes(detections.logits, height, width) / (width, height, width, height)
    phrases, scores = detections.phrases.numpy(), detections.scores.numpy()
    owners = np.array([*range(len(queries)), *(index for index, _ in unlike)])[phrases]
    is_same = detections.ious.numpy()[: len(boxes), : len(boxes)] >= _SAME_IOU
    is_rival = is_same & (owners == owners[:, None]) & (phrases >= len(queries)) & (scores >= scores[:, None])
    is_example = _is_around(_exemplars(queries, positive=True), boxes, owners)
    is_out = _is_around(unlike, boxes, owners) | is_rival.any(1) & ~is_example
    return detections.keep(np.flatnonzero((phrases < len(queries)) & ~is_out).tolist())


def _exemplars(queries: Sequence[Query], positive: bool) -> list[tuple[int, Exemplar]]:
    """Those of one sign, each behind the index of its query."""
    return [(index, one) for index, query in enumerate(queries) for one in query.exemplars if one.positive == positive]


def _is_around(exemplars: Sequence[tuple[int, Exemplar]], boxes: Boxes, owners: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether an exemplar of its query is around each of n objects: shape (n,)."""
    around = np.zeros(len(boxes), bool)
    for index, one in exemplars:
        around |= (owners == index) & (box_iou(boxes, np.array(one.box)) >= _SAME_IOU)
    return around


def _is_reached(frames: Iterable[int], frame: int, reverse: bool) -> bool:
    return not all(is_ahead(prompted, frame, reverse) for prompted in frames)


def _query_state(query: Query) -> list[Any]:
    return [query.text, [[*exemplar.box, exemplar.positive] for exemplar in query.exemplars]]


def _restore_query(saved: Any) -> Query:
    text, exemplars = saved
    return Query(text, tuple(Exemplar(Box(*box), bool(positive)) for *box, positive in exemplars))
