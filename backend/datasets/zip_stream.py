"""A dataset as a zip that is sent while it is made: no more than a few pictures are in memory, and nothing on disk."""

import io
import queue
import threading
from collections.abc import Callable, Generator
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from backend.datasets.picture_folder import PathOf
from backend.datasets.plan import PlannedVideo
from backend.datasets.samples import DatasetFile
from backend.errors import BackendError

_WAITING = 4
"""Files that may wait to be sent."""
_LOOK_SECONDS = 0.2
"""How soon a builder that waits notices that nobody reads any more."""
_PICTURES = (".jpg", ".png")


class ZipOutput:
    """Where a `DatasetBuilder` writes a zip, in threads of its own, while `stream` sends it."""

    def __init__(self, path_of: PathOf) -> None:
        self._path_of = path_of
        self._files: queue.Queue[DatasetFile | BaseException | None] = queue.Queue(_WAITING)
        self._closed = threading.Event()

    def missing(self, planned: PlannedVideo) -> dict[int, str]:
        """The frames of a video, and the paths of their pictures."""
        return {frame: self._path_of(planned, frame) for frame in planned.frames.tolist()}

    def write(self, name: str, data: bytes) -> None:
        """Add a file. Raises BackendError: nobody reads the zip any more."""
        self._put((name, data))

    def remove(self, planned: PlannedVideo) -> None:
        """Pictures that are in the zip stay there, without labels."""

    def stream(self, build: Callable[[], None]) -> Generator[bytes]:
        """The bytes of the zip, while `build` writes its files. When the generator is closed, `build` is stopped.

        Raises:
            BackendError: what `build` raises.
        """
        thread = threading.Thread(target=self._run, args=(build,), name="dataset", daemon=True)
        thread.start()
        buffer = _Buffer()
        try:
            with ZipFile(buffer, "w") as archive:
                while (item := self._files.get()) is not None:
                    if isinstance(item, BaseException):
                        raise item
                    name, data = item
                    archive.writestr(ZipInfo(name), data, ZIP_STORED if name.endswith(_PICTURES) else ZIP_DEFLATED)
                    yield buffer.take()
            yield buffer.take()
        finally:
            self._closed.set()
            thread.join()

    def _run(self, build: Callable[[], None]) -> None:
        try:
            build()
            self._put(None)
        except Exception as error:
            if not self._closed.is_set():
                self._put(error)

    def _put(self, item: DatasetFile | BaseException | None) -> None:
        while not self._closed.is_set():
            try:
                return self._files.put(item, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
        raise BackendError("the download was ended")


class _Buffer(io.RawIOBase):
    """What a zip has written since it was last asked. It cannot seek, so sizes follow each file's bytes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        """The bytes since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)
