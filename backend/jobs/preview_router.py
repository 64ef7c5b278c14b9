"""Sends previews to the worker that has the video."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from backend.errors import Busy
from backend.jobs.preview_client import PreviewClient
from backend.jobs.video_homes import VideoHomes
from backend.jobs.worker_client import WorkerClient
from backend.tracks.prompts import Prompt
from backend.tracks.track import Observation
from backend.video import VideoLimits


class PreviewRouter:
    """Previews by all workers; any thread may ask.

    A video that no worker has goes to the one with the fewest sessions, and so do the jobs of that video then.

    Attributes:
        on_encoded: called with a session and a source frame that is encoded for it.
        on_forgotten: called with a session whose frames are encoded no longer, because another worker has it now.
    """

    def __init__(self, workers: Sequence[WorkerClient], homes: VideoHomes) -> None:
        self._workers, self._homes = workers, homes
        self._lock = threading.Lock()
        self._sessions: dict[str, int] = {}
        self.on_encoded: Callable[[str, int], None] = lambda session, frame: None
        self.on_forgotten: Callable[[str], None] = lambda session: None
        for worker in workers:
            worker.previews.on_encoded = lambda session, frame: self.on_encoded(session, frame)

    def preview(
        self, session: str, path: Path, limits: VideoLimits, prompt: Prompt, seconds: float
    ) -> Sequence[Observation]:
        """As `PreviewClient.preview`."""
        return self._client(session, path).preview(session, path, limits, prompt, seconds)

    def encode(self, session: str, path: Path, limits: VideoLimits, frames: Sequence[int]) -> None:
        """As `PreviewClient.encode`."""
        self._client(session, path).encode(session, path, limits, frames)

    def end(self, session: str) -> None:
        """Let the worker forget a session."""
        with self._lock:
            number = self._sessions.pop(session, None)
        if number is not None:
            self._workers[number].previews.end(session)

    def forget(self, number: int) -> None:
        """A worker has ended, and with it what it had encoded."""
        with self._lock:
            sessions = [session for session, worker in self._sessions.items() if worker == number]
            for session in sessions:
                del self._sessions[session]
        for session in sessions:
            self.on_forgotten(session)

    def _client(self, session: str, path: Path) -> PreviewClient:
        """The worker that previews a session's prompts."""
        home = self._homes.get(path)
        with self._lock:
            before = self._sessions.get(session)
            ready = [number for number, worker in enumerate(self._workers) if worker.status == "ready"]
            if not ready:
                raise Busy("the model is not ready: try again when it is")
            counts = Counter(self._sessions.values())
            number = home if home in ready else min(ready, key=lambda number: (number != before, counts[number]))
            self._sessions[session] = number
        if number != home:
            self._homes.put(path, number)
        if before is not None and before != number:
            self._workers[before].previews.end(session)
            self.on_forgotten(session)
        return self._workers[number].previews
