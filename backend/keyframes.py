"""Which frames of a track become keyframes: as few as keep every frame within a bound.

Where nothing is missing any more they are the fewest (`thin`); while more frames come, few that are found in no time
(`sketch`), of which only the last ones change with what comes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.geometry import Boxes, iou
from backend.settings import KeyframeSettings

Tolerance = tuple[float, float]
"""How far every edge may be off where the IoU is below the bound: along x and y, in the unit of the boxes."""
_EXACT: Tolerance = (0.0, 0.0)

_MOST = 2**28
"""Pairs of frames that are looked at for the fewest keyframes: seconds. All of 23,000 frames are fewer."""
_STEPS = 4096
"""How finely the best bound is sought for a given number of keyframes."""


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


Way = Callable[[Run, float, Tolerance], list[int]]


def thin(run: Run, bound: float, px: Tolerance = _EXACT) -> list[int]:
    """The fewest keyframes with which linear interpolation keeps every box between them.

    A box is kept if its IoU with the interpolated one is at least `bound`, or every edge is within `px`. What is too
    close to tell in floating point counts as not kept.

    Args:
        bound: 0..1; at 1 only boxes that stay to the digit are left out.

    Returns:
        Sorted row numbers: the first, the last, and as few others as can be. (Tens of thousands of frames that hardly
        bend may take too long; from where that shows on they are a sketch.)
    """
    line = _Line(run, bound, px)
    if line.keeps(0, line.last):
        return sorted({0, line.last})
    rows = line.fewest()
    return rows + line.few(rows[-1])


def sketch(run: Run, bound: float, px: Tolerance = _EXACT) -> list[int]:
    """As `thin`, but not the fewest: each is sought ahead of the one before, by doubling and bisection."""
    return [0, *_Line(run, bound, px).few(0)]


def spend(runs: Sequence[Run], count: int, px: Tolerance = _EXACT, way: Way = thin) -> list[list[int]]:
    """Keyframes for several runs, at most `count` in all, that keep one bound for all of them which is the highest.

    Their first and last rows are chosen even where they are more.

    Args:
        way: how few there are for a bound.
    """
    best = [sorted({0, len(run.boxes) - 1}) for run in runs]
    low, high, step = 0, _STEPS + 1, 1
    if sum(len(run.boxes) for run in runs) <= count:
        return [list(range(len(run.boxes))) for run in runs]
    while high - low > 1:
        # Downwards in growing steps first: a low bound takes longer.
        middle = max(high - step, (low + high) // 2)
        for quickly in dict.fromkeys([sketch, way]):
            chosen = [quickly(run, middle / _STEPS, px) for run in runs]
            if sum(map(len, chosen)) <= count:
                best, low = chosen, middle
                break
        else:
            high, step = middle, step * 2
    return best


def choose(
    runs: Sequence[Run], rule: KeyframeSettings, px: Tolerance, spent: int = 0, way: Way = thin
) -> list[list[int]]:
    """The rows of each run that become keyframes, as the settings say.

    Args:
        spent: how many of a budget are used up otherwise.
    """
    if rule.mode == "exact":
        return [list(range(len(run.boxes))) for run in runs]
    if rule.mode == "budget":
        return spend(runs, rule.budget - spent, px, way)
    return [way(run, rule.iou, px) for run in runs]


def kept_bound(run: Run, rows: Sequence[int], px: Tolerance = _EXACT) -> float:
    """The least IoU of a shown box with the true one, of those that are not within `px`; 1 where all are."""
    places = np.arange(len(run.boxes))
    shown = np.stack([np.interp(places, rows, run.keys[rows, axis]) for axis in range(4)], axis=1)
    is_off = (np.abs(shown - run.boxes) > np.array(px * 2)).any(axis=1)
    return float(iou(shown[is_off], run.boxes[is_off]).min(initial=1.0))


def warm() -> None:
    """Compile what is compiled, before somebody waits for it: seconds, the first time on a machine."""
    thin(Run.of(np.array([[0, 0, 1, 1], [5, 5, 6, 6], [0, 0, 1, 1]], float)), 0.95)


class _Line:
    """Straight lines along a run, and whether they keep the boxes between."""

    def __init__(self, run: Run, bound: float, px: Tolerance) -> None:
        from backend import shortcuts  # what compiles it takes half a second to import

        size = np.maximum(run.boxes[:, 2:] - run.boxes[:, :2], 1e-12)
        farthest, smallest = np.abs(run.boxes).max(), size.min(axis=1)
        # Whoever reads the rule in another order of additions may not find a frame below it.
        least = bound + 1e-9 + 2.0**-46 * farthest / smallest if bound > 0 else np.full(len(size), -1.0)
        edge = np.array(px) - 2.0**-46 * farthest
        keys, boxes = (np.ascontiguousarray(given, float) for given in (run.keys, run.boxes))
        self.last = len(boxes) - 1
        self._shortcuts, self._arrays = shortcuts, (keys, boxes, least, edge)
        off = np.maximum(1 / max(bound, 1e-9) - 1, 2 * (np.array(px) / size).sum(axis=1)) * (1 + 1e-6) + 1e-6
        self._cone: tuple[Any, float] = off, float(2.0**-40 * farthest / smallest.min())

    def keeps(self, start: int, stop: int) -> bool:
        """Whether the line between two rows keeps all between."""
        return stop - start < 2 or self._shortcuts.breaks(*self._arrays, start, stop, start + 1, stop - 1) < 0

    def fewest(self) -> list[int]:
        """From the first row to the last, or as far as that goes in seconds."""
        return self._shortcuts.shortest(*self._arrays, *self._cone, _MOST)

    def few(self, start: int) -> list[int]:
        """From the row after `start` to the last."""
        rows = []
        while start < self.last:
            good, bad, step = start + 1, self.last + 1, 2
            while good < self.last and bad > self.last:
                stop = min(start + step, self.last)
                good, bad, step = (stop, bad, step * 2) if self.keeps(start, stop) else (good, stop, step)
            while bad - good > 1:
                middle = (good + bad) // 2
                good, bad = (middle, bad) if self.keeps(start, middle) else (good, middle)
            rows.append(good)
            start = good
        return rows
