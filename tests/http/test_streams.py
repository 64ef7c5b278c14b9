"""Live pictures over a real server: parts arrive when the source changes, and no stream holds a thread."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from flask import Flask, Response
from waitress.server import create_server

from backend.http import streams
from backend.http.streams import PER_BROWSER, Streams
from backend.http.waitress_channel import customize_channels

THREADS = 2


class Counter:
    """A source whose picture is its number."""

    mimetype = "image/gif"

    def __init__(self) -> None:
        self.number, self.drawn = 0, 0

    def state(self) -> int:
        return self.number

    def content(self, state: int) -> bytes:
        self.drawn += 1
        return b"picture %d" % state

    def last_content(self, end: streams.End) -> bytes:
        return f"the last picture: {end}".encode()


class Browser:
    """Reads one stream until it has the parts that a test waits for."""

    def __init__(self, port: int, version: str, cookie: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.sendall(f"GET /live HTTP/{version}\r\nHost: here\r\nCookie: {cookie}\r\n\r\n".encode())
        self.data = b""

    def read_until(self, text: bytes) -> bytes:
        while text not in self.data:
            chunk = self.socket.recv(65536)
            assert chunk, "the stream has ended"
            self.data += chunk
        return self.data

    def has_ended(self) -> bool:
        while chunk := self.socket.recv(65536):
            self.data += chunk
        return True


Browse = Callable[..., Browser]


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


@pytest.fixture
def browse(port: int) -> Iterator[Browse]:
    with ExitStack() as stack:

        def opened(version: str = "1.1", cookie: str = "other=1") -> Browser:
            browser = Browser(port, version, cookie)
            stack.enter_context(browser.socket)
            return browser

        yield opened


@pytest.fixture
def source() -> Counter:
    return Counter()


@pytest.fixture
def live() -> Iterator[Streams]:
    live = Streams()
    yield live
    live.close()


@pytest.fixture
def port(source: Counter, live: Streams, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(streams, "INTERVAL", 0.01)
    app = Flask("streams")

    @app.get("/live")
    def show() -> Response:
        return live.respond("one", source)

    @app.get("/health")
    def health() -> str:
        return "up"

    sockets: dict[int, object] = {}
    server = create_server(app, map=sockets, host="127.0.0.1", port=0, threads=THREADS)
    customize_channels(sockets.values())
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield server.effective_port
    live.close()
    server.trigger.pull_trigger(server.close)
    server.task_dispatcher.shutdown()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_change_is_a_new_part_and_no_change_is_none(browse: Browse, source: Counter, version: str) -> None:
    browser = browse(version)
    head = browser.read_until(b"picture 0").partition(b"\r\n\r\n")[0].lower()
    assert b"content-length" not in head
    assert b"multipart/x-mixed-replace; boundary=part" in head
    assert b"Content-Type: image/gif" in browser.data
    browser.read_until(b"picture 0\r\n--part\r\n")
    source.number = 1
    browser.read_until(b"picture 1\r\n--part\r\n")
    time.sleep(0.1)
    source.number = 2
    assert browser.read_until(b"picture 2\r\n--part\r\n").count(b"picture 1") == 1


def test_streams_hold_no_thread_and_share_one_picture(
    port: int, browse: Browse, source: Counter, live: Streams
) -> None:
    browsers = [browse() for _ in range(PER_BROWSER)]
    for browser in browsers:
        browser.read_until(b"picture 0\r\n--part")
    assert PER_BROWSER > THREADS
    drawn = source.drawn
    source.number = 7
    for browser in browsers:
        browser.read_until(b"picture 7\r\n--part")
    assert source.drawn == drawn + 1
    with socket.create_connection(("127.0.0.1", port), timeout=10) as other:
        other.sendall(b"GET /health HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in other.recv(65536)
    assert live.count == PER_BROWSER


def test_the_oldest_stream_of_a_browser_ends_with_its_last_picture(browse: Browse, live: Streams) -> None:
    first = browse()
    cookie = re.search(rb"Set-Cookie: (\w+=\w+);", first.read_until(b"picture 0\r\n--part"))
    assert cookie
    other = browse()
    until(lambda: live.count == 2)
    for count in range(3, PER_BROWSER + 3):
        browse(cookie=cookie[1].decode())
        until(lambda count=count: live.count == min(count, PER_BROWSER + 1))
    assert first.has_ended()
    assert first.data.endswith(b"the last picture: superseded\r\n--part\r\n")
    other.read_until(b"picture 0\r\n--part")
    assert live.count == PER_BROWSER + 1


@pytest.mark.parametrize(
    ("host", "headers", "is_secure"),
    [
        ("127.0.0.1:9090", {}, True),
        ("localhost:9090", {}, True),
        ("[::1]:9090", {}, True),
        ("sam.example", {"X-Forwarded-Proto": "https"}, True),
        ("sam.example", {}, False),
        ("192.168.1.2:9090", {"X-Forwarded-Proto": "http"}, False),
        ("localhost.example:9090", {}, False),
    ],
)
def test_a_page_of_another_site_can_keep_the_cookie_where_a_browser_allows_it(
    source: Counter, live: Streams, host: str, headers: dict[str, str], is_secure: bool
) -> None:
    app = Flask("streams")
    with app.test_request_context(base_url=f"http://{host}", headers=headers):
        cookie = live.respond("one", source).headers["Set-Cookie"]
    assert ("; SameSite=None; Secure; Partitioned" in cookie) == is_secure
    assert ("; SameSite=Lax" in cookie) != is_secure
    named = cookie.partition(";")[0]
    with app.test_request_context(headers={"Cookie": named}):
        assert "Set-Cookie" not in live.respond("one", source).headers
    with app.test_request_context(headers={"Cookie": f'{named.partition("=")[0]}=a"b'}):
        assert named not in live.respond("one", source).headers["Set-Cookie"]


def test_beyond_the_limit_the_oldest_of_all_ends(
    browse: Browse, live: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS", 1)
    first = browse()
    until(lambda: live.count == 1)
    browse().read_until(b"picture 0")
    assert first.has_ended()
    assert live.count == 1


def test_a_stream_whose_browser_has_gone_is_forgotten(browse: Browse, live: Streams) -> None:
    browser = browse()
    browser.read_until(b"picture 0\r\n--part")
    until(lambda: live.count == 1)
    browser.socket.close()
    until(lambda: live.count == 0)


def test_a_stream_that_two_threads_drop_is_dropped_once(browse: Browse, live: Streams) -> None:
    browse()
    until(lambda: live.count == 1)
    ((stream,),) = (one.streams for one in live._live.values())
    live._drop(stream)
    live._drop(stream)
    assert live.count == 0


def test_an_unchanged_picture_is_sent_again_after_a_while(browse: Browse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT", 0.05)
    browser = browse()
    browser.read_until(b"picture 0\r\n--part\r\n")
    browser.data = b""
    browser.read_until(b"picture 0\r\n--part\r\n")


def test_the_last_picture_stays_when_the_server_ends(browse: Browse, live: Streams) -> None:
    browsers = [browse(), browse("1.0")]
    for browser in browsers:
        browser.read_until(b"picture 0\r\n--part\r\n")
    until(lambda: live.count == 2)
    live.close()
    for browser in browsers:
        browser.read_until(b"the last picture: stopped\r\n--part\r\n")
        assert browser.has_ended()


def test_another_server_gets_a_generator(source: Counter, live: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "INTERVAL", 0.01)
    app = Flask("streams")
    with app.test_request_context():
        parts = iter(live.respond("one", source).response)
        assert b"picture 0" in next(parts)
        source.number = 1
        assert b"picture 1" in next(parts)


def test_a_picture_that_fails_costs_no_other(browse: Browse, source: Counter, caplog: pytest.LogCaptureFixture) -> None:
    browser = browse()
    browser.read_until(b"picture 0\r\n--part\r\n")
    drawn, source.content = source.content, None  # type: ignore[assignment]
    source.number = 1
    until(lambda: "a stream failed" in caplog.text)
    source.content = drawn
    browser.read_until(b"picture 1\r\n--part\r\n")
