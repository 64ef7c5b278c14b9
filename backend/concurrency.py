"""How many may ask for pictures at once: each may have to fetch its video first."""

import threading

from backend.errors import Busy


class ConcurrencyLimit:
    """Lets so many in at a time, and sends the others away.

    with gate: ...

    Raises:
        Busy: too many are in.
    """

    def __init__(self, limit: int) -> None:
        self._slots = threading.Semaphore(limit)

    def __enter__(self) -> None:
        if not self._slots.acquire(blocking=False):
            raise Busy("too many pictures are asked for at once: ask again in a little while", retry_after=2)

    def __exit__(self, *_: object) -> None:
        self._slots.release()
