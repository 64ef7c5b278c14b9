"""So many at once, and no more."""

import pytest

from backend.concurrency import ConcurrencyLimit
from backend.errors import Busy


def test_it_lets_so_many_in_and_in_again_when_they_are_out() -> None:
    gate = ConcurrencyLimit(2)
    with gate, gate, pytest.raises(Busy, match="too many pictures"), gate:
        pass
    with gate, gate:
        pass
