"""Tasks' videos: fetched into `data_dir` if need be, and opened within the limits."""

from collections.abc import Callable
from pathlib import Path

from backend.errors import BadVideo
from backend.labelstudio.client import Client
from backend.labelstudio.media import Media
from backend.settings import Settings
from backend.video import Video, VideoLimits


class Videos:
    """All that one process opens."""

    def __init__(self, settings: Settings) -> None:
        limits = settings.limits
        self._media = Media(settings.data_dir.expanduser() / "media", limits.bytes, limits.seconds)
        self.limits = VideoLimits(pixels=limits.pixels, frames=limits.frames)

    def fetch(self, url: str, client: Client | None, cancelled: Callable[[], bool]) -> Path:
        """A task's file; as for `Media.fetch`."""
        return self._media.fetch(url, client, cancelled)

    def has(self, url: str, client: Client | None) -> bool:
        """Whether a task's file is here already; as for `Media.has`."""
        return self._media.has(url, client)

    def forget(self, path: Path) -> None:
        """Fetch a file anew next time."""
        self._media.forget(path)

    def open(self, url: str, client: Client | None) -> Video:
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

    def try_picture(self, url: str, client: Client | None) -> None:
        """Fetch a picture, and keep nothing.

        Raises:
            MediaError: it cannot be had.
        """
        self._media.forget(self._media.fetch(url, client))
