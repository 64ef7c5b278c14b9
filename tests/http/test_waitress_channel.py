"""What waitress answers itself has the headers of every answer, and idle connections keep nobody out."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import requests
from flask import Flask
from waitress.server import create_server

from backend.errors import BadVideo
from backend.http.app import create_app
from backend.http.security import HEADERS
from backend.http.waitress_channel import customize_channels


@pytest.fixture
def make_port() -> Iterator[Callable[..., int]]:
    servers = []

    def make(app: Flask, **more: object) -> int:
        sockets: dict[int, object] = {}
        server = create_server(app, map=sockets, host="127.0.0.1", port=0, asyncore_use_poll=True, **more)
        customize_channels(sockets.values())
        threading.Thread(target=server.run, daemon=True).start()
        servers.append(server)
        return server.effective_port

    yield make
    for server in servers:
        server.trigger.pull_trigger(server.close)
        server.task_dispatcher.shutdown()


@pytest.fixture
def port(make_port: Callable[..., int]) -> int:
    return make_port(Flask("empty"), threads=1, max_request_body_size=9)


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789", "413"),
        ("GET / HTTP/1.1\r\nno header\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: br\r\n\r\n", "501"),
    ],
)
def test_refusals_before_the_application_have_the_security_headers(port: int, request_text: str, status: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request_text.encode())
        head = client.makefile("rb").read().partition(b"\r\n\r\n")[0].decode()
    lines = head.split("\r\n")
    assert lines[0].split()[1] == status
    assert {f"{name}: {value}" for name, value in HEADERS.items()} <= {*lines}


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("there is no frame 101: use one of 100", "422 Client Error: there is no frame 101: use one of 100 for url"),
        ("Größe", "422 Client Error: Größe for url"),
        ("写真\r\nX-Made: up\n\x7f\x85 \x00", "422 Client Error: ?? X-Made: up ? ? for url"),
        ("long " * 200, "422 Client Error: long long "),
        ("", "422 Client Error: UNPROCESSABLE ENTITY for url"),
    ],
)
def test_of_a_failed_request_label_studio_shows_our_sentence(
    make_port: Callable[..., int], make_service, sentence: str, shown: str
) -> None:
    app = create_app(make_service())

    @app.get("/fails")
    def fail() -> str:
        raise BadVideo(sentence)

    answer = requests.get(f"http://127.0.0.1:{make_port(app)}/fails", timeout=10)
    assert answer.json() == {"error": sentence}
    assert "X-Made" not in answer.headers
    # Label Studio's client of ML backends shows this message.
    with pytest.raises(requests.HTTPError) as error:
        answer.raise_for_status()
    assert str(error.value).startswith(shown)
    assert len(answer.reason) <= 400


def test_idle_connections_make_room_for_new_ones_and_for_nothing_else(make_port: Callable[..., int]) -> None:
    answering, may_answer = threading.Event(), threading.Event()

    def answer() -> str:
        answering.set()
        assert may_answer.wait(30)
        return "late"

    app = Flask("several")
    app.get("/now")(lambda: "now")
    app.get("/late")(answer)
    port = make_port(app, threads=4, connection_limit=20)

    def connect(path: str = "") -> socket.socket:
        client = resources.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode() if path else b"")
        return client

    with ExitStack() as resources:
        asking = connect("/late")
        assert answering.wait(30)
        idle = [connect() for _ in range(60)]
        assert connect("/now").makefile("rb").read().endswith(b"now")
        assert idle[0].recv(1) == b"", "the oldest one is closed"
        may_answer.set()
        assert asking.makefile("rb").read().endswith(b"late"), "who waits for an answer is not idle"
