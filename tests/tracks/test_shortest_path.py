import subprocess
import sys

import numpy as np
import pytest

from backend.tracks._shortest_path import LineProblem, find_break, greedy_path, shortest_path

_READ_ONLY = """
import numba.core.caching as caching

def refuse(self):
    raise OSError("a folder that cannot be written to")

for name, kind in vars(caching).items():
    if name.endswith("Locator") and hasattr(kind, "ensure_cache_path"):
        kind.ensure_cache_path = refuse
from backend.tracks import keyframe_selection
keyframe_selection.compile_selection()
"""


def bend(edge: float = 0) -> LineProblem:
    """A box of nine frames that goes right and, from the middle on, down."""
    rows = np.arange(9)[:, None]
    boxes = [0, 0, 10, 10] + np.minimum(rows, 4) * [3, 0, 3, 0] + np.maximum(rows - 4, 0) * [0.0, 3, 0, 3]
    return LineProblem(boxes, boxes, np.full((9, 2), 10.0), np.full(9, 0.9), np.full(2, edge))


def test_the_last_row_that_a_line_does_not_keep_is_told() -> None:
    assert find_break(bend(), 0, 4, 1, 3) == -1
    assert find_break(bend(), 0, 8, 1, 7) == 7
    assert find_break(bend(), 0, 8, 1, 4) == 4
    assert find_break(bend(edge=6.1), 0, 8, 1, 7) == -1


def test_the_way_goes_over_the_bend() -> None:
    assert shortest_path(bend(), np.full(9, 1 / 0.9 - 1), 1e-9, 1000) == [0, 4, 8]


def test_where_it_takes_too_long_a_part_of_the_way_is_told() -> None:
    assert shortest_path(bend(), np.full(9, 1 / 0.9 - 1), 1e-9, 9) == [0, 4]


def test_few_are_sought_in_no_time() -> None:
    assert greedy_path(bend(), 0) == [0, 4, 8]
    assert greedy_path(bend(), 6) == [6, 8]
    assert greedy_path(bend(), 8) == [8]


@pytest.mark.slow
def test_without_a_place_to_keep_what_is_compiled_it_is_compiled_each_time() -> None:
    done = subprocess.run([sys.executable, "-c", _READ_ONLY], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
