"""Builds the results that a response contains for a region."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from backend.labelstudio.keyframe import Keyframe, count_visible_frames
from backend.labelstudio.keyframes import KeyframeSet
from backend.labelstudio.notes import note_refusal, note_track
from backend.labelstudio.region import TYPE, Region, fingerprint_keyframes

MEASURED = ("score", "iou", "interpolated")
"""Keys of `meta` that describe how a track was computed; they are valid only for its keyframes."""


def build_region(
    region: Region,
    track: KeyframeSet,
    *,
    track_id: int,
    engine: str,
    score: float | None,
    labels: Sequence[str] | None = None,
    partial: tuple[int, int] | None = None,
    extra_meta: Mapping[str, Any] | None = None,
    is_stopped: bool = False,
) -> Region:
    """A tracked region, which replaces the one on the page by its id.

    Args:
        track: all keyframes of the track.
        score: mean over the frames where the object is present, 0..1.
        labels: the region's classes; None: its labels.
        partial: the number of tracked frames and of all, if some are missing.
        extra_meta: further fields of `meta` for a track that was not started from a box, to recognise it later.
        is_stopped: the missing frames are not being tracked.
    """
    labels = region.labels if labels is None else labels
    keyframes = sorted(track.keyframes, key=lambda keyframe: keyframe.frame)
    meta = {**region.meta, "track_id": track_id, "human": [key.frame for key in keyframes if key.is_human]}
    meta["ends"] = [key.frame for key in keyframes if not (key.enabled or (key.is_human and region.hides(key)))]
    for key in ("partial", "at", "searched", "corrected", *MEASURED):
        meta.pop(key, None)
    if region.corrections:
        meta["corrected"] = sorted(region.corrections)
    meta |= {
        "seal": fingerprint_keyframes(keyframes),
        "interpolated": _interpolated(region, keyframes),
        **(extra_meta or {}),
    }
    meta |= {} if score is None else {"score": round(score, 4)}
    # Rounded down: it is a minimum.
    meta |= {} if track.iou is None else {"iou": math.floor(track.iou * 1e4) / 1e4}
    if partial:
        meta["partial"] = {"done": partial[0], "total": partial[1]}
    details = [*_describe_progress(partial, is_stopped), engine, *([] if score is None else [f"{score:.2f}"])]
    meta["text"] = note_track(region.meta, track_id, [*details, *_describe_class(labels, region.labels)])
    return replace(
        region,
        labels=tuple(labels),
        keyframes=tuple(keyframe.seal() for keyframe in keyframes),
        origin="prediction",
        meta=meta,
        score=score,
    )


def _describe_progress(partial: tuple[int, int] | None, is_stopped: bool) -> list[str]:
    if partial is None:
        return []
    done, total = partial
    if is_stopped:
        return [f"stopped after {done} of {total} frames, press t to go on"]
    return [f"{done} of {total} frames so far, press t for the rest"]


def _describe_class(labels: Sequence[str], earlier: Sequence[str]) -> list[str]:
    if not labels:
        return ["no class: select it and press a class key"]
    return [] if set(labels) & set(earlier) else ["no class was set: check its label"]


def build_refusal(region: Region, labels: Sequence[str], reason: str) -> Region:
    """The region as received, so that its corrections count in the next request, with the reason in its Info panel."""
    meta = {**region.meta, "text": note_refusal(region.meta, reason)}
    return replace(region, labels=tuple(labels), meta=meta)


def build_unchanged(
    region: Region, labels: Sequence[str], reason: str | None = None, *, is_partial: bool = True
) -> Region:
    """The region as received, but no longer marked as changed, with a reason in its Info panel if there is one.

    Args:
        is_partial: keep the mark that frames are missing.
    """
    notes = {"text": note_refusal(region.meta, reason)} if reason else {}
    meta = {key: value for key, value in region.meta.items() if is_partial or key != "partial"} | notes
    return replace(region, labels=tuple(labels), meta=meta, origin="prediction")


def format_prediction(results: list[dict[str, Any]], model_version: str) -> dict[str, Any]:
    """A prediction: results, and the mean of their scores."""
    scores = [result["score"] for result in results if "score" in result]
    score = round(sum(scores) / len(scores), 4) if scores else 0.0
    return {"result": results, "score": score, "model_version": model_version}


def format_region(region: Region, framerate: float) -> list[dict[str, Any]]:
    """The results of a built region: the region itself and its linked results."""
    value: dict[str, Any] = {"sequence": [key.to_unchanged_json(framerate) for key in region.keyframes]}
    value |= {"labels": list(region.labels)} if region.labels else {}
    value |= {"framesCount": region.frames_count} if region.frames_count else {}
    value |= {"duration": region.duration} if region.duration else {}
    result: dict[str, Any] = {"id": region.id, "type": TYPE, "from_name": region.from_name, "to_name": region.to_name}
    result |= {**region.other_fields, "origin": region.origin, "meta": region.meta, "value": value}
    result |= {"score": round(region.score, 4)} if region.score is not None else {}
    # Label Studio replaces the whole region, so linked results have to be sent again; their copies of the box do not.
    copies = {"sequence", "framesCount", "duration"}
    linked_results = [_without(linked, copies) for linked in region.linked_results]
    return [result, *linked_results]


def _without(linked: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    value = linked.get("value")
    if isinstance(value, Mapping):
        return {**linked, "value": {key: content for key, content in value.items() if key not in keys}}
    return dict(linked)


def _interpolated(region: Region, keyframes: Sequence[Keyframe]) -> float:
    """The share of frames with a box but without a keyframe; an enabled last keyframe lasts to the end of the video."""
    stop = max(region.frames_count or 0, keyframes[-1].frame) + 1
    return round(1 - len(keyframes) / count_visible_frames(keyframes, stop), 4)
