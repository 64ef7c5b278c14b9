"""Keyframes of parts of a track: on every frame the box that the track shows there."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from backend.labelstudio.keyframe import NUMBERS, Keyframe

Span = tuple[int, int]
"""The first and the last LS frame of a stretch."""


def visible_spans(items: Sequence[Keyframe], length: int) -> list[Span]:
    """The stretches of LS frames that show a track, of a video of `length` frames."""
    found: list[Span] = []
    stops = [*(item.frame - 1 for item in items[1:]), max(length, items[-1].frame)] if items else []
    for item, stop in zip(items, stops, strict=True):
        last = stop if item.enabled else item.frame
        if found and found[-1][1] + 1 == item.frame:
            found[-1] = found[-1][0], last
        else:
            found.append((item.frame, last))
    return found


def cut_span(items: Sequence[Keyframe], first: int, last: int | None) -> tuple[Keyframe, ...]:
    """The keyframes of what a track shows from one LS frame to another; None: to the end, as far as that is.

    Where it is cut, a person has said so: the keyframes there are theirs.
    """
    inside = [item for item in items if item.frame >= first and (last is None or item.frame <= last)]
    if not (inside and inside[0].frame == first) and (start := _between(items, first)):
        inside.insert(0, start)
    if last is None or not inside or not inside[-1].enabled:
        return tuple(inside)
    end = inside.pop() if inside[-1].frame == last else _between(items, last)
    # It goes on beyond the cut.
    return (*inside, replace(end, enabled=False, human=True)) if end else tuple(inside)


def remove_span(items: Sequence[Keyframe], first: int, last: int | None) -> tuple[Keyframe, ...]:
    """The keyframes of what a track shows outside of these LS frames."""
    before = cut_span(items, items[0].frame, first - 1) if items[0].frame < first else ()
    return before if last is None else (*before, *cut_span(items, last + 1, None))


def _between(items: Sequence[Keyframe], frame: int) -> Keyframe | None:
    """The box that is shown on an LS frame without a keyframe, as one; None: none is."""
    before = next((item for item in reversed(items) if item.frame < frame), None)
    if before is None or not before.enabled:
        return None
    after = next((item for item in items if item.frame > frame), before)
    frames = [before.frame, after.frame]
    sides = [[getattr(item, name) for name in NUMBERS] for item in (before, after)]
    x, y, width, height, rotation = (
        round(float(np.interp(frame, frames, ends)), 4) for ends in zip(*sides, strict=True)
    )
    return Keyframe(frame, True, x, y, width, height, rotation, human=True)


def overlap_frames(a: Sequence[Span], b: Sequence[Span]) -> Span | None:
    """The first stretch of frames that is in both."""
    both = ((max(one[0], other[0]), min(one[1], other[1])) for one in a for other in b)
    return min((span for span in both if span[0] <= span[1]), default=None)
