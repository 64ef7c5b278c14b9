"""Keeps the folder of downloaded files within its size, and some of the disk free."""

import fcntl
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from backend.errors import DiskFull, MediaError
from backend.video import index_path

_USED_JUST_NOW = 60.0
"""Seconds after its last use for which a file is kept in any case: it may be about to be opened."""
_LOOK_EVERY = 16 << 20
"""Bytes after which the disk is looked at again."""


def touch(path: Path) -> None:
    """Record that a file is used now. Its time of change stays, which tells what it contains."""
    state = path.stat()
    os.utime(path, ns=(time.time_ns(), state.st_mtime_ns))


class Disk:
    """The room for downloaded files; the files that were not used for longest are removed to make some.

    Args:
        folder: of the files.
        max_bytes: of all of them.
        reserve: bytes of the disk that are left free.
    """

    def __init__(self, folder: Path, max_bytes: int = sys.maxsize, reserve: int = 0) -> None:
        self._folder, self._max_bytes, self._reserve = folder, max_bytes, reserve
        self._lock = threading.Lock()
        self._remove_stale()

    def new_file(self) -> Callable[[int], None]:
        """A function to call before so many bytes are written to a new file.

        It raises DiskFull if there is no room for them and none can be made.
        """
        unlooked = 0

        def make_room(size: int) -> None:
            nonlocal unlooked
            unlooked -= size
            if unlooked <= 0:
                unlooked = _LOOK_EVERY
                self._make_room(size)

        return make_room

    def _make_room(self, size: int) -> None:
        if size > self._max_bytes:
            raise MediaError("the video is larger than all videos together may be: raise limits.media")
        with self._lock:
            self._remove_oldest(size)

    def _remove_oldest(self, size: int) -> None:
        files = [(found.st_atime, found.st_size, path) for path, found in self._files()]
        total, free = sum(count for _, count, _ in files), shutil.disk_usage(self._folder).free
        for used, count, path in sorted(files):
            if total + size <= self._max_bytes and free - size >= self._reserve:
                return
            is_video = path.suffix not in (".part", ".json", ".index")
            if is_video and used < time.time() - _USED_JUST_NOW and is_free(path):
                path.unlink(missing_ok=True)
                index_path(path).unlink(missing_ok=True)
                total, free = total - count, free + count
        if total + size > self._max_bytes:
            raise DiskFull(
                "the videos that are in use fill data_dir up to limits.media: raise it, or try again when their "
                "jobs have ended"
            )
        if free - size < self._reserve:
            raise DiskFull("the disk of data_dir is full up to limits.reserve: free some space. Jobs continue then")

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # another process removed it
                yield path, path.stat()

    def _remove_stale(self) -> None:
        """Remove what downloads of a killed process left."""
        if self._folder.is_dir():
            for path in self._folder.glob("*.part"):
                if is_free(path):
                    path.unlink(missing_ok=True)


def is_free(path: Path) -> bool:
    """Whether no process holds a file."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
