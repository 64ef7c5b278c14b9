"""A region of type `videorectangle`, as a request contains it."""

import hashlib
import secrets
import string
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from backend.errors import BadRequest
from backend.labelstudio.box_scale import UNKNOWN, BoxScale, parse_scales
from backend.labelstudio.json_values import read_number
from backend.labelstudio.keyframe import Keyframe, parse_keyframes
from backend.labelstudio.notes import typed_lines

TYPE = "videorectangle"
_WRITTEN = frozenset({"id", "type", "from_name", "to_name", "value", "origin", "meta", "score"})
_ID_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Region:
    """A region as the request shows it; `id` is the track's identity.

    Attributes:
        beside: what other per-region controls hold for it, as results of their own.
        line: what the person wrote last into its line for commands.
        rest: whatever else Label Studio keeps with the region, a parent or a lock.
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
    other_fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def track_id(self) -> int | None:
        """The number that people see, where an earlier answer gave one."""
        return read_track_id(self.meta)

    @cached_property
    def is_tracked(self) -> bool:
        """An earlier answer wrote some of its keyframes."""
        return any(not item.is_corrected for item in self.keyframes)

    @property
    def iou(self) -> float | None:
        """The least IoU of what the page shows with what was tracked, as an earlier answer knew it."""
        known = read_number(self.meta.get("iou"))
        return known if known is not None and 0 <= known <= 1 else None

    @property
    def is_asked(self) -> bool:
        """The person asked for it: marked by Label Studio as changed, or drawn by hand and not tracked yet."""
        return self.origin == "prediction-changed" or (self.origin == "manual" and not self.is_tracked)

    @property
    def is_partial(self) -> bool:
        """The last answer to it lacked frames."""
        return "partial" in self.meta

    @cached_property
    def humans(self) -> tuple[Keyframe, ...]:
        """A person's keyframes. Where every one was deleted from an unfinished track, its first one stands in."""
        humans = tuple(item for item in self.keyframes if item.is_human)
        return humans or (self.keyframes[:1] if self.is_partial else ())

    def anchors(self, *, is_commanded: bool) -> tuple[Keyframe, ...]:
        """What a track is made between: a person's keyframes, or its own first one where a command needs one."""
        return self.humans or (self.keyframes[:1] if is_commanded else ())

    @cached_property
    def is_untouched(self) -> bool:
        """Its keyframes are as we answered them: nobody set one or deleted one."""
        return not any(item.is_human for item in self.keyframes) and self.meta.get("seal") == fingerprint_keyframes(
            self.keyframes
        )

    @cached_property
    def deleted(self) -> frozenset[int]:
        """Frames on which the last answer knew a human keyframe that is gone."""
        return _frames(self.meta.get("human")) - {item.frame for item in self.keyframes}

    @cached_property
    def corrections(self) -> Mapping[int, BoxScale]:
        """LS frames on which a person set the box of a track that was there, and what is known of its size from them.

        What the track was first made of is none: people draw that roughly.
        """
        humans = {item.frame for item in self.keyframes if item.is_human}
        before = parse_scales(self.meta.get("corrected"))
        changed = {item.frame for item in self.keyframes if item.is_corrected and not item.is_toggled}
        found = {frame: one for frame, one in before.items() if frame in humans}
        # As it was changed since, nothing is known of it yet.
        return found | {frame: UNKNOWN for frame in changed if self.is_tracked or frame in found}

    def hides(self, item: Keyframe) -> bool:
        """A person said that the object is gone after `item`, one of their keyframes.

        `enabled: false` alone does not say so: Label Studio keeps it when the end of a track is dragged, and hands it
        on to keyframes that are added after the end.
        """
        if item.enabled or item.frame in self._ends:
            return False
        return item.is_toggled or not item.is_corrected or item.frame not in self._after_hidden

    @cached_property
    def _ends(self) -> frozenset[int]:
        """Frames whose `enabled: false` the last answer did not take for the person's."""
        return _frames(self.meta.get("ends"))

    @cached_property
    def _after_hidden(self) -> frozenset[int]:
        return frozenset(item.frame for previous, item in pairwise(self.keyframes) if not previous.enabled)


def new_region_id() -> str:
    """As Label Studio makes them."""
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(10))


def parse_region(
    result: Mapping[str, Any], beside: Sequence[Mapping[str, Any]] = (), lines: Container[str] = ()
) -> Region:
    """Read one result of type `videorectangle`.

    Args:
        beside: the request's other results with the same id.
        lines: names of the controls in which regions take commands: what they hold is no person's note.

    Raises:
        BadRequest: it has no id, no tag names or no sequence that can be read.
    """
    value, meta = result.get("value"), result.get("meta")
    names = {key: result.get(key) for key in ("id", "from_name", "to_name")}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) and name for name in names.values()):
        raise BadRequest("a region of the request lacks its id, tag names or value: reload the page and try again")
    labels = value.get("labels")
    return Region(
        **{key: str(name) for key, name in names.items()},
        labels=tuple(map(str, labels)) if isinstance(labels, list) else (),
        keyframes=parse_keyframes(value.get("sequence")),
        origin=str(result.get("origin", "manual")),
        meta=meta if isinstance(meta, Mapping) else {},
        score=read_number(result.get("score")),
        frames_count=_whole(value.get("framesCount")),
        duration=read_number(value.get("duration")),
        framerate=_framerate(value["sequence"]),
        linked_results=tuple(one for one in beside if one.get("from_name") not in lines),
        line=next((typed_lines(read_texts(one)) for one in beside if one.get("from_name") in lines), None),
        other_fields={key: kept for key, kept in result.items() if key not in _WRITTEN},
    )


def read_texts(result: Mapping[str, Any]) -> object:
    """What a text control holds, as the request has it."""
    value = result.get("value")
    return value.get("text") if isinstance(value, Mapping) else None


def read_track_id(meta: object) -> int | None:
    """The number that an earlier answer gave to the track with this `meta`."""
    return _whole(meta.get("track_id")) if isinstance(meta, Mapping) else None


def fingerprint_keyframes(items: Iterable[Keyframe]) -> str:
    """A fingerprint of all keyframes: that a person deleted one shows in it.

    Not of the class: Label Studio gives an active one to all that is answered, and it stays as the page has it.
    """
    return hashlib.sha256("|".join(item.fingerprint for item in items).encode()).hexdigest()[:8]


def _whole(value: object) -> int | None:
    number = read_number(value)
    return int(number) if number is not None and number >= 1 else None


def _frames(value: object) -> frozenset[int]:
    listed = value if isinstance(value, list) else []
    return frozenset(frame for frame in listed if isinstance(frame, int))


def _framerate(keyframes: Sequence[Mapping[str, Any]]) -> float | None:
    """Label Studio writes `time` = frame / framerate into every keyframe."""
    for keyframe in keyframes:
        seconds = read_number(keyframe.get("time"))
        if seconds:
            return float(keyframe["frame"]) / seconds
    return None
