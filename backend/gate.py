"""How many may ask for pictures at once: each may have to fetch its video first."""

import threading

from backend.errors import Busy


class Gate:
    """Lets so many in at a time, and sends the others away.

    with gate: ...

    Raises:
        Busy: too many are in.
    """

    def __init__(self, most: int) -> None:
        self._room = threading.Semaphore(most)

    def __enter__(self) -> None:
        if not self._room.acquire(blocking=False):
            raise Busy("too many pictures are asked for at once: ask again in a little while", retry_after=2)

    def __exit__(self, *_: object) -> None:
        self._room.release()
