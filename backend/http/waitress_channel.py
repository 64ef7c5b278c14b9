"""What waitress does for us beside serving.

Responses go on after their request, without a thread of waitress: `streams` writes the rest. Its own errors have our
headers. And connections that nobody uses make room for new ones.
"""

from collections.abc import Callable, Iterable
from typing import Any

from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer
from waitress.task import ErrorTask, WSGITask

from backend.http.security import HEADERS
from backend.http.streams import DETACH

_SPARE_CONNECTIONS = 8
"""So many connections below the limit, idle ones begin to make room."""


class _Task(WSGITask):
    """A request whose connection the application may keep after its response."""

    _on_detach: Callable[[Callable[[bytes], None], Callable[[], bool]], None] | None = None

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        environ[DETACH] = lambda on_detach: setattr(self, "_on_detach", on_detach)
        return environ

    def build_response_header(self) -> bytes:
        if self._on_detach:
            # Its end is that of the connection: a browser shows nothing of a picture whose last chunk never comes, as
            # when this process is killed (seen in Chromium).
            self.version = "1.0"
        header: bytes = super().build_response_header()
        return header

    def finish(self) -> None:
        if self._on_detach is None:
            super().finish()
            return
        self.close_on_finish = False
        channel: Any = self.channel
        channel.is_detached = True

        def send(data: bytes) -> None:
            """Write from the server's own thread, which alone may write to a connection without a task."""

            def write() -> None:
                if not channel.connected:
                    return
                if not data:
                    channel.close_when_flushed = True
                elif not channel.total_outbufs_len:  # a browser that does not read gets the next part
                    channel.write_soon(data)

            channel.server.trigger.pull_trigger(write)

        self._on_detach(send, lambda: channel.connected)


class _ErrorTask(ErrorTask):
    """An answer of waitress to a request that never reaches the application, such as one that is too large."""

    def execute(self) -> None:
        self.response_headers = [*self.response_headers, *HEADERS.items()]
        super().execute()


class _Channel(HTTPChannel):
    """A connection. When there are nearly as many as there may be, a new one closes the one that was idle for longest.

    Without it, waitress would accept no further connection until idle ones time out, not even for /health.
    """

    task_class = _Task
    error_task_class = _ErrorTask
    is_detached = False

    def __init__(self, server: Any, *args: Any, **more: Any) -> None:
        super().__init__(server, *args, **more)
        if len(server._map) >= server.adj.connection_limit - _SPARE_CONNECTIONS:
            idle = [channel for channel in server.active_channels.values() if channel is not self and channel.is_idle]
            if idle:
                min(idle, key=lambda channel: channel.last_activity).will_close = True

    @property
    def is_idle(self) -> bool:
        """Whether it has no whole request, and no response on its way."""
        return not (self.requests or self.total_outbufs_len or self.is_detached or self.will_close)


def customize_channels(sockets: Iterable[object]) -> None:
    """Let responses outlive their requests, idle connections make room, and waitress' own errors have our headers.

    Without it, `Streams` holds a thread for each stream.

    Args:
        sockets: values of the `map` that a waitress server was created with.
    """
    for listener in sockets:
        if isinstance(listener, BaseWSGIServer):
            listener.channel_class = _Channel
