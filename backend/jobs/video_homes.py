"""Which worker has which video: what it made of the frames is in its cache."""

import threading
from collections import OrderedDict
from pathlib import Path

_MAX_VIDEOS = 1024
"""How many videos are remembered; no cache holds more."""


class VideoHomes:
    """The worker that used a video last, by the video's file; any thread may ask.

    No other lock is taken under its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._homes: OrderedDict[Path, int] = OrderedDict()

    def get(self, path: Path | None) -> int | None:
        """The number of the worker that has a video; None: none has."""
        with self._lock:
            return self._homes.get(path) if path else None

    def put(self, path: Path, number: int) -> None:
        """A worker uses a video."""
        with self._lock:
            self._homes[path] = number
            self._homes.move_to_end(path)
            if len(self._homes) > _MAX_VIDEOS:
                self._homes.popitem(last=False)

    def forget(self, number: int) -> None:
        """A worker has ended, and its cache with it."""
        with self._lock:
            for path in [path for path, home in self._homes.items() if home == number]:
                del self._homes[path]
