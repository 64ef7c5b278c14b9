"""A dictionary that keeps only its newest values."""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class RecentValues(Generic[V]):
    """The newest values by key; thread-safe.

    Args:
        capacity: how many values are kept.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._values: OrderedDict[Hashable, V] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, key: Hashable, value: V) -> None:
        """Store a value, and drop the oldest one if there are too many."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            if len(self._values) > self._capacity:
                self._values.popitem(last=False)

    def get(self, key: Hashable) -> V | None:
        """The value, or None if it is not stored."""
        with self._lock:
            return self._values.get(key)

    def pop(self, key: Hashable) -> None:
        """Drop a value, if it is stored."""
        with self._lock:
            self._values.pop(key, None)

    def items(self) -> list[tuple[Hashable, V]]:
        """All values with their keys, the oldest first."""
        with self._lock:
            return list(self._values.items())
