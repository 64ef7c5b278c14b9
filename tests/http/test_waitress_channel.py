"""What waitress answers itself has the headers of every answer."""

import socket
import threading
from collections.abc import Iterator

import pytest
from flask import Flask
from waitress.server import create_server

from backend.http.security import HEADERS
from backend.http.waitress_channel import customize_channels


@pytest.fixture
def port() -> Iterator[int]:
    sockets: dict[int, object] = {}
    server = create_server(Flask("empty"), map=sockets, host="127.0.0.1", port=0, threads=1, max_request_body_size=9)
    customize_channels(sockets.values())
    threading.Thread(target=server.run, daemon=True).start()
    yield server.effective_port
    server.trigger.pull_trigger(server.close)
    server.task_dispatcher.shutdown()


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
