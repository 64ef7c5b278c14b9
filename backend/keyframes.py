"""Which frames of a track become keyframes: few enough to correct by hand, all others within a bound."""

import numpy as np

from backend.geometry import Boxes, iou


def thin(boxes: Boxes, bound: float) -> list[int]:
    """Choose keyframes so that linear interpolation between them keeps every box.

    The first and the last row are always chosen; from each chosen row the next one is sought by doubling and bisection,
    and every choice is checked on all the rows that it skips. (Not the minimum: a run that would hold again further on
    is not looked for.)

    Args:
        boxes: shape (n, 4), one object on n consecutive frames, no NaN, in any unit that is linear per axis.
        bound: the least IoU of an interpolated box with the true one, 0..1.

    Returns:
        Sorted row numbers.
    """
    last = len(boxes) - 1
    chosen = [0] if last >= 0 else []
    while chosen and chosen[-1] < last:
        start = chosen[-1]
        good, step = start + 1, 2
        while start + step <= last and _holds(boxes, start, start + step, bound):
            good, step = start + step, step * 2
        bad = min(start + step, last + 1)
        while bad - good > 1:
            middle = (good + bad) // 2
            if _holds(boxes, start, middle, bound):
                good = middle
            else:
                bad = middle
        chosen.append(good)
    return chosen


def _holds(boxes: Boxes, start: int, stop: int, bound: float) -> bool:
    share = np.arange(1, stop - start)[:, None] / (stop - start)
    between = boxes[start] + (boxes[stop] - boxes[start]) * share
    return bool((iou(between, boxes[start + 1 : stop]) >= bound).all())
