"""The door: names that are answered to, passwords that are guessed, headers, and what a log line may contain."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from backend.http.app import create_app
from backend.http.security import HEADERS, AllowedHosts, protect
from backend.logs import _OneLine, printable
from backend.settings import Settings
from tests.labelstudio.bodies import CONFIG

LOCAL = ["localhost", "localhost:9090", "LOCALHOST", "127.0.0.1:9090", "127.8.8.8", "[::1]:9090", "x.localhost"]
FOREIGN = [
    *("evil.example", "evil.example:9090", "127.0.0.1.nip.io", "localhost.evil.example", "10.0.0.1", "169.254.169.254"),
    *("[::ffff:10.0.0.1]", "0.0.0.0", "", "evil.example@localhost", "[bad"),
]


@pytest.mark.parametrize("host", LOCAL)
def test_the_names_of_this_machine_are_answered_to(host: str) -> None:
    assert AllowedHosts(Settings()).allows(host)


@pytest.mark.parametrize("host", FOREIGN)
def test_other_names_are_not_unless_they_are_set(host: str) -> None:
    if host != "evil.example@localhost":  # its name is localhost, and browsers send no user
        assert not AllowedHosts(Settings()).allows(host)


def test_the_address_that_is_listened_on_and_the_names_of_the_settings_are_answered_to() -> None:
    settings = Settings(host="gpu.lan", public_url="https://sam3.example/below", allowed_hosts=("studio",))
    for host in ("gpu.lan:9090", "sam3.example", "Studio:80"):
        assert AllowedHosts(settings).allows(host)
    everywhere = AllowedHosts(Settings(host="0.0.0.0"))
    assert everywhere.allows("10.1.2.3:9090")
    assert not everywhere.allows("evil.example")
    assert AllowedHosts(Settings(allowed_hosts=("*",))).allows("evil.example")


def test_a_rebound_name_reaches_no_route(make_service) -> None:
    client = create_app(make_service()).test_client()
    for method, path in (("GET", "/health"), ("GET", "/jobs"), ("POST", "/setup"), ("POST", "/predict"), ("GET", "/")):
        answer = client.open(path, method=method, json={}, headers={"Host": "evil.example"})
        assert (answer.status_code, "allowed_hosts" in answer.json["error"]) == (403, True), path
    assert client.delete("/jobs/1", headers={"Host": "evil.example", "X-Sam3-Backend": "1"}).status_code == 403


def test_with_a_password_any_name_will_do(make_service) -> None:
    client = create_app(make_service(basic_auth_user="ann", basic_auth_pass="right")).test_client()
    answer = client.get("/health", headers={"Host": "sam3-backend.internal:9090"}, auth=("ann", "right"))
    assert answer.status_code == 200


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> tuple[FlaskClient, list[float]]:
    """An application with a password, and its clock."""
    app, clock = Flask("guarded"), [1000.0]
    protect(app, Settings(basic_auth_user="ann", basic_auth_pass="right"))
    app.get("/")(lambda: "in")
    monkeypatch.setattr("backend.http.security.time", SimpleNamespace(monotonic=lambda: clock[0]))
    return app.test_client(), clock


def test_guesses_are_slowed(guarded) -> None:
    client, clock = guarded
    statuses = [client.get("/", auth=("ann", str(number))).status_code for number in range(1000)]
    assert statuses == [401] * 10 + [429] * 990
    refused = client.get("/", auth=("ann", "right"))
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "6")
    clock[0] += 6
    assert client.get("/", auth=("ann", "right")).status_code == 200


def test_only_the_guessing_client_is_slowed(guarded) -> None:
    client, _ = guarded

    def status(address: str, password: str) -> int:
        return client.get("/", auth=("ann", password), environ_base={"REMOTE_ADDR": address}).status_code

    for number in range(20):  # addresses of one network, which one machine may take in turn
        status(f"2001:db8::{number}", "wrong")
    assert status("2001:db8::ffff", "right") == 429
    assert status("2001:db8:0:1::1", "right") == 200
    assert status("10.0.0.1", "right") == 200


def test_asking_without_a_password_is_no_guess(guarded) -> None:
    client, _ = guarded
    assert {client.get("/").status_code for _ in range(100)} == {401}


@pytest.mark.parametrize("value", ["Basic", "Basic !!!", "Bearer x", "Basic w7/Dvw==", "Basic " + "A" * 10000, "\x7f"])
def test_a_login_that_is_none_is_refused(guarded, value: str) -> None:
    client, _ = guarded
    assert client.get("/", headers={"Authorization": value}).status_code == 401


def test_every_answer_has_the_headers(make_service) -> None:
    client = create_app(make_service()).test_client()
    for path in ("/", "/health", "/jobs", "/nowhere", "/frames/abc/1.jpg", "/versions", "/web/none"):
        headers = client.get(path).headers
        assert [name for name in HEADERS if name not in headers] == [], path
    assert client.post("/predict", json={}).headers["X-Content-Type-Options"] == "nosniff"


# /setup


@pytest.mark.parametrize(
    ("settings", "request_", "is_known"),
    [
        ({}, {}, True),
        ({}, {"environ_base": {"REMOTE_ADDR": "10.0.0.9"}}, False),
        ({}, {"headers": {"X-Forwarded-For": "10.0.0.9"}}, False),
        (
            {"basic_auth_user": "ann", "basic_auth_pass": "right"},
            {"environ_base": {"REMOTE_ADDR": "10.0.0.9"}, "auth": ("ann", "right")},
            True,
        ),
        ({"label_studio_url": "http://studio:8080"}, {}, False),
    ],
)
def test_an_address_in_setup_counts_from_this_machine_or_with_the_password(
    make_service, settings: dict[str, Any], request_: dict[str, Any], is_known: bool
) -> None:
    service = make_service(**settings)
    body = {"project": "3.1", "schema": CONFIG, "hostname": "http://10.0.0.1:8085", "access_token": "t0ken"}
    assert create_app(service).test_client().post("/setup", json=body, **request_).status_code == 200
    client = service.connections.client("3")
    assert (client is not None and client.url == "http://10.0.0.1:8085") == is_known


@pytest.mark.parametrize(
    "changes",
    [
        {"hostname": "http://x/ok?x="},
        {"hostname": "http://x/#"},
        {"hostname": "http://user:pw@x/"},
        {"hostname": "file:///etc/passwd"},
        {"hostname": "http://x/" + "a" * 4_000_000},
        {"hostname": "http://x/\n"},
        {"access_token": "t" * 100_000},
    ],
)
def test_an_address_in_setup_that_is_none_is_refused_and_not_stored(make_service, changes: dict[str, str]) -> None:
    service = make_service()
    body = {"project": "3.1", "schema": CONFIG, "hostname": "http://x", "access_token": "t"} | changes
    answer = create_app(service).test_client().post("/setup", json=body)
    assert (answer.status_code, "/setup" in answer.json["error"]) == (400, True)
    assert service.connections.client("3") is None


# Log lines


def test_nobody_can_forge_a_log_line(make_service, caplog) -> None:
    client = create_app(make_service()).test_client()
    client.get("/frames/abc%0aERROR%20root:%20forged/1.jpg")
    client.post("/validate", json={"config": "<View/>\nERROR forged\r\x1b[2J"})
    lines = [_OneLine("%(levelname)s %(message)s").format(record) for record in caplog.records]
    assert len(lines) >= 2
    assert [line for line in lines if not line.isprintable() or "forged" in line] == []


def test_control_characters_are_written_out_and_long_lines_shortened() -> None:
    assert printable("a\nb\x1b[1m\u2028c\x9b") == "a\\x0ab\\x1b[1m\\x2028c\\x9b"
    assert len(printable("a" * 10**6)) < 5000


def test_a_traceback_keeps_its_lines_but_begins_none() -> None:
    try:
        raise ValueError("x\nERROR forged")
    except ValueError as error:
        record = logging.LogRecord("n", logging.ERROR, "", 1, "failed", (), (ValueError, error, error.__traceback__))
    first, *rest = _OneLine("%(levelname)s %(message)s").format(record).split("\n")
    assert first == "ERROR failed"
    assert {line[:4] for line in rest} == {"    "}
