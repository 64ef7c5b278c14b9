"""The videos on a node of a cluster: each comes once, for all workers of the node, and the oldest give way."""

import fcntl
import hashlib
import os
import queue
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from backend.errors import BadVideo, MediaError
from backend.jobs.carried import VideoFile, VideoPart
from backend.labelstudio.disk import is_free, touch
from backend.video.reader import hold_file

_PART_SECONDS = 60.0
"""How long to wait for the next part of a video."""
_MAX_PARTS = 4
"""How many parts wait to be written: a slow disk holds up the server, and fills no memory."""


class NodeVideos:
    """A folder that the workers of a node share. One thread of a worker calls `fetch`, another `add`.

    Args:
        folder: of this machine.
        max_bytes: the files that were not used for longest are deleted beyond this, but for those in use.
        ask: asks the server for a video, whose parts `add` gets.
    """

    def __init__(self, folder: Path, max_bytes: int, ask: Callable[[VideoFile], None]) -> None:
        self._folder, self._max_bytes, self._ask = folder, max_bytes, ask
        self._parts: queue.Queue[VideoPart] = queue.Queue(_MAX_PARTS)
        self._wanted: VideoFile | None = None
        self._held: int | None = None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def fetch(self, video: VideoFile) -> Path:
        """Where a video lies on this machine; it comes first if it does not. It is in use until the next call.

        Raises:
            MediaError: it does not come whole, or there is no room for it.
        """
        if video.is_here:
            return video.path
        name = hashlib.sha256(repr(video).encode()).hexdigest()[:32]
        path = self._folder / f"{name}{video.path.suffix}"
        with FileLock(self._folder / f"{name}.lock"):  # another worker of this node may be fetching it
            with suppress(OSError):
                touch(path)
            if not self._hold(path):
                self._receive(video, path)
        self._prune()
        return path

    def add(self, part: VideoPart) -> None:
        """Take a part of a video; this waits while the disk is slow. Those of one that was given up are dropped."""
        while part.video == self._wanted:
            with suppress(queue.Full):
                self._parts.put(part, timeout=0.1)
                return

    def _hold(self, path: Path) -> bool:
        """Keep a file while it may be in use, instead of the last one; a video that is open holds its file, too.

        Returns:
            False: there is no such file.
        """
        before, self._held = self._held, None
        if before is not None:
            os.close(before)
        with suppress(BadVideo):
            self._held = hold_file(path)
        return path.exists()

    def _receive(self, video: VideoFile, path: Path) -> None:
        part_path, got = path.with_name(f"{path.stem}-{os.getpid()}.coming"), 0
        self._wanted = video
        self._ask(video)
        try:
            with _create_held(part_path) as file:
                while (part := self._next_part(video)).content:
                    got += file.write(part.content)
                if got != video.size:
                    raise MediaError("the video did not come whole to the node: ask once more")
                file.flush()
                part_path.replace(path)
                fcntl.flock(file, fcntl.LOCK_SH)
                self._hold(path)
        except OSError as error:
            raise MediaError(f"the node cannot store the video ({error.strerror}): make room in its folder") from error
        finally:
            self._wanted = None
            part_path.unlink(missing_ok=True)

    def _next_part(self, video: VideoFile) -> VideoPart:
        while True:
            try:
                part = self._parts.get(timeout=_PART_SECONDS)
            except queue.Empty:
                raise MediaError("the video does not come to the node: see the server log") from None
            if part.video != video:  # it is left of one that was given up
                continue
            if part.error:
                raise part.error
            return part

    def _prune(self) -> None:
        files = []
        for path in self._folder.iterdir():
            with suppress(OSError):
                if path.suffix == ".coming":
                    if is_free(path):
                        path.unlink()
                elif path.suffix != ".lock":
                    files.append((path.stat().st_atime_ns, path.stat().st_size, path))
        surplus = sum(size for _, size, _ in files) - self._max_bytes
        for _, size, path in sorted(files):
            if surplus > 0 and is_free(path):
                path.unlink(missing_ok=True)
                path.with_suffix(".lock").unlink(missing_ok=True)
                surplus -= size


def _create_held(path: Path) -> BinaryIO:
    """Create a file and hold it, so that nobody takes it for what a killed worker has left."""
    while True:
        file = path.open("wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():  # else another worker has deleted it before it was held
            return file
        file.close()
