"""Limits concurrent requests for pictures, each of which may have to download its video first."""

import threading

from backend.errors import Busy


class ConcurrencyLimit:
    """A context manager that at most `limit` threads enter at a time.

    Raises:
        Busy: the limit is reached.
    """

    def __init__(self, limit: int) -> None:
        self._slots = threading.Semaphore(limit)

    def __enter__(self) -> None:
        if not self._slots.acquire(blocking=False):
            raise Busy("too many pictures are requested at once: try again in a few seconds", retry_after=2)

    def __exit__(self, *_: object) -> None:
        self._slots.release()
