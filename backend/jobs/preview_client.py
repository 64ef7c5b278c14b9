"""The server's side of previews: any thread may ask, beside the one that runs jobs."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import count
from pathlib import Path

from backend.errors import Busy
from backend.jobs.messages import (
    EncodeFrames,
    EndPreviews,
    FrameEncoded,
    PreviewFailure,
    PreviewMasks,
    PreviewPrompt,
    PreviewReply,
    PreviewRequest,
)
from backend.tracks.prompts import Prompt
from backend.tracks.track import Observation
from backend.video import VideoLimits

_RESTARTED = "the engine's process has ended and is started again: try again in a few seconds"


class PreviewClient:
    """Previews by one worker after another.

    Args:
        send: sends a request; False: no worker runs.

    Attributes:
        on_encoded: called with a session and a source frame that is encoded for it.
    """

    def __init__(self, send: Callable[[PreviewRequest], bool]) -> None:
        self._send = send
        self._ids = count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Sequence[Observation]]] = {}
        self.on_encoded: Callable[[str, int], None] = lambda session, frame: None

    def preview(
        self, session: str, path: Path, limits: VideoLimits, prompt: Prompt, seconds: float
    ) -> Sequence[Observation]:
        """What a prompt would select; see `backend.engines.base.Engine.preview`.

        Args:
            session: who asks; its newer prompt replaces one that waits.
            seconds: how long to wait for the answer.

        Raises:
            BackendError: as for the engine, or a newer prompt came.
            Busy: the worker has ended, or does not answer in time.
        """
        preview_id, future = next(self._ids), Future[Sequence[Observation]]()
        with self._lock:
            self._waiting[preview_id] = future
        try:
            if not self._send(PreviewPrompt(preview_id, session, path, limits, prompt)):
                raise Busy(_RESTARTED)
            return future.result(seconds)
        except TimeoutError:
            raise Busy("the engine has not answered in time: try again in a few seconds") from None
        finally:
            with self._lock:
                self._waiting.pop(preview_id, None)

    def encode(self, session: str, path: Path, limits: VideoLimits, frames: Sequence[int]) -> None:
        """Let frames be encoded, in this order, instead of those that the session ordered before."""
        self._send(EncodeFrames(session, path, limits, frames))

    def end(self, session: str) -> None:
        """Let the worker forget a session."""
        self._send(EndPreviews(session))

    def handle(self, reply: PreviewReply) -> None:
        """Take a reply of the worker."""
        match reply:
            case PreviewMasks(preview_id, candidates):
                if future := self._future(preview_id):
                    future.set_result(candidates)
            case PreviewFailure(preview_id, error):
                if future := self._future(preview_id):
                    future.set_exception(error)
            case FrameEncoded(session, frame):
                self.on_encoded(session, frame)

    def fail_all(self) -> None:
        """The worker has ended."""
        with self._lock:
            futures = list(self._waiting.values())
            self._waiting.clear()
        for future in futures:
            future.set_exception(Busy(_RESTARTED))

    def _future(self, preview_id: int) -> "Future[Sequence[Observation]] | None":
        with self._lock:
            return self._waiting.pop(preview_id, None)
