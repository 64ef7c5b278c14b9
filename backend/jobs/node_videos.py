"""The videos on a node of a cluster: each comes once, for all workers of the node, and the oldest give way."""

import hashlib
import os
import queue
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from backend.errors import MediaError
from backend.jobs.carried import VideoFile, VideoPart

_PART_SECONDS = 60.0
"""How long to wait for the next part of a video."""


class NodeVideos:
    """A folder that the workers of a node share. One thread of a worker calls `fetch`, another `add`.

    Args:
        folder: of this machine.
        max_bytes: the files that were not used for longest are deleted beyond this, but for the newest.
        ask: asks the server for a video, whose parts `add` gets.
    """

    def __init__(self, folder: Path, max_bytes: int, ask: Callable[[VideoFile], None]) -> None:
        self._folder, self._max_bytes, self._ask = folder, max_bytes, ask
        self._parts: queue.Queue[VideoPart] = queue.Queue()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def fetch(self, video: VideoFile) -> Path:
        """Where a video lies on this machine; it comes first if it does not.

        Raises:
            MediaError: it does not come whole, or there is no room for it.
        """
        if video.is_here:
            return video.path
        name = hashlib.sha256(repr(video).encode()).hexdigest()[:32]
        path = self._folder / f"{name}{video.path.suffix}"
        with FileLock(self._folder / f"{name}.lock"):  # another worker of this node may be fetching it
            if path.exists():
                os.utime(path)
            else:
                self._receive(video, path)
                self._prune(path)
        return path

    def add(self, part: VideoPart) -> None:
        """Take a part of a video."""
        self._parts.put(part)

    def _receive(self, video: VideoFile, path: Path) -> None:
        whole, got = path.with_suffix(".coming"), 0
        self._ask(video)
        try:
            with whole.open("wb") as file:
                while (part := self._next_part(video)).content:
                    got += file.write(part.content)
            if got != video.size:
                raise MediaError("the video did not come whole to the node: ask once more")
            whole.replace(path)
        except OSError as error:
            raise MediaError(f"the node cannot store the video ({error.strerror}): make room in its folder") from error
        finally:
            whole.unlink(missing_ok=True)

    def _next_part(self, video: VideoFile) -> VideoPart:
        while True:
            try:
                part = self._parts.get(timeout=_PART_SECONDS)
            except queue.Empty:
                raise MediaError("the video does not come to the node: see the server log") from None
            if part.error:
                raise part.error
            if part.video == video:  # else it is left of one that was given up
                return part

    def _prune(self, newest: Path) -> None:
        files = []
        for path in self._folder.iterdir():
            with suppress(OSError):
                if path.suffix not in (".lock", ".coming"):
                    files.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        surplus = sum(size for _, size, _ in files) - self._max_bytes
        for _, size, path in sorted(files):
            if surplus > 0 and path != newest:
                path.unlink(missing_ok=True)
                surplus -= size
