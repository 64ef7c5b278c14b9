"""Regions `videorectangle`: what a request shows of them, what of them is to be tracked, and how they are answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from backend.errors import BadRequest
from backend.geometry import Boxes
from backend.keyframes import thin
from backend.labelstudio import sequence
from backend.labelstudio.clock import Clock
from backend.labelstudio.sequence import Item
from backend.prompts import Direction
from backend.tracks import Track

TYPE = "videorectangle"


@dataclass(frozen=True, slots=True)
class Segment:
    """The LS frames strictly between two neighbouring human keyframes, or before the first, or after the last.

    Attributes:
        kept: the keyframes that stay as they are; None: this stretch is to be tracked.
    """

    before: Item | None
    after: Item | None
    kept: tuple[Item, ...] | None

    def frames(self, length: int) -> range:
        """LS frames of the segment in a video of `length` LS frames."""
        first = self.before.frame + 1 if self.before else 1
        return range(first, self.after.frame if self.after else length + 1)


@dataclass(frozen=True, slots=True)
class Region:
    """A region as the request shows it; `id` is the track's identity."""

    id: str
    from_name: str
    to_name: str
    labels: tuple[str, ...]
    items: tuple[Item, ...]
    origin: str
    meta: Mapping[str, Any]
    score: float | None
    frames_count: int | None
    duration: float | None
    framerate: float | None

    @property
    def track_id(self) -> int | None:
        """The number that people see, where an earlier answer gave one."""
        number = self.meta.get("track_id")
        return number if isinstance(number, int) else None

    @property
    def is_tracked(self) -> bool:
        """An earlier answer wrote some of its keyframes."""
        return any(item.fp == item.fingerprint for item in self.items)

    @property
    def is_asked(self) -> bool:
        """The person asked for it: marked by Label Studio as changed, or drawn by hand and not tracked yet."""
        return self.origin == "prediction-changed" or (self.origin == "manual" and not self.is_tracked)

    @property
    def is_partial(self) -> bool:
        """The last answer to it lacked frames."""
        return "partial" in self.meta

    @property
    def humans(self) -> tuple[Item, ...]:
        """A person's keyframes. Where every one was deleted from an unfinished track, its first one stands in."""
        humans = tuple(item for item in self.items if item.is_human)
        return humans or (self.items[:1] if self.is_partial else ())

    def segments(self, direction: Direction) -> tuple[Segment, ...]:
        """Cut the track at its human keyframes; what no correction touches is kept to the digit.

        Args:
            direction: where to go beyond the first and the last human keyframe. A side that was tracked before is
                tracked again when the keyframe beside it is corrected.
        """
        humans = self.humans
        if not humans:
            return (Segment(None, None, self.items),)
        anchors = (None, *humans, None)
        return tuple(self._segment(before, after, direction) for before, after in pairwise(anchors))

    def _segment(self, before: Item | None, after: Item | None, direction: Direction) -> Segment:
        first = before.frame if before else 0
        inside = tuple(
            item
            for item in self.items
            if not item.is_human and first < item.frame and (after is None or item.frame < after.frame)
        )
        if before is not None and self._hides(before, inside):
            return Segment(before, after, ())
        wanted = bool(inside) or (
            (before is not None and after is not None)
            or direction == "both"
            or direction == ("forward" if after is None else "backward")
        )
        touched = (
            not self.is_tracked
            or self.is_partial
            or (before is not None and before.is_corrected)
            or (after is not None and after.is_corrected and not after.is_toggled)
            or any(first < frame and (after is None or frame < after.frame) for frame in self._deleted)
        )
        return Segment(before, after, None if wanted and touched else inside)

    @property
    def _deleted(self) -> set[int]:
        """Frames on which the last answer knew a human keyframe that is gone."""
        known = self.meta.get("human")
        return set(known if isinstance(known, list) else ()) - {item.frame for item in self.items}

    def _hides(self, item: Item, inside: Sequence[Item]) -> bool:
        """A person said that the object is gone after `item`, a human keyframe followed by our keyframes `inside`.

        `enabled: false` alone does not say so: Label Studio keeps it when the end of a track is dragged, and hands it
        on to keyframes that are added after the end.
        """
        if item.enabled:
            return False
        if not item.is_corrected:
            return not inside
        previous = [other for other in self.items if other.frame < item.frame]
        return item.is_toggled or (item.fp is None and bool(previous) and previous[-1].enabled)


def parse(result: Mapping[str, Any]) -> Region:
    """Read one result of type `videorectangle`.

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
        items=sequence.parse(value.get("sequence")),
        origin=str(result.get("origin", "manual")),
        meta=meta if isinstance(meta, Mapping) else {},
        score=_number(result.get("score")),
        frames_count=int(_number(value.get("framesCount")) or 0) or None,
        duration=_number(value.get("duration")),
        framerate=_framerate(value["sequence"]),
    )


def tracked(segment: Segment, boxes: Boxes, bound: float) -> list[Item]:
    """Our keyframes inside a segment, thinned, for boxes that were tracked there.

    Args:
        segment: where. Its own human keyframes are not among what is returned, but interpolation reaches to them.
        boxes: shape (n, 4), percent `x y width height` rounded as sent, one row for each LS frame of the segment; NaN
            where the object is not there or was not looked for.
        bound: the least IoU of every interpolated box with its own.
    """
    before, after, count = segment.before, segment.after, len(boxes)
    rows = np.vstack([_anchor(before) if before and before.enabled else _NOTHING, boxes, _anchor(after)])
    first = before.frame if before else 0
    items: list[Item] = []
    if before and before.enabled and count and np.isnan(rows[1, 0]):
        # It stays as the person set it, enabled; so the box is hidden by a twin on the next frame.
        items.append(replace(before, frame=first + 1, enabled=False))
    seen = np.flatnonzero(~np.isnan(rows[:, 0]))
    for run in np.split(seen, np.flatnonzero(np.diff(seen) > 1) + 1) if seen.size else ():
        corners = rows[run].copy()
        corners[:, 2:] += corners[:, :2]
        ours = [int(run[row]) for row in thin(corners, bound) if 1 <= run[row] <= count]
        items += [Item(first + row, bool(row != run[-1]), *rows[row].tolist()) for row in ours]
    return [replace(item, fp=item.fingerprint, human=False) for item in items]


def keyframes(
    segments: Sequence[Segment], track: Track, clock: Clock, size: tuple[int, int], bound: float
) -> list[Item]:
    """All keyframes of ours in a region: those that are kept, and the tracked ones of every other segment.

    Args:
        track: boxes in pixels of a picture of `size` = (width, height).
        bound: the least IoU of every interpolated box with its own.
    """
    items: list[Item] = []
    for segment in segments:
        if segment.kept is None:
            # Every LS frame gets the box of the picture that it shows, whatever the two frame rates are.
            shown = clock.sources(np.asarray(segment.frames(clock.length), dtype=np.int64))
            items += tracked(segment, sequence.percent(track.boxes[shown], *size), bound)
        else:
            items += segment.kept
    return items


_NOTHING = np.full((1, 4), np.nan)


def _anchor(item: Item | None) -> Boxes:
    """A human keyframe to interpolate with; none where it is rotated: Label Studio would turn our boxes with it."""
    if item is None or item.rotation:
        return _NOTHING
    return np.array([[item.x, item.y, item.width, item.height]], float)


def answer(
    region: Region,
    items: Sequence[Item],
    *,
    framerate: float,
    labels: Sequence[str],
    track_id: int,
    engine: str,
    score: float | None,
    partial: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """The region as it is answered, under its own id, so that it replaces what the page shows.

    Args:
        items: all keyframes of the track.
        score: mean over the frames where the object is present, 0..1.
        partial: frames done and to do, where some are missing.
    """
    summary = f"track {track_id} · {engine}" + (f" · {score:.2f}" if score is not None else "")
    if labels and not set(labels) & set(region.labels):
        summary += f" · no class given: {labels[0]} assumed"
    meta: dict[str, Any] = {"track_id": track_id, "human": [item.frame for item in items if item.is_human]}
    if partial:
        done, total = partial
        summary += f" · {done} of {total} frames so far, press t for the rest"
        meta["partial"] = {"done": done, "total": total}
    meta["text"] = [summary]
    sequence = [item.written(framerate) for item in sorted(items, key=lambda item: item.frame)]
    return _result(region, sequence, labels, meta, "prediction", score)


def refusal(region: Region, labels: Sequence[str], framerate: float, reason: str) -> dict[str, Any]:
    """The region as it came, corrections still unanswered, with the reason where the person can read it."""
    sequence = [item.untouched(framerate) for item in region.items]
    return _result(
        region, sequence, labels, {**region.meta, "text": [f"not tracked: {reason}"]}, region.origin, region.score
    )


def _result(
    region: Region,
    keyframes: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    meta: Mapping[str, Any],
    origin: str,
    score: float | None,
) -> dict[str, Any]:
    value: dict[str, Any] = {"sequence": keyframes}
    value |= {"labels": list(labels)} if labels else {}
    value |= {"framesCount": region.frames_count} if region.frames_count else {}
    value |= {"duration": region.duration} if region.duration else {}
    result: dict[str, Any] = {"id": region.id, "type": TYPE, "from_name": region.from_name, "to_name": region.to_name}
    result |= {"origin": origin, "meta": meta, "value": value}
    return result | ({"score": round(score, 4)} if score is not None else {})


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _framerate(keyframes: Sequence[Mapping[str, Any]]) -> float | None:
    """Label Studio writes `time` = frame / framerate into every keyframe."""
    for keyframe in keyframes:
        seconds = _number(keyframe.get("time"))
        if seconds:
            return float(keyframe["frame"]) / seconds
    return None
