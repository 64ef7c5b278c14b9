"""What waitress does for us beside serving: responses that go on after their request, and headers on its own errors.

A response goes on without a thread of waitress: `streams` writes the rest.
"""

from collections.abc import Callable, Iterable
from typing import Any

from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer
from waitress.task import ErrorTask, WSGITask

from backend.http.security import HEADERS
from backend.http.streams import DETACH


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
    task_class = _Task
    error_task_class = _ErrorTask


def customize_channels(sockets: Iterable[object]) -> None:
    """Let responses outlive their requests, and add the security headers to waitress' own errors.

    Without it, `Streams` holds a thread for each stream.

    Args:
        sockets: values of the `map` that a waitress server was created with.
    """
    for listener in sockets:
        if isinstance(listener, BaseWSGIServer):
            listener.channel_class = _Channel
