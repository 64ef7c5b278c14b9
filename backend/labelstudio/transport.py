"""HTTP sessions whose connections are checked and can be ended from outside.

The address of a host is checked where the socket is made: a name is resolved once, and the connection goes to an
address that was checked, so that no second answer of a name server can lead elsewhere. Every socket is known to a
`TransferGuard`, which shuts it down when the time is up, nobody waits any more, or too little arrives.
"""

import os
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from backend.errors import MediaError
from backend.labelstudio.addresses import AddressPolicy, Origin

_POLL_SECONDS = 0.1
_CONNECT_SECONDS = 5.0
_RESOLVE_SECONDS = 10.0
_MAX_LOOKUPS = 32
"""Name lookups at a time: the system's resolver cannot be interrupted."""
_RATE_SECONDS = 30.0
"""The lowest rate is measured over so many seconds, so that a short pause does no harm."""

_ANSWER_CHUNK = 1 << 16

_lookups = threading.Semaphore(_MAX_LOOKUPS)


class AnswerTooLarge(Exception):
    """A body is longer than permitted."""


class TransferGuard:
    """Ends a transfer when its time is up, it is cancelled, or it is too slow. A context manager.

    Args:
        seconds: until the transfer has to be complete.
        late: what to say when it is not.
        cancelled: called several times a second; the transfer ends once it returns true.
        lowest_rate: bytes a second that have to arrive; 0: any.
    """

    def __init__(
        self, seconds: float, late: str, cancelled: Callable[[], bool] = lambda: False, lowest_rate: float = 0.0
    ) -> None:
        self._end, self._late, self._cancelled, self._rate = time.monotonic() + seconds, late, cancelled, lowest_rate
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._ended = threading.Event()
        self._reason: str | None = None
        self._is_paused = False
        self._count = 0
        self._counts: deque[tuple[float, int]] = deque()
        self._thread = threading.Thread(target=self._watch, name="transfer-guard", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._forget()

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self._end - time.monotonic()

    def check(self) -> None:
        """Raise MediaError if the transfer was ended."""
        if self._reason is not None:
            raise MediaError(self._reason)

    def sleep(self, seconds: float) -> None:
        """Wait, at most until the transfer is ended; raises MediaError if it is."""
        self._is_paused = True
        self._ended.wait(seconds)
        self._is_paused = False
        self.check()

    def add_bytes(self, count: int) -> None:
        """Count bytes that have arrived."""
        self._count += count

    def add_socket(self, new: socket.socket) -> None:
        """Shut this connection down, too, when the transfer is ended."""
        # TLS moves the connection to another object with the same file; a duplicate reaches it in any case.
        twin = socket.socket(fileno=os.dup(new.fileno()))
        with self._lock:
            self._sockets.append(twin)
            if self._reason is not None:
                _shut(twin)

    def _watch(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            self._find_reason()
            if self._reason is not None:
                self._ended.set()

    def _find_reason(self) -> None:
        now = time.monotonic()
        reason = None
        if self._cancelled():
            reason = "the download was cancelled: send the request again"
        elif now > self._end:
            reason = self._late
        elif self._is_slow(now):
            reason = f"the server sends less than {self._rate:.0f} bytes a second: try again when it is faster"
        if reason is not None:
            with self._lock:
                self._reason = reason
                for each in self._sockets:
                    _shut(each)

    def _is_slow(self, now: float) -> bool:
        if not self._rate or self._is_paused:
            self._counts.clear()
            return False
        self._counts.append((now, self._count))
        while len(self._counts) > 1 and self._counts[1][0] <= now - _RATE_SECONDS:
            self._counts.popleft()
        since, count = self._counts[0]
        return now - since >= _RATE_SECONDS and self._count - count < self._rate * (now - since)

    def _forget(self) -> None:
        with self._lock:
            for each in self._sockets:
                each.close()
            self._sockets.clear()


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def resolve(host: str, port: int, guard: TransferGuard) -> list[Any]:
    """All addresses of a host, as `socket.getaddrinfo` returns them.

    Raises:
        OSError: it has none, or no name server answers in time.
        MediaError: the transfer was ended.
    """
    if not _lookups.acquire(timeout=_CONNECT_SECONDS):
        raise OSError("too many names are looked up")
    answers: queue.SimpleQueue[list[Any] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except OSError as error:
            answers.put(error)
        except UnicodeError:
            answers.put(socket.gaierror("no such name"))
        finally:
            _lookups.release()

    threading.Thread(target=look_up, name="lookup", daemon=True).start()
    end = time.monotonic() + _RESOLVE_SECONDS
    while time.monotonic() < end:
        guard.check()
        with suppress(queue.Empty):
            found = answers.get(timeout=_POLL_SECONDS)
            if isinstance(found, OSError):
                raise found
            return found
    raise OSError("no name server answers")


class GuardedAdapter(HTTPAdapter):
    """Connects where `policy` and `own` permit, and tells `guard` of every connection.

    Args:
        policy: for hosts other than Label Studio; None: there are no others.
        own: Label Studio's origin, where any address is permitted; None: there is none.
        guard: may end the connections.
    """

    def __init__(self, policy: AddressPolicy | None, own: Origin | None, guard: TransferGuard) -> None:
        self._policy, self._own, self._guard = policy, own, guard
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:  # noqa: D102 (of requests)
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _pool_classes(self._connect)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:  # noqa: D102 (of requests)
        manager = super().proxy_manager_for(proxy, **options)
        # The proxy connects to the host. What it may reach is for the proxy to say.
        manager.pool_classes_by_scheme = _pool_classes(self._connect_to_any)
        return manager

    def _connect(self, connection: HTTPConnection, scheme: str) -> socket.socket:
        host, port = connection.host, int(connection.port or 0)
        found = self._resolve(connection)
        if (scheme, host.lower(), port) != self._own:
            addresses = [str(entry[4][0]) for entry in found]
            if self._policy is None or not self._policy.allows(host, addresses):
                raise NewConnectionError(connection, "refused")
        return self._connect_first(connection, found)

    def _connect_to_any(self, connection: HTTPConnection, _scheme: str) -> socket.socket:
        return self._connect_first(connection, self._resolve(connection))

    def _resolve(self, connection: HTTPConnection) -> list[Any]:
        try:
            return resolve(connection.host, int(connection.port or 0), self._guard)
        except OSError as error:
            raise NewConnectionError(connection, str(error)) from error

    def _connect_first(self, connection: HTTPConnection, found: list[Any]) -> socket.socket:
        """Connect to the first address that answers; none is resolved again."""
        last: OSError | None = None
        for family, kind, protocol, _, address in found:
            self._guard.check()
            new = socket.socket(family, kind, protocol)
            try:
                new.settimeout(_CONNECT_SECONDS)
                for option in connection.socket_options or ():
                    new.setsockopt(*option)
                self._guard.add_socket(new)
                new.connect(address)
            except OSError as error:
                new.close()
                last = error
                continue
            return new
        self._guard.check()
        if isinstance(last, TimeoutError):
            raise ConnectTimeoutError(connection, "no address answers in time")
        raise NewConnectionError(connection, "no address answers") from last


def _pool_classes(connect: Callable[[HTTPConnection, str], socket.socket]) -> dict[str, Any]:
    """urllib3's classes of connections, with sockets from `connect`."""

    class Http(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return connect(self, "http")

    class Https(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return connect(self, "https")

    class HttpPool(HTTPConnectionPool):
        ConnectionCls = Http

    class HttpsPool(HTTPSConnectionPool):
        ConnectionCls = Https

    return {"http": HttpPool, "https": HttpsPool}


class _DirectSession(requests.Session):
    """A session that uses no proxy. The environment may still name the certificates to trust."""

    def merge_environment_settings(self, *args: Any, **options: Any) -> Any:
        settings = super().merge_environment_settings(*args, **options)
        settings["proxies"] = {}
        return settings


def open_session(
    guard: TransferGuard, own: Origin | None, policy: AddressPolicy | None = None, use_proxy: bool = False
) -> requests.Session:
    """A session, to be closed by the caller.

    Args:
        own, policy: see `GuardedAdapter`.
        use_proxy: use the proxy that the environment names; by default it is ignored.
    """
    session = requests.Session() if use_proxy else _DirectSession()
    adapter = GuardedAdapter(policy, own, guard)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def read_answer(response: requests.Response, guard: TransferGuard, max_bytes: int) -> bytes:
    """The body of a response that was requested with `stream`.

    Raises:
        AnswerTooLarge: it is longer than permitted.
        MediaError: the transfer was ended.
    """
    body = bytearray()
    for chunk in response.iter_content(_ANSWER_CHUNK):
        guard.check()
        body += chunk
        if len(body) > max_bytes:
            raise AnswerTooLarge
    guard.check()
    return bytes(body)
