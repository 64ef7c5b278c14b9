"""What an association keeps of one track that a phrase found, and how it is saved."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

_STATE_KEYS = {
    "first_frame": "began",
    "keep_alive": "patience",
    "unmatched_frames": "unmatched",
    "absent_frames": "absent",
    "last_occluded": "gone",
}
"""Keys of saved sessions for fields of `PhraseTrack` that have other names; the rest are equal. Never change a key."""
_FIELDS = {key: name for name, key in _STATE_KEYS.items()}


@dataclass(slots=True)
class PhraseTrack:
    """The counters of a track that a phrase found; their size does not grow with time.

    Attributes:
        phrase: index of the phrase.
        score: of its first detection.
        first_frame: the frame that it started on.
        keep_alive: see `Thresholds`.
        unmatched_frames: frames without a detection so far.
        absent_frames: number of frames in a row, up to the last, with an empty mask.
        overlaps: frames on one detection with an older track, by that track; kept during the hot start.
        last_occluded: the last frame on which it was empty or occluded by another track; None: never.
    """

    phrase: int
    score: float
    first_frame: int
    keep_alive: int
    unmatched_frames: int = 0
    absent_frames: int = 0
    overlaps: dict[str, int] = field(default_factory=dict)
    last_occluded: int | None = None

    def state(self) -> dict[str, Any]:
        """As plain values, by the names under which saved sessions hold them."""
        return {_STATE_KEYS.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_state(cls, saved: Mapping[str, Any]) -> Self:
        """From `state`."""
        return cls(**{_FIELDS.get(key, key): value for key, value in saved.items()})
