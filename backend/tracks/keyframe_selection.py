"""Which frames of a track become keyframes: as few as keep every frame within a bound."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.settings import KeyframeSettings
from backend.tracks.geometry import Boxes, iou

Tolerance = tuple[float, float]
"""How far every edge may be off where the IoU is below the bound: along x and y, in the unit of the boxes."""
_EXACT: Tolerance = (0.0, 0.0)

MOST = 2**28
"""Lines, and frames of them, that are looked at for the fewest keyframes of a run: some two seconds. 16,000 frames
hardly ever have more, and an hour of a usual track has a tenth of it."""
SOME = MOST // 16
"""As many while more is to come: all of 4,000 frames."""
_STEPS = 4096
"""How finely the best bound is sought for a given number of keyframes."""
_PROBES = 16
"""Bounds that are tried for it, at a guess."""


@dataclass(frozen=True, slots=True)
class Run:
    """One object on consecutive frames, as corners `x0 y0 x1 y1` in any unit that is linear per axis.

    Attributes:
        boxes: shape (n, 4), where it is; no NaN.
        keys: shape (n, 4), what keyframes set: the same, or smoothed.
    """

    boxes: Boxes
    keys: Boxes

    def __post_init__(self) -> None:
        if not (self.boxes.shape == self.keys.shape == (len(self.boxes), 4) and len(self.boxes)):
            raise ValueError(f"boxes of shape {self.boxes.shape}, keys {self.keys.shape}: expected (n, 4) both, n > 0")

    @classmethod
    def of(cls, boxes: Boxes) -> "Run":
        """Keyframes set what is there."""
        return cls(boxes, boxes)


def thin(run: Run, bound: float, px: Tolerance = _EXACT, most: int = MOST) -> list[int]:
    """The fewest keyframes with which linear interpolation keeps every box between them.

    A box is kept if its IoU with the interpolated one is at least `bound`, or every edge is within `px`. What is too
    close to tell in floating point counts as not kept.

    Args:
        bound: 0..1; at 1 only boxes that stay to the digit are left out.
        most: how much may be looked at. From where that ends on, each keyframe is only sought ahead of the one before:
            a few more, in no time. With 0 that is all, and what comes later changes nothing but the last of them.

    Returns:
        Sorted row numbers: the first, the last, and as few others as can be.
    """
    line, last = _Line(run, bound, px), len(run.boxes) - 1
    if line.keeps(0, last):
        return sorted({0, last})
    if not most:
        return line.few(0)
    rows = line.fewest(most)
    if rows[-1] == last:
        return rows
    return min(rows[:-1] + line.few(rows[-1]), line.few(0), key=len)


def spend(runs: Sequence[Run], budget: int, px: Tolerance = _EXACT, most: int = MOST) -> list[list[int]]:
    """Keyframes for several runs, at most `budget` in all, that keep one bound for all of them which is the highest.

    Their first and last rows are chosen even where they are more.

    Args:
        most: how much may be looked at, as for `thin`.
    """
    best = [sorted({0, len(run.boxes) - 1}) for run in runs]
    if sum(map(len, best)) >= budget:
        return best
    if sum(len(run.boxes) for run in runs) <= budget:
        return [list(range(len(run.boxes))) for run in runs]
    reached = 0
    # First without looking for the fewest; then from there on upwards: the higher a bound, the less is looked at.
    for effort in sorted({0, most // (_PROBES * len(runs))}):
        above, step = _STEPS + 1, 1
        while above - reached > 1:
            trial = min(reached + step, (reached + above) // 2)
            chosen = [thin(run, trial / _STEPS, px, effort) for run in runs]
            if sum(map(len, chosen)) <= budget:
                best, reached, step = chosen, trial, 2 * step
            else:
                above, step = trial, _STEPS
    return best


def choose(
    runs: Sequence[Run], rule: KeyframeSettings, px: Tolerance, spent: int = 0, most: int = MOST
) -> list[list[int]]:
    """The rows of each run that become keyframes, as the settings say.

    Args:
        spent: how many of a budget are used up otherwise.
        most: how much may be looked at, as for `thin`.
    """
    if rule.mode == "exact":
        return [list(range(len(run.boxes))) for run in runs]
    if rule.mode == "budget":
        return spend(runs, rule.budget - spent, px, most)
    return [thin(run, rule.iou, px, most) for run in runs]


def kept_bound(run: Run, rows: Sequence[int], px: Tolerance = _EXACT) -> float:
    """The least IoU of a shown box with the true one, of those that are not within `px`; 1 where all are."""
    places = np.arange(len(run.boxes))
    shown = np.stack([np.interp(places, rows, run.keys[rows, axis]) for axis in range(4)], axis=1)
    # A straight line is off by a last bit.
    is_off = (np.abs(shown - run.boxes) > np.array(px * 2) + 1e-9).any(axis=1)
    return float(iou(shown[is_off], run.boxes[is_off]).min(initial=1.0))


def warm() -> None:
    """Compile what is compiled, before somebody waits for it: seconds, the first time on a machine."""
    thin(Run.of(np.array([[0, 0, 1, 1], [5, 5, 6, 6], [0, 0, 1, 1]], float)), 0.95)


class _Line:
    """Straight lines along a run, and whether they keep the boxes between."""

    def __init__(self, run: Run, bound: float, px: Tolerance) -> None:
        from backend.tracks import _shortest_path  # what compiles it takes half a second to import

        self._shortcuts = _shortest_path
        keys, boxes = (np.ascontiguousarray(given, float) for given in (run.keys, run.boxes))
        size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-12)
        farthest, smallest = np.abs(boxes).max(), size.min(axis=1)
        # Whoever reads the rule in another order of additions may not find a frame below it.
        least = bound + 1e-9 + 2.0**-46 * farthest / smallest if bound > 0 else np.full(len(size), -1.0)
        self._given = _shortest_path.Given(keys, boxes, size, least, np.array(px) - 2.0**-46 * farthest)
        self._off = np.maximum(1 / max(bound, 1e-9) - 1, 2 * (np.array(px) / size).sum(axis=1)) * (1 + 1e-6) + 1e-6
        self._room = float(2.0**-40 * farthest / smallest.min())

    def keeps(self, start: int, stop: int) -> bool:
        """Whether the line between two rows keeps all between."""
        return self._shortcuts.keeps(self._given, start, stop)

    def fewest(self, most: int) -> list[int]:
        """From the first row to the last, or as far as that goes."""
        return self._shortcuts.shortest(self._given, self._off, self._room, most)

    def few(self, start: int) -> list[int]:
        """From the row `start` to the last, in no time."""
        return self._shortcuts.short(self._given, start)
