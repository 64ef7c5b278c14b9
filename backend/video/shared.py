"""Keeps one video open between requests, because opening one reads its whole index."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.video.reader import Video


class SharedVideo:
    """One open file, used by one thread at a time."""

    def __init__(self, open_video: Callable[[Path], Video]) -> None:
        self._open_video = open_video
        self._lock = threading.Lock()
        self._current: tuple[Path, Video] | None = None

    @contextmanager
    def open(self, path: Path) -> Iterator[Video]:
        """The video of a file; it stays open until another one is opened.

        Raises:
            BadVideo: the file contains no video.
        """
        with self._lock:
            if self._current is None or self._current[0] != path:
                self._close()
                self._current = path, self._open_video(path)
            yield self._current[1]

    def close(self) -> None:
        """Close the open video."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._current:
            self._current[1].close()
            self._current = None
