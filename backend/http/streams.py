"""Streams: live pictures, and server-sent events.

An `<img>` whose address answers `multipart/x-mixed-replace` shows each part in place of the last; an `EventSource` gets
each part as a message.

Under `serve` (see `detached_responses`) no worker thread waits for the next part. The request ends after the first one
and leaves its connection to `Streams`, whose one thread reads every source ten times a second and sends what has
changed. Under another WSGI server a stream is a generator, which holds that server's thread.
"""

import logging
import re
import secrets
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from flask import Response, request

from backend.errors import where

log = logging.getLogger(__name__)

INTERVAL = 0.1
"""Seconds between two looks at a source."""
HEARTBEAT = 10.0
"""Seconds after which a part is sent again, so that neither the server nor a proxy takes the connection for idle."""
PER_BROWSER = 3
"""Streams that one browser may hold: it opens six connections to a host, and needs some for everything else."""
MAX_STREAMS = 500
"""Streams of all browsers; the server has twice as many connections."""
_COOKIE = "sam3_backend_browser"
_FLUSH_SECONDS = 0.2
"""How long the server's own thread is given to write the last parts."""
_BOUNDARY = "part"
EVENTS = "text/event-stream"
"""The mimetype of server-sent events."""
DETACH = "sam3_backend.detach"
"""Key of the WSGI environment: call its value to keep the connection after the response."""


End = Literal["stopped", "superseded"]
"""Why the server ends a stream: it stops, or the browser has opened newer streams."""


class Source(Protocol):
    """What a stream shows.

    Attributes:
        mimetype: of its pictures; or `EVENTS`, and its contents are whole messages.
    """

    mimetype: str

    def state(self) -> Hashable:
        """Everything that the content depends on; called ten times a second, so it has to be cheap."""
        ...

    def content(self, state: Any) -> bytes:
        """The picture of a state, or the messages; called when `state` has changed."""
        ...

    def last_content(self, end: End) -> bytes:
        """The picture that stays on the page when its stream ends, or the last message."""
        ...


@dataclass(eq=False)
class _Stream:
    key: str
    browser: str
    send: Callable[[bytes], None]
    is_open: Callable[[], bool]
    part: bytes
    opened_at: float = field(default_factory=time.monotonic)
    sent_at: float = field(default_factory=time.monotonic)


@dataclass
class _Live:
    """A source with at least one stream, and its last part."""

    source: Source
    state: Hashable = None
    part: bytes = b""
    streams: list[_Stream] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def update(self) -> None:
        with self.lock:
            state = self.source.state()
            if not self.part or state != self.state:
                self.state, self.part = state, self._format(self.source.content(state))

    def last_part(self, end: End) -> bytes:
        return self._format(self.source.last_content(end))

    @property
    def content_type(self) -> str:
        return EVENTS if self.source.mimetype == EVENTS else f"multipart/x-mixed-replace; boundary={_BOUNDARY}"

    @property
    def opening(self) -> bytes:
        return b"" if self.source.mimetype == EVENTS else f"--{_BOUNDARY}\r\n".encode()

    @property
    def heartbeat(self) -> bytes:
        """What is sent while nothing changes: a picture again, or a comment, which is no message."""
        return b": \n\n" if self.source.mimetype == EVENTS else self.part

    def _format(self, picture: bytes) -> bytes:
        if self.source.mimetype == EVENTS:
            return picture
        # A browser shows a part when it has read the boundary after it.
        head = f"Content-Type: {self.source.mimetype}\r\nContent-Length: {len(picture)}\r\n\r\n"
        return head.encode() + picture + f"\r\n--{_BOUNDARY}\r\n".encode()


class Streams:
    """All streams of the server. Sources with one key are looked at once, however many streams show them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: dict[str, _Live] = {}
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def respond(self, key: str, source: Source) -> Response:
        """Answer the current Flask request with a stream.

        Args:
            key: streams of one key show the same.
        """
        with self._lock:
            live = self._live.get(key) or _Live(source)
        live.update()
        first = live.opening + live.part
        detach = request.environ.get(DETACH)
        # Not the address: many browsers may share one behind a proxy.
        known = request.cookies.get(_COOKIE, "")
        browser = known if re.fullmatch("[0-9a-f]{16}", known) else secrets.token_hex(8)
        if detach:
            detach(lambda send, is_open: self._add(key, live, _Stream(key, browser, send, is_open, live.part)))
        response = Response(
            iter([first]) if detach else _generate(live, first),
            content_type=live.content_type,
        )
        if browser != known:
            response.headers.add("Set-Cookie", _format_cookie(browser))
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"  # Label Studio's page shows it
        response.headers["X-Accel-Buffering"] = "no"
        return response

    @property
    def count(self) -> int:
        """Streams that are open."""
        with self._lock:
            return sum(len(live.streams) for live in self._live.values())

    def _add(self, key: str, live: _Live, stream: _Stream) -> None:
        with self._lock:
            self._live.setdefault(key, live).streams.append(stream)
            # The newest ones go on: an older tab keeps its last picture.
            streams = sorted(
                (stream for live in self._live.values() for stream in live.streams), key=lambda one: one.opened_at
            )
            own = [other for other in streams if other.browser == stream.browser]
            for old in {*streams[:-MAX_STREAMS], *own[:-PER_BROWSER]}:
                old.send(self._live[old.key].last_part("superseded"))
                self._drop(old)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="streams", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Send every stream its last picture, and end it."""
        self._closed.set()
        if self._thread is None:
            return
        self._thread.join()
        with self._lock:
            for live in [*self._live.values()]:
                part = live.last_part("stopped")
                for stream in [*live.streams]:
                    stream.send(part)
                    self._drop(stream)
        time.sleep(_FLUSH_SECONDS)

    def _run(self) -> None:
        while not self._closed.wait(INTERVAL):
            with self._lock:
                lives = list(self._live.values())
            for live in lives:
                try:
                    live.update()
                    for stream in list(live.streams):
                        self._serve(stream, live)
                except Exception as error:  # one stream that fails must not end the others
                    log.error("a stream failed: %s", where(error))

    def _serve(self, stream: _Stream, live: _Live) -> None:
        if not stream.is_open():
            with self._lock:
                self._drop(stream)
        elif (part := live.part) is not stream.part:
            stream.part, stream.sent_at = part, time.monotonic()
            stream.send(part)
        elif time.monotonic() - stream.sent_at > HEARTBEAT:
            stream.sent_at = time.monotonic()
            stream.send(live.heartbeat)

    def _drop(self, stream: _Stream) -> None:
        live = self._live.get(stream.key)
        if live and stream in live.streams:
            live.streams.remove(stream)
            stream.send(b"")
            if not live.streams:
                del self._live[stream.key]


def _format_cookie(browser: str) -> str:
    """Names the browser; valid until it is closed.

    Label Studio's page may be on another site. There a browser keeps only a Secure cookie, which it takes over https
    and from its own machine.
    """
    is_local = re.sub(r":\d+$", "", request.host) in ("localhost", "127.0.0.1", "[::1]")
    is_secure = is_local or "https" in (request.scheme, request.headers.get("X-Forwarded-Proto"))
    rules = "SameSite=None; Secure; Partitioned" if is_secure else "SameSite=Lax"
    return f"{_COOKIE}={browser}; HttpOnly; Path=/; {rules}"


def _generate(live: _Live, first: bytes) -> Iterator[bytes]:
    yield first
    part, sent_at = live.part, time.monotonic()
    while True:
        time.sleep(INTERVAL)
        live.update()
        if live.part is not part:
            part, sent_at = live.part, time.monotonic()
            yield part
        elif time.monotonic() - sent_at > HEARTBEAT:
            sent_at = time.monotonic()
            yield live.heartbeat
