"""Each way in which Label Studio cannot be reached, with a real socket, has a sentence of its own."""

import errno
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import trustme

from backend.errors import SettingsError, StudioError
from backend.labelstudio import client as client_module
from backend.labelstudio import connection_errors
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.connection_errors import explain_failure, explain_refused_backend, is_private
from backend.settings_loader import read_settings

Answer = Callable[[socket.socket], None]


@contextmanager
def listening(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server on a port of this machine that does this with each connection; the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    plain, _ = server.accept()
                except TimeoutError:
                    continue
                try:
                    with tls.wrap_socket(plain, server_side=True) if tls else plain as connection:
                        connection.settimeout(2)
                        answer(connection)
                except OSError:  # a client that gives up
                    plain.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()
            thread.join()


def http(status: str, headers: str = "", body: str = "") -> Answer:
    """Answers every request with this."""

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n{body}".encode())

    return answer


def closed(connection: socket.socket) -> None:
    """Close the connection without an answer."""
    connection.recv(65536)


def silent(connection: socket.socket) -> None:
    """Keep the connection, and never answer."""
    connection.settimeout(2)
    while connection.recv(65536):
        pass


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def served_by(authority: trustme.CA, name: str = "localhost") -> ssl.SSLContext:
    """TLS with a certificate for this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def reason(url: str) -> str:
    """What is told of Label Studio at this address."""
    with pytest.raises(StudioError) as raised:
        LabelStudioClient(url, "t0ken").release()
    assert "t0ken" not in str(raised.value)
    return str(raised.value)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_TIMEOUT", (0.5, 0.5))
    monkeypatch.setattr(connection_errors, "is_container", lambda: False)


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    expected = f"nothing listens at http://127.0.0.1:{port}: start Label Studio, or correct label_studio_url"
    assert reason(f"http://user:secret@127.0.0.1:{port}/path?key=1") == expected


def test_in_a_container_its_own_address_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_errors, "is_container", lambda: True)
    told = reason("http://localhost:1")
    assert "which is this container itself" in told
    assert "http://host.docker.internal:1" in told
    assert "--add-host=host.docker.internal:host-gateway" in told


def test_localhost_without_ipv6_is_nothing_that_listens() -> None:
    error = requests.ConnectionError(OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"))
    assert explain_failure("http://localhost:8080", error).startswith("nothing listens at http://localhost:8080")


def test_a_name_is_unknown() -> None:
    assert reason("http://no-such-host.invalid:8080").startswith("the name no-such-host.invalid of label_studio_url")


def test_an_address_that_is_none() -> None:
    assert reason("localhost:8080").startswith("label_studio_url is not an address")


def test_no_connection_in_time() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        full = [socket.socket() for _ in range(3)]
        for one in full:  # Linux leaves connections beyond the queue without an answer
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        assert "cannot be reached in time" in reason("http://{}:{}".format(*server.getsockname()))
        for one in full:
            one.close()


def test_no_answer_in_time() -> None:
    with listening(silent) as port:
        assert "accepts connections but does not answer" in reason(f"http://127.0.0.1:{port}")


def test_a_connection_closed_without_an_answer() -> None:
    with listening(closed) as port:
        assert "closed the connection without an answer" in reason(f"http://127.0.0.1:{port}")


def test_http_to_a_port_of_https(authority: trustme.CA) -> None:
    with listening(http("200 OK"), served_by(authority)) as port:
        expected = f"http://localhost:{port} speaks https only: set label_studio_url to https://localhost:{port}"
        assert reason(f"http://localhost:{port}") == expected


def test_http_to_a_proxy_of_https(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy such as nginx answers 400 in plain HTTP on such a port."""
    monkeypatch.setattr(connection_errors, "_speaks_https", lambda url: True)
    with listening(http("400 Bad Request", body="<html>")) as port:
        assert "speaks https only" in reason(f"http://127.0.0.1:{port}")


def test_https_to_a_port_of_http() -> None:
    with listening(http("400 Bad Request")) as port:
        assert f"does not speak https: set label_studio_url to http://127.0.0.1:{port}" in reason(
            f"https://127.0.0.1:{port}"
        )


def test_a_certificate_of_an_unknown_authority(authority: trustme.CA) -> None:
    with listening(http("200 OK"), served_by(authority)) as port:
        assert "set ca_bundle" in reason(f"https://localhost:{port}")


def test_with_ca_bundle_it_is_trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, "")  # so that they are set back
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    read_settings(None, {"ca_bundle": str(tmp_path / "ca.pem"), "data_dir": str(tmp_path)})
    with listening(http("200 OK", body='{"release": "1.23.2"}'), served_by(authority)) as port:
        assert LabelStudioClient(f"https://localhost:{port}", "").release() == "1.23.2"
    assert len((tmp_path / "ca-bundle.pem").read_text().split("BEGIN CERTIFICATE")) > 100, "beside the public ones"


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\xff"])
def test_a_ca_bundle_without_certificates_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(SettingsError, match=r"ca_bundle cannot be used .* PEM file") as raised:
        read_settings(None, {"ca_bundle": str(tmp_path / "ca.pem"), "data_dir": str(tmp_path)})
    assert str(tmp_path) not in str(raised.value)


def test_a_certificate_for_another_name(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with listening(http("200 OK"), served_by(authority, "elsewhere.example")) as port:
        assert "certificate for another name" in reason(f"https://localhost:{port}")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (http("404 Not Found", body="{}"), "is not Label Studio"),
        (http("200 OK", body="<html>hello</html>"), "is not Label Studio"),
        (http("302 Found", "Location: https://ls.example/user/login\r\n"), "redirects to https://ls.example: set"),
        (http("302 Found", "Location: /login\r\n"), "redirects instead of answering"),
        (http("401 Unauthorized"), "answers 401 without Label Studio's own check"),
        (http("502 Bad Gateway"), "answers 502: a proxy is there, but Label Studio behind it is not running"),
    ],
)
def test_something_else_answers(answer: Answer, told: str) -> None:
    with listening(answer) as port:
        assert told in reason(f"http://127.0.0.1:{port}")


def test_label_studio_answers() -> None:
    with listening(http("200 OK", body='{"release": "1.23.2"}')) as port:
        assert LabelStudioClient(f"http://127.0.0.1:{port}", "").release() == "1.23.2"


@pytest.mark.parametrize(
    ("response", "told"),
    [
        # As Label Studio 1.23.2 words them.
        (
            '{"detail":"URL resolves to a reserved network address (block: 172.16.0.0/12)"}',
            "guard refuses http://backend:9090, because it is in 172.16.0.0/12: start Label Studio with "
            "USE_DEFAULT_BANNED_SUBNETS=false",
        ),
        ('{"detail":"Can\'t resolve hostname backend"}', "does not know the name backend"),
        (
            '{"detail":"... health check failed. [Errno 111] Connection refused"}',
            "nothing listens",
        ),
        ('{"detail":"... health check failed. ... (connect timeout=1.0)"}', "check firewalls"),
        ('{"detail":"Able to connect to ML Server, but authentication parameters were ..."}', "set BASIC_AUTH_USER"),
        ('{"detail":"... it doesn\'t look like a valid ML backend. Reason: 500"}', "its setup failed"),
        ("", "does not reach http://backend:9090"),
    ],
)
def test_why_label_studio_refuses_a_backend(response: str, told: str) -> None:
    assert told in explain_refused_backend("http://user:secret@backend:9090/", response)
    assert "secret" not in explain_refused_backend("http://user:secret@backend:9090/", response)


@pytest.mark.parametrize(
    ("host", "private"),
    [("10.1.2.3", True), ("::1", True), ("backend", True), ("8.8.8.8", False), ("backend.example.com", False)],
)
def test_which_addresses_label_studio_may_refuse(host: str, private: bool) -> None:
    assert is_private(host) is private
