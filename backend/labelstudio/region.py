"""Regions `videorectangle`: what a request shows of them, and how they are answered."""

import hashlib
import math
import re
import secrets
import string
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from backend.errors import BadRequest
from backend.labelstudio.box_scale import UNKNOWN, BoxScale, parse_scales, scales_to_json
from backend.labelstudio.commands import typed_lines
from backend.labelstudio.keyframe import Keyframe, count_visible_frames, parse_keyframes

TYPE = "videorectangle"
_WRITTEN = frozenset({"id", "type", "from_name", "to_name", "value", "origin", "meta", "score"})
MEASURED = ("score", "iou", "interpolated")
"""What `meta` tells of how a track was made: it holds for these keyframes and no others."""
_NUMBER = re.compile(r"track \d+(?= ·|$)")
_OUR_LINE = re.compile(_NUMBER.pattern + "|not tracked: ")
"""How lines of ours begin in a region's Info panel."""
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
        known = _number(self.meta.get("iou"))
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
        score=_number(result.get("score")),
        frames_count=_whole(value.get("framesCount")),
        duration=_number(value.get("duration")),
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


def build_results(
    region: Region,
    items: Sequence[Keyframe],
    *,
    framerate: float,
    labels: Sequence[str],
    track_id: int,
    engine: str,
    score: float | None,
    partial: tuple[int, int] | None = None,
    iou: float | None = None,
    made_of: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The region as it is answered, under its own id, so that it replaces what the page shows; and what is beside it.

    Args:
        items: all keyframes of the track.
        score: mean over the frames where the object is present, 0..1.
        partial: frames done and to do, where some are missing.
        iou: the least of what the page shows between keyframes with what was tracked; None: not known.
        made_of: what it was made of, where that was no box: kept in `meta` to know it again.
    """
    items = sorted(items, key=lambda item: item.frame)
    meta = {**region.meta, "track_id": track_id, "human": [item.frame for item in items if item.is_human]}
    meta["ends"] = [item.frame for item in items if not (item.enabled or (item.is_human and region.hides(item)))]
    summary = f"track {track_id}"
    for key in ("partial", "at", "corrected", *MEASURED):
        meta.pop(key, None)
    if region.corrections:
        meta["corrected"] = scales_to_json(region.corrections)
    meta |= {"seal": fingerprint_keyframes(items), "interpolated": _interpolated(region, items), **(made_of or {})}
    meta |= {} if score is None else {"score": round(score, 4)}
    # Rounded down, so that it holds.
    meta |= {} if iou is None else {"iou": math.floor(iou * 1e4) / 1e4}
    if partial:
        done, total = partial
        summary += f" · {done} of {total} frames so far, press t for the rest"
        meta["partial"] = {"done": done, "total": total}
    summary += f" · {engine}" + (f" · {score:.2f}" if score is not None else "")
    if labels and not set(labels) & set(region.labels):
        summary += " · given without a class: check its label"
    meta["text"] = [*_notes(region), summary]
    return _results(region, [item.to_json(framerate) for item in items], labels, meta, "prediction", score)


def build_refusal(region: Region, labels: Sequence[str], framerate: float, reason: str) -> list[dict[str, Any]]:
    """The region as it came, corrections still unanswered, with the reason where the person can read it."""
    meta = {**region.meta, "text": [*_notes(region), f"not tracked: {reason}"]}
    return _as_it_came(region, labels, framerate, meta, region.origin)


def build_unchanged(
    region: Region, labels: Sequence[str], framerate: float, reason: str | None = None, *, is_partial: bool = True
) -> list[dict[str, Any]]:
    """The region as it came and not asked for any more, with a reason where there is one.

    Args:
        is_partial: more of it may come, where it lacks frames.
    """
    told = {"text": [*_notes(region), f"not tracked: {reason}"]} if reason else {}
    meta = {key: known for key, known in region.meta.items() if is_partial or key != "partial"}
    return _as_it_came(region, labels, framerate, meta | told, "prediction")


def _as_it_came(
    region: Region, labels: Sequence[str], framerate: float, meta: Mapping[str, Any], origin: str
) -> list[dict[str, Any]]:
    return _results(
        region, [item.to_unchanged_json(framerate) for item in region.keyframes], labels, meta, origin, region.score
    )


def _results(
    region: Region,
    keyframes: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    meta: Mapping[str, Any],
    origin: str,
    score: float | None,
) -> list[dict[str, Any]]:
    value: dict[str, Any] = {"sequence": keyframes}
    value |= {"labels": list(labels)} if labels else {}
    value |= {"framesCount": region.frames_count} if region.frames_count else {}
    value |= {"duration": region.duration} if region.duration else {}
    result: dict[str, Any] = {"id": region.id, "type": TYPE, "from_name": region.from_name, "to_name": region.to_name}
    result |= {**region.other_fields, "origin": origin, "meta": meta, "value": value}
    result |= {"score": round(score, 4)} if score is not None else {}
    # Label Studio replaces the whole region: what is not said again is gone. Its copies of the box are not needed.
    copies = {"sequence", "framesCount", "duration"}
    beside = [
        {**one, "value": {key: kept for key, kept in one["value"].items() if key not in copies}}
        for one in region.linked_results
        if isinstance(one.get("value"), Mapping)
    ]
    return [result, *beside]


def _interpolated(region: Region, items: Sequence[Keyframe]) -> float:
    """The share of the frames that show the box on which no keyframe is; a last one that is enabled goes to the end."""
    stop = max(region.frames_count or 0, items[-1].frame) + 1
    return round(1 - len(items) / count_visible_frames(items, stop), 4)


def _notes(region: Region) -> list[str]:
    """A person's own lines in the Info panel."""
    return read_notes(region.meta.get("text"))


def read_notes(text: object) -> list[str]:
    """A person's own lines in what `meta.text` holds."""
    return [line for line in _lines(text) if line and not _OUR_LINE.match(line)]


def renumber_notes(text: object, number: int) -> list[str]:
    """What `meta.text` holds once the track has another number."""
    lines = [_NUMBER.sub(f"track {number}", line) for line in _lines(text)]
    return lines if any(map(_NUMBER.match, lines)) else [*lines, f"track {number}"]


def _lines(text: object) -> list[str]:
    listed = text if isinstance(text, list) else [text]
    return [line for line in listed if isinstance(line, str)]


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e12 < value < 1e12:
        return None
    return float(value)


def _whole(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number >= 1 and math.isfinite(number) else None


def _frames(value: object) -> frozenset[int]:
    listed = value if isinstance(value, list) else []
    return frozenset(frame for frame in listed if isinstance(frame, int))


def _framerate(keyframes: Sequence[Mapping[str, Any]]) -> float | None:
    """Label Studio writes `time` = frame / framerate into every keyframe."""
    for keyframe in keyframes:
        seconds = _number(keyframe.get("time"))
        if seconds:
            return float(keyframe["frame"]) / seconds
    return None
