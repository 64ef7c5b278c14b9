"""The shortest path through the frames of a track. Two frames are connected if a straight line keeps all between them.

Its nodes are the fewest possible keyframes (Imai and Iri 1988). Compiled by numba, because plain numpy takes ten times
as long for a track. The first call on a machine compiles for seconds, so import this module only where it is called.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., object])
Floats = NDArray[np.float64]


class LineProblem(NamedTuple):
    """A run of frames, and the bounds that lines along it must keep.

    Attributes:
        keys: shape (n, 4), corners x0 y0 x1 y1 that a keyframe would set.
        boxes: shape (n, 4), the corners to keep.
        size: shape (n, 2), width and height of those, above 0.
        min_iou: shape (n,), the minimum IoU of each row.
        tolerance: shape (2,), allowed error along x and y.
    """

    keys: Floats
    boxes: Floats
    size: Floats
    min_iou: Floats
    tolerance: Floats


_Eight = tuple[float, float, float, float, float, float, float, float]


def _compiled(function: F) -> F:
    compiled = partial(njit, function, nogil=True, error_model="numpy")
    try:
        return cast(F, compiled(cache=True))
    except RuntimeError:  # neither this folder nor the user's cache can be written to
        return cast(F, compiled())


@_compiled
def find_break(problem: LineProblem, start: int, stop: int, first: int, last: int) -> int:
    """Find the last row in `first`..`last` that the line from `start` to `stop` does not keep; -1: all kept."""
    if first > last:
        return -1
    keys, true = problem.keys, problem.boxes
    per = 1.0 / (stop - start)
    a0, a1, a2, a3 = keys[start, 0], keys[start, 1], keys[start, 2], keys[start, 3]
    d0, d1, d2, d3 = keys[stop, 0] - a0, keys[stop, 1] - a1, keys[stop, 2] - a2, keys[stop, 3] - a3
    for row in range(last, first - 1, -1):
        share = (row - start) * per
        x0, y0, x1, y1 = a0 + d0 * share, a1 + d1 * share, a2 + d2 * share, a3 + d3 * share
        u0, v0, u1, v1 = true[row, 0], true[row, 1], true[row, 2], true[row, 3]
        width = (x1 if x1 < u1 else u1) - (x0 if x0 > u0 else u0)
        height = (y1 if y1 < v1 else v1) - (y0 if y0 > v0 else v0)
        common = width * height if width > 0 and height > 0 else 0.0
        union = (x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - common
        if union <= 0 or common < problem.min_iou[row] * union:
            across, along = max(abs(x0 - u0), abs(x1 - u1)), max(abs(y0 - v0), abs(y1 - v1))
            if not ((across <= problem.tolerance[0] and along <= problem.tolerance[1]) or (across == 0 and along == 0)):
                return row
    return -1


@_compiled
def keeps(problem: LineProblem, start: int, stop: int) -> bool:
    """Whether the line from `start` to `stop` keeps all rows in between."""
    return find_break(problem, start, stop, start + 1, stop - 1) < 0


@_compiled
def greedy_path(problem: LineProblem, start: int) -> list[int]:
    """Few rows from `start` to the last one. Each is found from the one before, by doubling and bisection."""
    last, path = len(problem.keys) - 1, [start]
    while path[-1] < last:
        start, step = path[-1], 2
        good, bad = start + 1, last + 1
        while good < last and bad > last:
            stop = min(start + step, last)
            if keeps(problem, start, stop):
                good = stop
            else:
                bad = stop
            step *= 2
        while bad - good > 1:
            middle = (good + bad) // 2
            if keeps(problem, start, middle):
                good = middle
            else:
                bad = middle
        path.append(good)
    return path


@_compiled
def shortest_path(problem: LineProblem, off: Floats, room: float, max_checks: int) -> list[int]:
    """The fewest rows from the first to the last; only the first part of them if that takes more than `max_checks`.

    A breadth-first search. A cone first limits the lines that start at a row: divide the errors of the four edges by
    the size of the true box. IoU >= bound implies that their absolute values add up to at most 1 / bound - 1. So each
    of the eight signed sums (up to a common sign) is linear along a line and within that limit at every true box. This
    limits its slope to an interval, which narrows with every row; the search from this row ends when it is empty. Every
    valid line lies inside the cone, and nearly all lines inside are valid.

    Args:
        off: shape (n,), the maximum sum of the errors of each row's edges, as a share of its box.
        room: allowance for rounding errors, as a share of the smallest box.
        max_checks: the maximum number of lines, and of rows on them, to check.
    """
    keys, true, size = problem.keys, problem.boxes, problem.size
    last, checks = len(keys) - 1, 0
    previous = np.full(last + 1, -1)  # by row, the one from which it was reached
    previous[0] = 0
    rows, count, found = np.zeros(last + 1, np.int64), 1, np.empty(last + 1, np.int64)
    while previous[last] < 0 and checks <= max_checks:
        reached = 0
        for place in range(count - 1, -1, -1):
            start = rows[place]
            origin = keys[start, 0], keys[start, 1], keys[start, 2], keys[start, 3]
            across, along = 1 / size[start, 0], 1 / size[start, 1]
            lows, highs, last_break = _LOWEST, _HIGHEST, -1
            for row in range(start + 1, last + 1):
                checks += 1
                per = 1 / (row - start)
                x, y = across * per, along * per
                if previous[row] < 0:
                    slopes = _slopes(keys[row], origin, x, y)
                    # The row that broke the last line usually breaks this one too.
                    if (_ordered(lows, slopes) and _ordered(slopes, highs)) and (
                        last_break < 0 or find_break(problem, start, row, last_break, last_break) < 0
                    ):
                        last_break = find_break(problem, start, row, start + 1, row - 1)
                        checks += row - max(last_break, start)
                        if last_break < 0:
                            previous[row] = start
                            found[reached] = row
                            reached += 1
                slopes = _slopes(true[row], origin, x, y)
                limit = off[row] * max(size[row, 0] * x, size[row, 1] * y) + room * per
                lows, highs = _raised(lows, slopes, limit), _lowered(highs, slopes, limit)
                if checks > max_checks or not _ordered(lows, highs):
                    break
            if previous[last] >= 0 or checks > max_checks:
                break
        found[:reached].sort()
        rows, found, count = found, rows, reached
    path = [last]
    while previous[path[0]] < 0:
        path[0] -= 1
    while path[-1] > 0:
        path.append(previous[path[-1]])
    return path[::-1]


_LOWEST, _HIGHEST = (-np.inf,) * 8, (np.inf,) * 8


@_compiled
def _slopes(row: Floats, origin: tuple[float, float, float, float], across: float, along: float) -> _Eight:
    left, right = (row[0] - origin[0]) * across, (row[2] - origin[2]) * across
    upper, lower = (row[1] - origin[1]) * along, (row[3] - origin[3]) * along
    a, b, c, d = left + right, left - right, upper + lower, upper - lower
    return a + c, a - c, a + d, a - d, b + c, b - c, b + d, b - d


@_compiled
def _raised(a: _Eight, b: _Eight, off: float) -> _Eight:
    low = max(a[0], b[0] - off), max(a[1], b[1] - off), max(a[2], b[2] - off), max(a[3], b[3] - off)
    return *low, max(a[4], b[4] - off), max(a[5], b[5] - off), max(a[6], b[6] - off), max(a[7], b[7] - off)


@_compiled
def _lowered(a: _Eight, b: _Eight, off: float) -> _Eight:
    high = min(a[0], b[0] + off), min(a[1], b[1] + off), min(a[2], b[2] + off), min(a[3], b[3] + off)
    return *high, min(a[4], b[4] + off), min(a[5], b[5] + off), min(a[6], b[6] + off), min(a[7], b[7] + off)


@_compiled
def _ordered(a: _Eight, b: _Eight) -> bool:
    first = a[0] <= b[0] and a[1] <= b[1] and a[2] <= b[2] and a[3] <= b[3]
    return first and a[4] <= b[4] and a[5] <= b[5] and a[6] <= b[6] and a[7] <= b[7]
