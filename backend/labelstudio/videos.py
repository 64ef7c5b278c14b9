"""Downloads tasks' videos into `data_dir` and opens them, within the limits of the settings."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.errors import BadVideo, MediaError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.media import MediaCache
from backend.labelstudio.uploads import PREFIX, Uploads
from backend.settings import Settings
from backend.settings_loader import worker_environment
from backend.video import DecoderProcesses, Picture, SharedVideo, Video, VideoLimits, probe_video
from backend.video.frame_clock import FrameClock

FrameReader = Callable[[int], Picture]
"""Returns the picture that an LS frame shows; raises BadRequest if there is no such frame."""


def frame_reader(video: Video, framerate: float) -> FrameReader:
    """A reader of an open video.

    Args:
        framerate: frames per second that Label Studio counts with.
    """
    clock = FrameClock(video.times, video.end, framerate)

    def read(frame: int) -> Picture:
        clock.check_frame(frame)
        return video.read(clock.source_frame(frame))

    return read


class TaskVideos:
    """The videos that one process opens.

    Args:
        is_server: index and decode them in processes of their own, which are killed when they take too much.

    Attributes:
        uploads: series of pictures that clients have sent.
    """

    def __init__(self, settings: Settings, is_server: bool = False) -> None:
        self._is_server = is_server
        self._media = MediaCache.from_settings(settings)
        self.uploads = Uploads(settings)
        self.limits = VideoLimits.from_settings(settings)
        self._decoders = DecoderProcesses(worker_environment())
        self._shared = SharedVideo(self.open_file)

    def close(self) -> None:
        """Close the shared video, and end the processes."""
        self._shared.close()
        self._decoders.close()

    def open_file(self, path: Path) -> Video:
        """Open a file that was fetched. Raises BadVideo: it cannot be decoded."""
        if not self._is_server:
            return Video(path, self.limits)
        probe_video(path, self.limits, worker_environment())
        return Video(path, self.limits, open_decoder=self._decoders.open)

    def fetch(self, url: str, client: LabelStudioClient | None, cancelled: Callable[[], bool] = lambda: False) -> Path:
        """A task's file; see `MediaCache.fetch`. A server has indexed it; it is removed if that fails.

        Raises:
            BackendError: as `MediaCache.fetch`, or the server cannot decode it.
        """
        is_upload = url.startswith(PREFIX)
        path = self.uploads.path(url) if is_upload else self._media.fetch(url, client, cancelled)
        if self._is_server:
            try:
                probe_video(path, self.limits, worker_environment(), cancelled)
            except BadVideo:
                self._media.forget(path)
                raise
        return path

    def has(self, url: str, client: LabelStudioClient | None) -> bool:
        """Whether a task's file is in the cache; see `MediaCache.has`."""
        return self._media.has(url, client)

    def forget(self, path: Path) -> None:
        """Remove a file from the cache."""
        self._media.forget(path)

    def open(self, url: str, client: LabelStudioClient | None) -> Video:
        """Open a task's video. A file that is not a video is removed from the cache.

        Args:
            url, client: see `MediaCache.fetch`.

        Raises:
            BackendError: the video cannot be downloaded or decoded.
        """
        path = self.fetch(url, client)
        try:
            return self.open_file(path)
        except BadVideo:
            self._media.forget(path)
            raise

    @contextmanager
    def look(self, url: str, client: LabelStudioClient | None) -> Iterator[Video]:
        """As `open`, for repeated use: the video stays open, and one thread uses it at a time."""
        path = self.fetch(url, client)
        try:
            with self._shared.open(path) as video:
                yield video
        except BadVideo:
            self._media.forget(path)
            raise

    def local(self, path: str) -> Video:
        """Open a video by its path on this machine, for tasks read from a file.

        Raises:
            BackendError: the file does not exist, or cannot be decoded.
        """
        if not path or "://" in path or not Path(path).is_file():
            raise MediaError("the video is not on this machine: use --project or --task to download it")
        return Video(Path(path), self.limits)

    def try_picture(self, url: str, client: LabelStudioClient | None) -> None:
        """Check that a picture can be downloaded, without keeping it.

        Raises:
            MediaError: the download failed.
        """
        self._media.forget(self._media.fetch(url, client))
