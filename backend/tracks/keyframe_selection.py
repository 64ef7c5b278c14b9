"""Selects the minimum number of keyframes of a track that keep every frame within a bound."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.settings import KeyframeSettings
from backend.tracks.geometry import Boxes, box_iou

Tolerance = tuple[float, float]
"""Allowed error of every edge where the IoU is below the bound: along x and y, in the unit of the boxes."""
_EXACT: Tolerance = (0.0, 0.0)

MAX_CHECKS = 2**28
"""Maximum number of lines, and of frames on them, to check for the fewest keyframes of a run: about two seconds. Runs
of 16,000 frames rarely need more; an hour of a usual track needs a tenth."""
MAX_CHECKS_UNFINISHED = MAX_CHECKS // 16
"""The same while a track is still being computed: enough for 4,000 frames."""
_STEPS = 4096
"""Steps between 0 and 1 at which the best bound for a budget is searched."""
_PROBES = 16
"""Estimated number of bounds tried in that search."""


@dataclass(frozen=True, slots=True)
class BoxRun:
    """One object on consecutive frames, as corners `x0 y0 x1 y1` in any unit that is linear per axis.

    Attributes:
        boxes: shape (n, 4), the tracked boxes; no NaN.
        keyframe_boxes: shape (n, 4), the boxes that keyframes set: the same, or smoothed.
    """

    boxes: Boxes
    keyframe_boxes: Boxes

    def __post_init__(self) -> None:
        if not (self.boxes.shape == self.keyframe_boxes.shape == (len(self.boxes), 4) and len(self.boxes)):
            raise ValueError(
                f"boxes {self.boxes.shape}, keyframe_boxes {self.keyframe_boxes.shape}: both must be (n, 4), n > 0"
            )

    @classmethod
    def from_boxes(cls, boxes: Boxes) -> "BoxRun":
        """Keyframes set the tracked boxes."""
        return cls(boxes, boxes)


def select_fewest(run: BoxRun, bound: float, px: Tolerance = _EXACT, max_checks: int = MAX_CHECKS) -> list[int]:
    """Select the fewest keyframes such that linear interpolation keeps every box between them.

    A box is kept if its IoU with the interpolated one is at least `bound`, or every edge is within `px`. A box
    within rounding error of the bound counts as not kept.

    Args:
        bound: 0..1; at 1 only boxes that interpolation reproduces exactly are left out.
        max_checks: limits the search for the fewest. The rest of the run is searched greedily: fast, with a few
            more keyframes. With 0 all of it is; frames added later then change only the last keyframe.

    Returns:
        Sorted row numbers: the first, the last, and as few others as possible.
    """
    line, last = _LineCheck(run, bound, px), len(run.boxes) - 1
    if line.keeps(0, last):
        return sorted({0, last})
    if not max_checks:
        return line.greedy(0)
    rows = line.fewest(max_checks)
    if rows[-1] == last:
        return rows
    return min(rows[:-1] + line.greedy(rows[-1]), line.greedy(0), key=len)


def select_within_budget(
    runs: Sequence[BoxRun], budget: int, px: Tolerance = _EXACT, max_checks: int = MAX_CHECKS
) -> list[list[int]]:
    """Select at most `budget` keyframes for several runs, such that all runs keep the same bound, as high as possible.

    The first and last row of each run are always selected, even if they exceed the budget.

    Args:
        max_checks: as for `select_fewest`.
    """
    best = [sorted({0, len(run.boxes) - 1}) for run in runs]
    if sum(map(len, best)) >= budget:
        return best
    if sum(len(run.boxes) for run in runs) <= budget:
        return [list(range(len(run.boxes))) for run in runs]
    reached = 0
    # Greedily first, then from there upwards: the higher a bound, the fewer checks it takes.
    for effort in sorted({0, max_checks // (_PROBES * len(runs))}):
        above, step = _STEPS + 1, 1
        while above - reached > 1:
            trial = min(reached + step, (reached + above) // 2)
            chosen = [select_fewest(run, trial / _STEPS, px, effort) for run in runs]
            if sum(map(len, chosen)) <= budget:
                best, reached, step = chosen, trial, 2 * step
            else:
                above, step = trial, _STEPS
    return best


def select_keyframes(
    runs: Sequence[BoxRun], rule: KeyframeSettings, px: Tolerance, used: int = 0, max_checks: int = MAX_CHECKS
) -> list[list[int]]:
    """Select the keyframes of each run by the rule in the settings.

    Args:
        used: how much of the budget is already used.
        max_checks: as for `select_fewest`.
    """
    if rule.mode == "exact":
        return [list(range(len(run.boxes))) for run in runs]
    if rule.mode == "budget":
        return select_within_budget(runs, rule.budget - used, px, max_checks)
    return [select_fewest(run, rule.iou, px, max_checks) for run in runs]


def min_kept_iou(run: BoxRun, rows: Sequence[int], px: Tolerance = _EXACT) -> float:
    """The minimum IoU of an interpolated box with the tracked one, of those not within `px`; 1 if all are."""
    places = np.arange(len(run.boxes))
    shown = np.stack([np.interp(places, rows, run.keyframe_boxes[rows, axis]) for axis in range(4)], axis=1)
    # Interpolation rounds in the last bit.
    is_off = (np.abs(shown - run.boxes) > np.array(px * 2) + 1e-9).any(axis=1)
    return float(box_iou(shown[is_off], run.boxes[is_off]).min(initial=1.0))


def compile_selection() -> None:
    """Compile the search ahead of the first request: takes seconds, once per machine."""
    select_fewest(BoxRun.from_boxes(np.array([[0, 0, 1, 1], [5, 5, 6, 6], [0, 0, 1, 1]], float)), 0.95)


class _LineCheck:
    """Straight lines between rows of a run, and whether they keep the boxes in between."""

    def __init__(self, run: BoxRun, bound: float, px: Tolerance) -> None:
        from backend.tracks import _shortest_path  # importing numba takes half a second

        self._path = _shortest_path
        keys, boxes = (np.ascontiguousarray(values, float) for values in (run.keyframe_boxes, run.boxes))
        size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-12)
        farthest, smallest = np.abs(boxes).max(), size.min(axis=1)
        # With a margin, so that no other order of additions finds a frame below the bound.
        least = bound + 1e-9 + 2.0**-46 * farthest / smallest if bound > 0 else np.full(len(size), -1.0)
        self._problem = _shortest_path.LineProblem(keys, boxes, size, least, np.array(px) - 2.0**-46 * farthest)
        self._off = np.maximum(1 / max(bound, 1e-9) - 1, 2 * (np.array(px) / size).sum(axis=1)) * (1 + 1e-6) + 1e-6
        self._room = float(2.0**-40 * farthest / smallest.min())

    def keeps(self, start: int, stop: int) -> bool:
        """Whether the line between two rows keeps all in between."""
        return self._path.keeps(self._problem, start, stop)

    def fewest(self, max_checks: int) -> list[int]:
        """The fewest rows from the first to the last, or as far as `max_checks` allow."""
        return self._path.shortest_path(self._problem, self._off, self._room, max_checks)

    def greedy(self, start: int) -> list[int]:
        """Rows from `start` to the last, found greedily and fast."""
        return self._path.greedy_path(self._problem, start)
