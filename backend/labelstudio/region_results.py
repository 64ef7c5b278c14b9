"""Builds the results that a response contains for a region."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from backend.labelstudio.box_scale import scales_to_json
from backend.labelstudio.keyframe import Keyframe, count_visible_frames
from backend.labelstudio.notes import note_refusal, note_track
from backend.labelstudio.region import TYPE, Region, fingerprint_keyframes

MEASURED = ("score", "iou", "interpolated")
"""Keys of `meta` that describe how a track was computed; they are valid only for its keyframes."""


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
    for key in ("partial", "at", "corrected", *MEASURED):
        meta.pop(key, None)
    if region.corrections:
        meta["corrected"] = scales_to_json(region.corrections)
    meta |= {"seal": fingerprint_keyframes(items), "interpolated": _interpolated(region, items), **(made_of or {})}
    meta |= {} if score is None else {"score": round(score, 4)}
    # Rounded down, so that it holds.
    meta |= {} if iou is None else {"iou": math.floor(iou * 1e4) / 1e4}
    details = []
    if partial:
        done, total = partial
        details.append(f"{done} of {total} frames so far, press t for the rest")
        meta["partial"] = {"done": done, "total": total}
    details += [engine] if score is None else [engine, f"{score:.2f}"]
    if labels and not set(labels) & set(region.labels):
        details.append("given without a class: check its label")
    meta["text"] = note_track(region.meta, track_id, details)
    return _results(region, [item.to_json(framerate) for item in items], labels, meta, "prediction", score)


def build_refusal(region: Region, labels: Sequence[str], framerate: float, reason: str) -> list[dict[str, Any]]:
    """The region as it came, corrections still unanswered, with the reason where the person can read it."""
    meta = {**region.meta, "text": note_refusal(region.meta, reason)}
    return _as_it_came(region, labels, framerate, meta, region.origin)


def build_unchanged(
    region: Region, labels: Sequence[str], framerate: float, reason: str | None = None, *, is_partial: bool = True
) -> list[dict[str, Any]]:
    """The region as it came and not asked for any more, with a reason where there is one.

    Args:
        is_partial: more of it may come, where it lacks frames.
    """
    told = {"text": note_refusal(region.meta, reason)} if reason else {}
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
