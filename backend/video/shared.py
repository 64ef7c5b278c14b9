"""A video that is held open for who looks into it again and again: opening one reads its whole index."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.video.index import VideoLimits
from backend.video.reader import Video


class Held:
    """One file at a time, and one look at a time."""

    def __init__(self, limits: VideoLimits) -> None:
        self._limits = limits
        self._looking = threading.Lock()
        self._held: tuple[Path, Video] | None = None

    @contextmanager
    def open(self, path: Path) -> Iterator[Video]:
        """The video of a file; it stays open.

        Raises:
            BadVideo: the file holds none.
        """
        with self._looking:
            if self._held is None or self._held[0] != path:
                self._close()
                self._held = path, Video(path, self._limits)
            yield self._held[1]

    def close(self) -> None:
        """Close it."""
        with self._looking:
            self._close()

    def _close(self) -> None:
        if self._held:
            self._held[1].close()
            self._held = None
