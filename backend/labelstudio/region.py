"""A region of type `videorectangle`, as a request contains it."""

import hashlib
import secrets
import string
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from backend.errors import BadRequest
from backend.labelstudio.json_values import read_mappings, read_number
from backend.labelstudio.keyframe import Keyframe, parse_keyframes
from backend.labelstudio.notes import typed_lines
from backend.tracks.frame_range import ALL_FRAMES, MAX_FRAMES, FrameRange

TYPE = "videorectangle"
_WRITTEN = frozenset({"id", "type", "from_name", "to_name", "value", "origin", "meta", "score"})
_FRAME_TOLERANCE = 0.25
"""How far a keyframe's time may lie from its frame, in frames: times may be rounded."""
_ID_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Region:
    """A region as a request contains it; its `id` identifies the track.

    Attributes:
        linked_results: results of other per-region controls, with the same id.
        framerate: frames per second that the times of its keyframes agree on; None: they do not, or there are none.
        line: the command that a person typed into the region's text control; None: it has none.
        skipped: why some of its keyframes are left out.
        unmarked: frames of keyframes without `enabled`, which other tools leave out.
        other_fields: further fields of the result, such as a parent or a lock.
    """

    id: str
    from_name: str
    to_name: str
    labels: tuple[str, ...]
    keyframes: tuple[Keyframe, ...]
    origin: str = "manual"
    meta: Mapping[str, Any] = field(default_factory=dict)
    score: float | None = None
    frames_count: int | None = None
    duration: float | None = None
    framerate: float | None = None
    linked_results: tuple[Mapping[str, Any], ...] = ()
    line: str | None = None
    skipped: tuple[str, ...] = ()
    unmarked: frozenset[object] = frozenset()
    other_fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def track_id(self) -> int | None:
        """The number that people see; None: no earlier response has set it."""
        return read_track_id(self.meta)

    @cached_property
    def is_tracked(self) -> bool:
        """Whether an earlier response wrote some of its keyframes."""
        return any(not keyframe.is_corrected for keyframe in self.keyframes)

    @property
    def iou(self) -> float | None:
        """Minimum IoU of the boxes that the page shows with the tracked ones; None: unknown."""
        iou = read_number(self.meta.get("iou"))
        return iou if iou is not None and 0 <= iou <= 1 else None

    @property
    def is_asked(self) -> bool:
        """Whether the request asks to track it: it was changed, or drawn by hand and not tracked yet."""
        return self.origin == "prediction-changed" or (self.origin == "manual" and not self.is_tracked)

    @property
    def is_partial(self) -> bool:
        """Whether the last response did not cover all frames."""
        return "partial" in self.meta

    @property
    def frames_done(self) -> int:
        """How many frames of an unfinished track the last response covered."""
        partial = self.meta.get("partial")
        return (_whole(partial.get("done")) or 0) if isinstance(partial, Mapping) else 0

    @cached_property
    def humans(self) -> tuple[Keyframe, ...]:
        """A person's keyframes. If an unfinished track has none left, its first keyframe is used instead."""
        humans = tuple(keyframe for keyframe in self.keyframes if keyframe.is_human)
        return humans or (self.keyframes[:1] if self.is_partial else ())

    def anchors(self, *, is_commanded: bool) -> tuple[Keyframe, ...]:
        """The keyframes to track from: a person's, or if there are none and a command was typed, the first one."""
        return self.humans or (self.keyframes[:1] if is_commanded else ())

    @property
    def search_range(self) -> FrameRange:
        """The frames in which a text prompt has searched for it, as far as that is known."""
        searched = self.meta.get("searched")
        frames = [_whole(frame) for frame in searched] if isinstance(searched, list) else []
        match frames:
            case [int(first), int(last)]:
                return FrameRange(first, last)
        return ALL_FRAMES

    @cached_property
    def is_untouched(self) -> bool:
        """Whether nobody has set, changed or deleted a keyframe since the last response."""
        return not any(keyframe.is_human for keyframe in self.keyframes) and self.meta.get(
            "seal"
        ) == fingerprint_keyframes(self.keyframes)

    @property
    def is_taken_away(self) -> bool:
        """Whether `unlike` has taken it away: it is no object, and shows no box."""
        return is_taken_away(self.meta)

    @cached_property
    def deleted(self) -> frozenset[int]:
        """Frames of human keyframes that were deleted since the last response."""
        return _frames(self.meta.get("human")) - {keyframe.frame for keyframe in self.keyframes}

    @cached_property
    def corrections(self) -> frozenset[int]:
        """LS frames on which a person corrected an existing track.

        The boxes that the track was started from do not count: people draw them roughly.
        """
        humans = {keyframe.frame for keyframe in self.keyframes if keyframe.is_human}
        changed = {keyframe.frame for keyframe in self.keyframes if keyframe.is_corrected and not keyframe.is_toggled}
        return _frames(self.meta.get("corrected")) & humans | (changed if self.is_tracked else frozenset())

    def hides(self, keyframe: Keyframe) -> bool:
        """Whether a person marked the object as absent after `keyframe`, which is theirs.

        `enabled: false` alone does not mean this: Label Studio keeps it when a person drags the end of a track, and
        copies it to keyframes that they add after the end.
        """
        if keyframe.enabled or keyframe.frame in self._ends or keyframe.frame in self.unmarked:
            return False
        return keyframe.is_toggled or not keyframe.is_corrected or keyframe.frame not in self._after_hidden

    @cached_property
    def _ends(self) -> frozenset[int]:
        """Frames with an `enabled: false` that the last response did not attribute to a person."""
        return _frames(self.meta.get("ends"))

    @cached_property
    def _after_hidden(self) -> frozenset[int]:
        return frozenset(keyframe.frame for before, keyframe in pairwise(self.keyframes) if not before.enabled)


def new_region_id() -> str:
    """A random id of the form that Label Studio generates."""
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(10))


def parse_region(
    result: Mapping[str, Any], linked_results: Sequence[Mapping[str, Any]] = (), lines: Container[str] = ()
) -> Region:
    """Read one result of type `videorectangle`.

    Args:
        linked_results: the request's other results with the same id.
        lines: names of the text controls for commands; their results become `Region.line`.

    Raises:
        BadRequest: a tag name or the sequence is missing or invalid.
    """
    value, meta = result.get("value"), result.get("meta")
    names = {key: result.get(key) for key in ("from_name", "to_name")}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) and name for name in names.values()):
        raise BadRequest("a region of the request lacks its tag names or value: reload the page and try again")
    labels, others = _merge_labels(value, linked_results)
    skipped: list[str] = []
    keyframes = parse_keyframes(value.get("sequence"), skipped.append)
    texts = [linked for linked in linked_results if str(linked.get("from_name")) in lines]
    return Region(
        # The page gives a random id to a region without one, too.
        id=read_id(result) or new_region_id(),
        **{key: str(name) for key, name in names.items()},
        labels=labels,
        keyframes=keyframes,
        origin=str(result.get("origin", "manual")),
        meta=meta if isinstance(meta, Mapping) else {},
        score=read_number(result.get("score")),
        frames_count=_whole(value.get("framesCount")),
        duration=read_number(value.get("duration")),
        framerate=_framerate(value),
        linked_results=tuple(linked for linked in others if linked not in texts),
        line=next((typed_lines(read_texts(linked)) for linked in texts), None),
        skipped=tuple(skipped),
        unmarked=frozenset(item.get("frame") for item in read_mappings(value["sequence"]) if "enabled" not in item),
        other_fields={key: content for key, content in result.items() if key not in _WRITTEN},
    )


def find_linked(result: Mapping[str, Any], results: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The other results of a region: those with its id."""
    region_id = read_id(result)
    return [other for other in results if region_id and read_id(other) == region_id and other.get("type") != TYPE]


def read_id(result: Mapping[str, Any]) -> str | None:
    """A result's id; None: it has none."""
    region_id = result.get("id")
    return region_id if isinstance(region_id, str) and region_id else None


def agreed_framerate(regions: Iterable[Region]) -> float | None:
    """Frames per second that most regions agree on; None: none of them tells any."""
    rates = [region.framerate for region in regions if region.framerate]
    return Counter(rates).most_common(1)[0][0] if rates else None


def _merge_labels(
    value: Mapping[str, Any], linked_results: Sequence[Mapping[str, Any]]
) -> tuple[tuple[str, ...], list[Mapping[str, Any]]]:
    """The region's labels, and the linked results without the one that they come from.

    Label Studio also reads labels from a result of their own; it writes them into the region itself (seen in 1.23.2).
    """
    if labels := _labels(value):
        return labels, [*linked_results]
    for linked in linked_results:
        if linked.get("type") == "labels" and (labels := _labels(linked.get("value"))):
            return labels, [other for other in linked_results if other is not linked]
    return (), [*linked_results]


def _labels(value: object) -> tuple[str, ...]:
    labels = value.get("labels") if isinstance(value, Mapping) else None
    return tuple(map(str, labels)) if isinstance(labels, list) else ()


def read_texts(result: Mapping[str, Any]) -> object:
    """The text of a text control's result, as received."""
    value = result.get("value")
    return value.get("text") if isinstance(value, Mapping) else None


def is_taken_away(meta: object) -> bool:
    """Whether `meta` is of a region that `unlike` has taken away."""
    return isinstance(meta, Mapping) and "unlike" in meta


def read_track_id(meta: object) -> int | None:
    """The track id in a region's `meta`; None: no response has set it."""
    return _whole(meta.get("track_id")) if isinstance(meta, Mapping) else None


def fingerprint_keyframes(keyframes: Iterable[Keyframe]) -> str:
    """A fingerprint of all keyframes, which also changes when a person deletes one.

    The class is not part of it: Label Studio sets the class that is selected on every region of a response.
    """
    return hashlib.sha256("|".join(keyframe.fingerprint for keyframe in keyframes).encode()).hexdigest()[:8]


def _whole(value: object) -> int | None:
    number = read_number(value)
    return int(number) if number is not None and 1 <= number <= MAX_FRAMES else None


def _frames(value: object) -> frozenset[int]:
    return frozenset(frame for frame in value if isinstance(frame, int)) if isinstance(value, list) else frozenset()


def _framerate(value: Mapping[str, Any]) -> float | None:
    """The framerate that all keyframes agree on.

    Label Studio writes `time` = frame / framerate into every keyframe; other tools write (frame - 1) / framerate. If
    both fit, `framesCount` and `duration` decide.
    """
    times = [
        (frame, seconds)
        for item in read_mappings(value.get("sequence"))
        if (frame := read_number(item.get("frame"))) and (seconds := read_number(item.get("time"))) is not None
    ]
    if not times:
        return None
    last, end = max(times)
    rates = [(last - first) / end for first in (0, 1) if end > 0 and last > first]
    fitting = [
        rate
        for first, rate in enumerate(rates)
        if all(abs(seconds * rate - (frame - first)) < _FRAME_TOLERANCE for frame, seconds in times)
    ]
    count, duration = read_number(value.get("framesCount")), read_number(value.get("duration"))
    if count and duration and duration > 0:
        fitting.sort(key=lambda rate: abs(rate * duration - count) > 1)
    # 7 / 0.28 is a little less than 25.
    return round(fitting[0], 9) if fitting else None
