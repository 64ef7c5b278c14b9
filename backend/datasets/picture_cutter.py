"""Cuts pictures from videos, several videos at a time."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Protocol, TypeVar

from backend.datasets.options import DatasetOptions
from backend.datasets.plan import DatasetPlan, PlannedVideo
from backend.errors import BackendError
from backend.video import Picture, Video, encode_jpeg, encode_rgb_png

Result = TypeVar("Result")
_MAX_WORKERS = 4


class PictureOutput(Protocol):
    """Where pictures and labels are written: a folder, or a zip that is sent while it is made."""

    def missing(self, planned: PlannedVideo) -> dict[int, str]:
        """The frames of a video that have no picture yet, and the paths of their pictures."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file; called from several threads."""
        ...

    def remove(self, planned: PlannedVideo) -> None:
        """Remove the pictures of a video that cannot be exported."""
        ...


class PictureCutter:
    """Cuts the pictures of planned videos.

    Args:
        advance: called with the number of pictures that are done, from several threads.
    """

    def __init__(self, plan: DatasetPlan, output: PictureOutput, advance: Callable[[int], None]) -> None:
        self._plan, self._output, self._advance = plan, output, advance
        self._stopped = threading.Event()

    def run(self, work: Callable[[PlannedVideo], Result]) -> Iterator[Result]:
        """What `work` returns for each video, in order; it is called from several threads.

        A video for which it raises a BackendError is left out and added to the plan's failures.
        """
        workers = min(_MAX_WORKERS, max(1, (os.cpu_count() or 1) // 2))
        pool, waiting = ThreadPoolExecutor(workers), deque[tuple[PlannedVideo, Future[Result]]]()
        videos = iter(self._plan.videos)
        try:
            while True:
                while len(waiting) <= workers and (planned := next(videos, None)):
                    waiting.append((planned, pool.submit(work, planned)))
                if not waiting:
                    return
                planned, future = waiting.popleft()
                try:
                    yield future.result()
                except BackendError as error:
                    self._plan.failures[planned.annotation.number] = str(error)
                    self._output.remove(planned)
        finally:
            self._stopped.set()
            pool.shutdown(cancel_futures=True)

    def cut(self, planned: PlannedVideo) -> None:
        """Cut the pictures of a video that are missing.

        Raises:
            BackendError: the video cannot be read, or nothing more can be written.
        """
        options = self._plan.options
        paths = self._output.missing(planned) if options.pictures != "none" else {}
        self._advance(len(planned.frames) - len(paths))

        def write(name: str, data: bytes) -> None:
            if self._stopped.is_set():
                raise BackendError("the export was stopped: start it again")
            self._output.write(name, data)
            self._advance(1)

        if paths and planned.video:
            _cut_pictures(planned.video, paths, options, write)


def _cut_pictures(
    video: Video, paths: Mapping[int, str], options: DatasetOptions, write: Callable[[str, bytes], None]
) -> None:
    """Decode a video once and write its frames to these paths, ascending.

    Args:
        video: closed.
        write: takes a picture's path and contents; it may raise to stop.

    Raises:
        BadVideo: the file is gone, or its first pictures are damaged.
    """
    with video.reopen() as opened, closing(opened.select(list(paths))) as pictures:
        for frame, picture in pictures:
            write(paths[frame], encode_picture(picture, options))


def encode_picture(picture: Picture, options: DatasetOptions) -> bytes:
    """A picture in the format of the dataset."""
    return encode_rgb_png(picture) if options.png else encode_jpeg(picture, quality=options.quality)
