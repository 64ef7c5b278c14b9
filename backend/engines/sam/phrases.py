"""What a session searches for: kinds of objects, by words or by exemplars on single frames."""

from collections.abc import Collection, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Self

from backend.engines.sam.detections import Query
from backend.engines.sam.memory_bank import is_ahead
from backend.tracks.geometry import Box
from backend.tracks.prompts import Exemplar, Phrase


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


def _is_reached(frames: Iterable[int], frame: int, reverse: bool) -> bool:
    return not all(is_ahead(prompted, frame, reverse) for prompted in frames)


def _query_state(query: Query) -> list[Any]:
    return [query.text, [[*exemplar.box, exemplar.positive] for exemplar in query.exemplars]]


def _restore_query(saved: Any) -> Query:
    text, exemplars = saved
    return Query(text, tuple(Exemplar(Box(*box), bool(positive)) for *box, positive in exemplars))
