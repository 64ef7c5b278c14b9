"""Which frames of a track become keyframes: the fewest that keep every other frame within a bound.

Two frames are joined where interpolating between them keeps all frames between; the answer is a shortest path from the
first frame to the last (Imai and Iri 1988). What joins whom is first bounded by cones of slopes (`_followers`), which
leave out no pair that holds; then shortest paths are checked in full, and the pairs that break are taken out, until a
path holds. So it is the minimum, however long its segments are. Time grows as frames x frames in a typical segment.
Where that is more than `_MOST`, as on thousands of frames that hardly bend, few by a quick way are taken where they are
few enough (`_FEW`); else the track is halved, and each half has its minimum.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from backend.geometry import Boxes, iou

Tolerance = float | tuple[float, float]
"""How far every edge may be off where the IoU is below the bound: along x and y, in the unit of the boxes."""

_Rows = NDArray[np.int64]
_Singles = NDArray[np.float32]

_ROWS = 4096
"""Rows that are scanned together."""
_CELLS = 4096
"""Pairs that are looked at together: few enough for the cache."""
_MOST = 2**22
"""Pairs that are looked at for a minimum: half a second."""
_FEW = 500
"""Frames for each keyframe, from which on there are few of them, minimum or not."""
_CHECKS = 8192
"""Frames that are checked together."""
_STRETCH = 128
"""Keyframes after which a path is checked before it goes on."""


def thin(boxes: Boxes, bound: float, px: Tolerance = 0.0, always: Iterable[int] = ()) -> list[int]:
    """Choose the fewest keyframes with which linear interpolation keeps every box.

    A box is kept if its IoU with the interpolated one is at least `bound`, or every edge is within `px`. What is too
    close to tell in floating point counts as not kept.

    Args:
        boxes: shape (n, 4), one object on n consecutive frames, no NaN, in any unit that is linear per axis.
        bound: 0..1; at 1 only boxes that stay to the digit are left out.
        px: 0 for the IoU alone.
        always: rows that are keyframes in any case.

    Returns:
        Sorted row numbers: the first, the last, `always`, and as few others as can be.
    """
    if not len(boxes):
        return []
    chosen = [0]
    for start, stop in pairwise(sorted({0, len(boxes) - 1, *always})):
        chosen += [start + row for row in _fewest(_Rule(boxes[start : stop + 1], bound, px))[1:]]
    return chosen


def thin_to(boxes: Boxes, count: int, px: Tolerance = 0.0, always: Iterable[int] = ()) -> tuple[list[int], float]:
    """Choose at most `count` keyframes so that the bound is the highest, to 1/4096.

    Args:
        count: the first and the last row and `always` are chosen even where they are more.
        boxes, px, always: as for `thin`.

    Returns:
        The rows, and the bound that they keep (1 where nothing is below it but what is within `px`).
    """
    always = list(always)
    if count >= len(boxes):
        return list(range(len(boxes))), 1.0
    best = sorted({0, len(boxes) - 1, *always})
    low, high, step = 0, 4097, 1
    while high - low > 1:
        # Downwards in growing steps first: a low bound takes longer.
        middle = max(high - step, (low + high) // 2)
        chosen = thin(boxes, middle / 4096, px, always)
        if len(chosen) <= count:
            best, low = chosen, middle
        else:
            high, step = middle, step * 2
    return best, kept_bound(boxes, best, px)


def kept_bound(boxes: Boxes, chosen: Sequence[int], px: Tolerance = 0.0) -> float:
    """The least IoU of an interpolated box with the true one, of those that are not within `px`; 1 where all are."""
    if not len(boxes):
        return 1.0
    rows = np.arange(len(boxes))
    shown = np.stack([np.interp(rows, chosen, boxes[chosen, axis]) for axis in range(4)], axis=1)
    is_off = (np.abs(shown - boxes) > np.tile(np.broadcast_to(px, 2), 2)).any(axis=1)
    return float(iou(shown[is_off], boxes[is_off]).min(initial=1.0))


class _Rule:
    """When an interpolated box may stand for the true one."""

    def __init__(self, boxes: Boxes, bound: float, px: Tolerance) -> None:
        size = boxes[:, 2:] - boxes[:, :2]
        farthest = np.abs(boxes).max()
        self.boxes, self.bound, self.px = boxes, bound, px if isinstance(px, tuple) else (px, px)
        self.area, self.size = size.prod(axis=1), np.maximum(size, 1e-12)
        # Whoever reads the rule in another order of additions may not find a frame below it.
        self._least = (
            bound + 1e-9 + 2.0**-46 * farthest / self.size.min(axis=1) if bound > 0 else np.full(len(boxes), -1)
        )
        self._edge = np.array(self.px)[:, None] - 2.0**-46 * farthest
        self._columns = np.ascontiguousarray(boxes.T)

    def margins(self, i: _Rows, j: _Rows, k: _Rows) -> NDArray[np.float64]:
        """How well interpolating between rows i and j keeps row k: 0 or more where it does; shapes (m,)."""
        margins = np.empty(len(k))
        for first in range(0, len(k), _CHECKS):
            part = slice(first, first + _CHECKS)
            margins[part] = self._margins(i[part], j[part], k[part])
        return margins

    def _margins(self, i: _Rows, j: _Rows, k: _Rows) -> NDArray[np.float64]:
        start, between, true = (self._columns.take(rows, axis=1) for rows in (i, j, k))
        between -= start
        between *= (k - i) / (j - i)
        between += start
        sides = np.minimum(between[2:], true[2:])
        sides -= np.maximum(between[:2], true[:2])
        np.maximum(sides, 0, out=sides)
        common = sides[0] * sides[1]
        union = (between[2] - between[0]) * (between[3] - between[1])
        union += self.area.take(k)
        union -= common
        margins = common - self._least.take(k) * union
        low = np.flatnonzero((margins < 0) | (union <= 0))
        if low.size:
            off = np.abs(between.take(low, axis=1) - true.take(low, axis=1))
            near = (np.maximum(off[:2], off[2:]) <= self._edge).all(axis=0) | (off == 0).all(axis=0)
            margins[low] = np.where(near, 0.0, np.minimum(margins[low], -1e-300))
        return np.asarray(margins)

    def spans(self, i: _Rows, j: _Rows) -> tuple[_Rows, NDArray[np.float64], _Rows]:
        """All rows between each pair i and j, one pair after the other, their margins, and where each pair begins."""
        counts = j - i - 1
        starts = np.cumsum(counts) - counts
        k = np.arange(counts.sum()) + np.repeat(i + 1 - starts, counts)
        return k, self.margins(np.repeat(i, counts), np.repeat(j, counts), k), starts

    def breaks(self, edges: Sequence[tuple[int, int]]) -> list[int]:
        """For each pair of rows, the row between that is kept worst; -1 where all are kept."""
        k, margins, starts = self.spans(*np.array(edges).T)
        worst = [-1] * len(edges)
        for edge in np.flatnonzero(np.minimum.reduceat(margins, starts) < 0).tolist():
            start, (i, j) = starts[edge], edges[edge]
            worst[edge] = int(k[start + margins[start : start + j - i - 1].argmin()])
        return worst


def _fewest(rule: _Rule) -> list[int]:
    """The fewest rows from the first to the last."""
    last = len(rule.boxes) - 1
    if last < 2:
        return list(range(last + 1))
    if rule.breaks([(0, last)]) == [-1]:
        return [0, last]
    follow = _followers(rule)
    if follow is None:
        few, half = _few(rule), last // 2
        if len(few) * _FEW <= last:
            return few
        parts = rule.boxes[: half + 1], rule.boxes[half:]
        before, after = (_fewest(_Rule(part, rule.bound, rule.px)) for part in parts)
        return [*before, *(half + row for row in after[1:])]
    search = _Search(follow)
    proven: set[tuple[int, int]] = set()
    way = [0]
    while way[-1] < last:
        count = len(way) + _STRETCH
        while True:
            trial = search.path(count, way)
            edges = [edge for edge in pairwise(trial) if edge[1] - edge[0] > 1 and edge not in proven]
            worst = rule.breaks(edges) if edges else []
            bad = [(i, j, k) for (i, j), k in zip(edges, worst, strict=True) if k >= 0]
            proven.update(edge for edge, k in zip(edges, worst, strict=True) if k < 0)
            if not bad:
                way = trial
                break
            search.restart(_cut(rule, follow, bad))
    return way


def _few(rule: _Rule) -> list[int]:
    """Few rows from the first to the last: from each the next is sought by doubling and bisection, in little time."""
    last, way = len(rule.boxes) - 1, [0]
    while way[-1] < last:
        start = way[-1]
        good, bad, step = start + 1, last + 1, 2
        while good < last and bad > last:
            stop = min(start + step, last)
            good, bad, step = (stop, bad, step * 2) if rule.breaks([(start, stop)]) == [-1] else (good, stop, step)
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if rule.breaks([(start, middle)]) == [-1] else (good, middle)
        way.append(good)
    return way


class _Search:
    """Breadth first, rows by the number of keyframes before them; what is known is kept where edges are taken out."""

    def __init__(self, follow: list[int]) -> None:
        self._follow = follow
        self._levels: list[list[int]] = [[0]]
        # After each level: a row before which all are reached, and as bits from it on which are.
        self._reached = [(0, 1)]

    def path(self, count: int, way: list[int]) -> list[int]:
        """A shortest path of `count` rows, or of fewer to the last row; as far as it can, the same as `way`."""
        follow, levels, last = self._follow, self._levels, len(self._follow) - 1
        while len(levels) < count and levels[-1][-1] < last:
            self._widen()
        level, row = len(levels) - 1, levels[-1][-1]
        tail = [row]
        while level and not (level < len(way) and way[level] == row):
            level -= 1
            row = next(i for i in reversed(levels[level]) if i < row and follow[i] >> (row - i) & 1)
            tail.append(row)
        return [*way[:level], *reversed(tail)]

    def restart(self, row: int) -> None:
        """Forget what was found through `row` and the rows behind it."""
        level = next((level for level, rows in enumerate(self._levels) if rows[-1] >= row), len(self._levels))
        del self._levels[level + 1 :], self._reached[level + 1 :]

    def _widen(self) -> None:
        base, seen = self._reached[-1]
        reach = seen
        for row in self._levels[-1]:
            reach |= self._follow[row] << (row - base) if row >= base else self._follow[row] >> (base - row)
        new = reach ^ seen
        zeros = (new & -new).bit_length() - 1
        self._levels.append([row for row, bit in enumerate(bin(new >> zeros)[:1:-1], base + zeros) if bit == "1"])
        full = max((~reach & (reach + 1)).bit_length() - 2, 0)
        self._reached.append((base + full, reach >> full))


def _cut(rule: _Rule, follow: list[int], bad: list[tuple[int, int, int]]) -> int:
    """Take out edges i to j that break at k, and others across the same k that do; returns the first row of them."""
    rows, frames, masks = [], [], []
    for i, j, k in bad:
        follow[i] &= ~(1 << (j - i))
        for row in range(max(0, k - 2 * (j - i)), k):
            if mask := follow[row] >> (k - row + 1):
                rows.append(row)
                frames.append(k)
                masks.append(mask)
    first = min(i for i, _, _ in bad)
    if not masks:
        return first
    size = max(mask.bit_length() for mask in masks) + 7 >> 3
    packed = np.frombuffer(b"".join([mask.to_bytes(size, "little") for mask in masks]), np.uint8)
    at, beyond = np.divmod(np.flatnonzero(np.unpackbits(packed, bitorder="little")), size * 8)
    start, over = np.array(rows)[at], np.array(frames)[at]
    stop = over + 1 + beyond
    is_broken = rule.margins(start, stop, over) < 0
    for i, j in zip(start[is_broken].tolist(), stop[is_broken].tolist(), strict=True):
        follow[i] &= ~(1 << (j - i))
    return min(first, int(start[is_broken].min(initial=first)))


def _followers(rule: _Rule) -> list[int] | None:
    """For each row i the rows that may come next: bit d stands for i + d. All that hold are among them.

    With the deviations of the four edges as shares of the true box, IoU >= bound implies that their absolute values
    add up to at most 1 / bound - 1. So each of the eight sums with signs (up to a common one) is linear along a
    segment and within that of every true box, and so is its slope from row i; the slopes left are an interval per sum,
    which narrows with every row and, once empty, ends the scan. Single precision, with room for its errors.

    None where it would take too long.
    """
    count, most = len(rule.boxes), min(len(rule.boxes), 64)
    centred = rule.boxes - rule.boxes.mean(axis=0)
    most_off = np.maximum(1 / max(rule.bound, 1e-9) - 1, 2 * (rule.px / rule.size).sum(axis=1)) * (1 + 1e-6) + 1e-6
    rows = np.full((6, count + most), np.nan, np.float32)  # behind the last row nothing compares
    rows[:4, :count], rows[4:, :count] = centred.T, rule.size.T * most_off
    shares = np.vstack([(1 / rule.size).T] * 2).astype(np.float32)
    room = (2.0**-18 * np.abs(centred).max() / rule.size.min(axis=1)).astype(np.float32)
    follow: list[int] = []
    looked = 0
    block = min(_ROWS, max(256, 2**25 // count))
    for first in range(0, count, block):
        own = np.vstack(
            [
                rows[:4, first : min(first + block, count)],
                shares[:, first : first + block],
                room[None, first : first + block],
            ]
        )
        follow += _sifted(rule, first, _scan(rows, own, first, most))
        looked += sum(mask.bit_length() for mask in follow[first:])
        if looked * count > _MOST * len(follow) and len(follow) < count:
            return None
    return follow


def _sifted(rule: _Rule, first: int, follow: list[int]) -> list[int]:
    """The followers of the rows from `first` on that hold, where checking all is little work; else as they are."""
    if max(follow) >> 64:
        return follow
    bits = np.unpackbits(np.array(follow, "<u8").view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    starts, distances = np.nonzero(bits[:, 2:])
    if not starts.size or distances.sum() > 30 * len(follow):
        return follow
    _, margins, places = rule.spans(first + starts, first + starts + distances + 2)
    is_broken = np.minimum.reduceat(margins, places) < 0
    bits[starts[is_broken], distances[is_broken] + 2] = 0
    left: list[int] = np.packbits(bits, axis=1, bitorder="little").view("<u8")[:, 0].tolist()
    return left


def _scan(rows: _Singles, own: _Singles, first: int, most: int) -> list[int]:
    """`_followers` of the rows from `first` on.

    Args:
        rows: shape (6, n + most): corners, and how far off width and height may be; NaN from n on.
        own: shape (9, m): of the m rows corners, 1 / (w, h, w, h), and room for errors.
        most: how many distances are looked at together, at most.
    """
    last, width = rows.shape[1] - most - 1, own.shape[1]
    starts, own = np.arange(first, first + width), own[:, None]
    low, high = np.full((8, width), -np.inf, np.float32), np.full((8, width), np.inf, np.float32)
    words, distance = [np.zeros(width, np.uint64)], 1
    while starts.size:
        deep = max(1, min(most, _CELLS // starts.size))
        distances = np.arange(distance, distance + deep)[:, None]
        slopes, off = _slopes(rows, own, starts, distances)
        lows, highs = np.empty((2, deep + 1, 8, starts.size), np.float32)
        lows[0], highs[0] = low, high
        np.subtract(slopes, off, out=lows[1:])
        np.add(slopes, off, out=highs[1:])
        for step in range(deep):
            np.maximum(lows[step], lows[step + 1], out=lows[step + 1])
            np.minimum(highs[step], highs[step + 1], out=highs[step + 1])
        low, high = lows[-1], highs[-1]
        is_inside = np.bitwise_and.reduce((slopes >= lows[:-1]) & (slopes <= highs[:-1]), axis=1)
        places = slice(None) if starts.size == width else starts - first
        for bit, inside in enumerate(is_inside.astype(np.uint64), distance):
            if bit >> 6 == len(words):
                words.append(np.zeros(width, np.uint64))
            words[bit >> 6][places] |= inside << np.uint64(bit & 63)
        distance += deep
        is_ending = starts[-1] + distance > last
        if is_ending or deep > 1 or distance % 4 == 0:
            alive = np.flatnonzero(np.bitwise_and.reduce(low <= high, axis=0))
            if is_ending or alive.size < 0.8 * starts.size:
                starts, own = starts[alive], own.take(alive, axis=2)
                low, high = low.take(alive, axis=1), high.take(alive, axis=1)
    words[0][: last - first] |= np.uint64(2)
    if len(words) == 1:
        follow: list[int] = words[0].tolist()
        return follow
    return [int.from_bytes(row, "little") for row in np.stack(words, axis=1).astype("<u8")]


def _slopes(rows: _Singles, own: _Singles, starts: _Rows, distances: _Rows) -> tuple[_Singles, _Singles]:
    """The eight slopes from each start to the row at each distance, shape (d, 8, m), and how far off they may be."""
    deep, width = len(distances), starts.size
    nearest = starts[0] + distances[0, 0]
    if starts[-1] - starts[0] == width - 1:
        there = np.lib.stride_tricks.sliding_window_view(rows[:, nearest : nearest + width + deep - 1], width, axis=1)
    else:
        there = rows.take(starts + distances, axis=1)
    per = (1 / distances).astype(np.float32)
    moved = there[:4] - own[:4]
    moved *= own[4:8]
    moved *= per
    across, along = np.empty((deep, 2, 1, width), np.float32), np.empty((deep, 1, 2, width), np.float32)
    np.add(moved[0], moved[2], out=across[:, 0, 0])
    np.subtract(moved[0], moved[2], out=across[:, 1, 0])
    np.add(moved[1], moved[3], out=along[:, 0, 0])
    np.subtract(moved[1], moved[3], out=along[:, 0, 1])
    slopes = np.empty((deep, 2, 2, 2, width), np.float32)
    np.add(across, along, out=slopes[:, 0])
    np.subtract(across, along, out=slopes[:, 1])
    off = np.maximum(there[4] * own[4], there[5] * own[5])
    off += own[8]
    off *= per
    return slopes.reshape(deep, 8, width), off[:, None]
