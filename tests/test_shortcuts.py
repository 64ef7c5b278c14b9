import subprocess
import sys

import numpy as np
import pytest

from backend.shortcuts import breaks, shortest

_READ_ONLY = """
import numba.core.caching as caching

def refuse(self):
    raise OSError("a folder that cannot be written to")

for name, kind in vars(caching).items():
    if name.endswith("Locator") and hasattr(kind, "ensure_cache_path"):
        kind.ensure_cache_path = refuse
from backend import keyframes
keyframes.warm()
"""


def bend(count: int = 9) -> tuple[np.ndarray, ...]:
    """A box that goes right and, from the middle on, down: keys, true, least, edge."""
    boxes = np.tile([0.0, 0, 10, 10], (count, 1))
    boxes += np.minimum(np.arange(count), count // 2)[:, None] * [3, 0, 3, 0]
    boxes += np.maximum(np.arange(count) - count // 2, 0)[:, None] * [0, 3, 0, 3]
    return boxes, boxes, np.full(count, 0.9), np.zeros(2)


def test_the_last_row_that_a_line_does_not_keep_is_told() -> None:
    assert breaks(*bend(), 0, 4, 1, 3) == -1
    assert breaks(*bend(), 0, 8, 1, 7) == 7
    assert breaks(*bend(), 0, 8, 1, 4) == 4
    keys, true, least, _ = bend()
    assert breaks(keys, true, least, np.full(2, 6.1), 0, 8, 1, 7) == -1


def test_the_way_goes_over_the_bend() -> None:
    off = np.full(9, 1 / 0.9 - 1)
    assert shortest(*bend(), off, 1e-9, 1000) == [0, 4, 8]


def test_where_it_takes_too_long_a_part_of_the_way_is_told() -> None:
    off = np.full(9, 1 / 0.9 - 1)
    assert shortest(*bend(), off, 1e-9, 0) == [0, 4]


@pytest.mark.slow
def test_without_a_place_to_keep_what_is_compiled_it_is_compiled_each_time() -> None:
    done = subprocess.run([sys.executable, "-c", _READ_ONLY], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
