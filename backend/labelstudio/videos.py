"""Tasks' videos: fetched into `data_dir` if need be, and opened within the limits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.errors import BadVideo, MediaError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.media import MediaCache
from backend.settings import Settings
from backend.video import Picture, SharedVideo, Video, VideoLimits
from backend.video.frame_clock import FrameClock

FrameReader = Callable[[int], Picture]
"""The picture that an LS frame shows, or a BadRequest: there is no such frame."""


def frame_reader(video: Video, framerate: float) -> FrameReader:
    """Pictures of an open video.

    Args:
        framerate: what the page counts with.
    """
    clock = FrameClock(video.times, video.end, framerate)

    def read(frame: int) -> Picture:
        clock.check_frame(frame)
        return video.read(clock.source_frame(frame))

    return read


class TaskVideos:
    """All that one process opens."""

    def __init__(self, settings: Settings) -> None:
        limits = settings.limits
        self._media = MediaCache(settings.data_dir.expanduser() / "media", limits.bytes, limits.seconds)
        self.limits = VideoLimits.from_settings(settings)
        self._held = SharedVideo(self.limits)

    def close(self) -> None:
        """Close what is held open."""
        self._held.close()

    def fetch(self, url: str, client: LabelStudioClient | None, cancelled: Callable[[], bool]) -> Path:
        """A task's file; as for `Media.fetch`."""
        return self._media.fetch(url, client, cancelled)

    def has(self, url: str, client: LabelStudioClient | None) -> bool:
        """Whether a task's file is here already; as for `Media.has`."""
        return self._media.has(url, client)

    def forget(self, path: Path) -> None:
        """Fetch a file anew next time."""
        self._media.forget(path)

    def open(self, url: str, client: LabelStudioClient | None) -> Video:
        """A task's video; a file that is none is not kept.

        Args:
            url, client: as for `Media.fetch`.

        Raises:
            BackendError: it cannot be had or decoded.
        """
        path = self._media.fetch(url, client)
        try:
            return Video(path, self.limits)
        except BadVideo:
            self._media.forget(path)
            raise

    @contextmanager
    def look(self, url: str, client: LabelStudioClient | None) -> Iterator[Video]:
        """As `open`, for who looks again and again: the video stays open, and one looks at a time."""
        path = self._media.fetch(url, client)
        try:
            with self._held.open(path) as video:
                yield video
        except BadVideo:
            self._media.forget(path)
            raise

    def local(self, path: str) -> Video:
        """A video that a file of tasks names by its path on this machine.

        Raises:
            BackendError: it is not there, or cannot be decoded.
        """
        if not path or "://" in path or not Path(path).is_file():
            raise MediaError("it is not on this machine, --project or --task fetches it")
        return Video(Path(path), self.limits)

    def try_picture(self, url: str, client: LabelStudioClient | None) -> None:
        """Fetch a picture, and keep nothing.

        Raises:
            MediaError: it cannot be had.
        """
        self._media.forget(self._media.fetch(url, client))
