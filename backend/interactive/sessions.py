"""All interactive sessions of one process: bounded in number, and closed when nobody uses them."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import count

from backend.interactive.session import InteractiveSession, SessionKey
from backend.jobs.scheduler import Scheduler
from backend.jobs.worker_pool import WorkerPool
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.videos import TaskVideos
from backend.video import VideoInfo

MAX_SESSIONS = 64
"""A further one closes the one that was not used for longest."""
IDLE_SECONDS = 1800.0
_SWEEP_SECONDS = 30.0


class InteractiveSessions:
    """One per process.

    Args:
        client: of a project's Label Studio; None: it is unknown.
    """

    def __init__(
        self,
        pool: WorkerPool,
        scheduler: Scheduler,
        videos: TaskVideos,
        client: Callable[[str], LabelStudioClient | None],
    ) -> None:
        self._pool, self._scheduler, self._videos, self._client = pool, scheduler, videos, client
        self._names = count(1)
        self._lock = threading.Lock()
        self._sessions: OrderedDict[SessionKey, InteractiveSession] = OrderedDict()
        self._closed = threading.Event()
        pool.previews.on_encoded = self._add_encoded
        pool.previews.on_forgotten = self._forget_encoded
        threading.Thread(target=self._sweep_loop, name="interactive", daemon=True).start()

    def open(self, key: SessionKey) -> InteractiveSession:
        """The session of a task's video; a new one fetches it first.

        Raises:
            BackendError: the video cannot be fetched or decoded, or the framerate is not plausible.
        """
        if session := self.find(key):
            return session
        client = self._client(key.project)
        path = self._videos.fetch(key.url, client, self._closed.is_set)
        with self._videos.open(key.url, client) as video:
            info = VideoInfo.from_video(video)
        session = InteractiveSession(
            str(next(self._names)), key, path, info, self._pool, self._scheduler, self._videos.limits
        )
        with self._lock:
            session = self._sessions.setdefault(key, session)
            surplus = [self._sessions.popitem(last=False)[1] for _ in range(len(self._sessions) - MAX_SESSIONS)]
        self._end(*surplus)
        return session

    def find(self, key: SessionKey) -> InteractiveSession | None:
        """The session, if it is open and its video is still on disk."""
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                return None
            if session.is_available:
                self._sessions.move_to_end(key)
                session.used_at = time.monotonic()
                return session
            del self._sessions[key]
        self._end(session)
        return None

    def close(self, project: str, task: str, user: str = "") -> None:
        """Close a person's sessions of a task: frames that are encoded for them give way. Tracks go on."""
        self._close_where(lambda session: (project, task, user) == _owner(session.key))

    def close_idle(self, seconds: float = IDLE_SECONDS) -> None:
        """Close the sessions that nobody has used for so long."""
        until = time.monotonic() - seconds
        self._close_where(lambda session: session.used_at < until)

    def close_all(self) -> None:
        """Close all sessions for good."""
        self._closed.set()
        self._close_where(lambda session: True)

    def __len__(self) -> int:
        return len(self._sessions)

    def _close_where(self, is_chosen: Callable[[InteractiveSession], bool]) -> None:
        with self._lock:
            chosen = [session for session in self._sessions.values() if is_chosen(session)]
            for session in chosen:
                del self._sessions[session.key]
        self._end(*chosen)

    def _end(self, *sessions: InteractiveSession) -> None:
        for session in sessions:
            self._pool.previews.end(session.name)

    def _add_encoded(self, name: str, frame: int) -> None:
        for session in self._named(name):
            session.add_encoded(frame)

    def _forget_encoded(self, name: str) -> None:
        for session in self._named(name):
            session.forget_encoded()

    def _named(self, name: str) -> list[InteractiveSession]:
        with self._lock:
            return [session for session in self._sessions.values() if session.name == name]

    def _sweep_loop(self) -> None:
        while not self._closed.wait(_SWEEP_SECONDS):
            self.close_idle()


def _owner(key: SessionKey) -> tuple[str, str, str]:
    return key.project, key.task, key.user
