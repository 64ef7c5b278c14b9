"""Who may send requests: the password, the names that the server answers to, and the headers of every answer."""

import hmac
import ipaddress
import threading
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from flask import Flask, Response, jsonify, request

from backend.recent_values import RecentValues
from backend.settings import Settings

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
"""No other site may embed, frame or guess the type of an answer, and no answer is stored, unless a route says so."""

_GUESSES = 10.0
"""Wrong passwords that a client may send at once."""
_GUESSES_PER_SECOND = 0.2
_MAX_CLIENTS = 4096
"""How many clients' guesses are counted."""


def protect(app: Flask, settings: Settings, open_endpoints: Iterable[str] = (), token_blueprint: str = "") -> None:
    """Check every request before its route, and add the headers to every answer.

    Args:
        app: any Flask application; label-studio-ml's, too.
        open_endpoints: routes without a password, which check a signature instead.
        token_blueprint: routes whose client sends the password in the header Token.
    """
    hosts, guesses = AllowedHosts(settings), _Guesses()
    without_password = {*open_endpoints}

    @app.before_request
    def check() -> Response | None:
        if not settings.basic_auth_user:
            if hosts.allows(request.host):
                return None
            return _refusal(
                403,
                "this server does not answer to the name in the address: add it to allowed_hosts, or set "
                "basic_auth_user and basic_auth_pass",
            )
        if request.endpoint in without_password:
            return None
        client = request.remote_addr or ""
        if (wait := guesses.wait(client)) > 0:
            response = _refusal(429, "too many wrong passwords: try again later")
            response.headers["Retry-After"] = str(int(wait) + 1)
            return response
        if _has_password(settings):
            return None
        if token_blueprint and request.blueprint == token_blueprint:
            token = request.headers.get("Token", "")
            if hmac.compare_digest(token.encode(errors="replace"), settings.basic_auth_pass.encode()):
                return None
            if token:
                guesses.count(client)
            return _refusal(401, "the key is wrong: enter the server's password as the API key of Remote-Server")
        if request.authorization is not None:
            guesses.count(client)
        response = _refusal(401, "a user and password are needed: set them in Label Studio's model connection")
        response.headers["WWW-Authenticate"] = 'Basic realm="sam3-backend"'
        return response

    @app.after_request
    def add_headers(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response


def is_trusted_client(settings: Settings) -> bool:
    """Whether the current request comes from this machine, or with the password, which was then checked."""
    if settings.basic_auth_user:
        return True
    # A proxy on this machine passes on the requests of others.
    is_passed_on = "X-Forwarded-For" in request.headers or "Forwarded" in request.headers
    return _is_loopback(request.remote_addr or "") and not is_passed_on


def _has_password(settings: Settings) -> bool:
    login = request.authorization
    is_valid = login is not None and login.type == "basic"
    expected = ("username", settings.basic_auth_user), ("password", settings.basic_auth_pass)
    for key, right in expected:
        given = (login.get(key) if is_valid and login else None) or ""
        is_valid &= hmac.compare_digest(given.encode(errors="replace"), right.encode())
    return is_valid


def _refusal(status: int, message: str) -> Response:
    response: Response = jsonify({"error": message})
    response.status_code = status
    return response


class AllowedHosts:
    """The names that the server answers to; a page of another name may be one that was rebound to this machine.

    They are those of this machine, the address that the server listens on, that of `public_url`, and `allowed_hosts`.
    """

    def __init__(self, settings: Settings) -> None:
        self._names = {"localhost", settings.host.lower(), *(name.lower() for name in settings.allowed_hosts)}
        if settings.public_url:
            self._names.add((urlsplit(settings.public_url).hostname or "").lower())
        # A rebound page sends its name, never an address; where the server listens everywhere, each address is its own.
        self._any_address = settings.host in ("0.0.0.0", "::")  # noqa: S104 (nothing is bound here)

    def allows(self, host: str) -> bool:
        """Whether to answer a request with this Host header."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in self._names or name.endswith(".localhost") or "*" in self._names:
            return True
        return _is_loopback(name) or (self._any_address and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


class _Guesses:
    """Counts wrong passwords of each client. A client that has used up its guesses gets a new one every few seconds."""

    def __init__(self) -> None:
        self._left: RecentValues[tuple[float, float]] = RecentValues(_MAX_CLIENTS)
        self._lock = threading.Lock()

    def wait(self, client: str) -> float:
        """Seconds until the client may send a password again."""
        return max(0.0, (1.0 - self._now(_network(client))) / _GUESSES_PER_SECOND)

    def count(self, client: str) -> None:
        """Count a wrong password."""
        network = _network(client)
        with self._lock:
            self._left.put(network, (self._now(network) - 1.0, time.monotonic()))

    def _now(self, network: str) -> float:
        left, at = self._left.get(network) or (_GUESSES, time.monotonic())
        return min(_GUESSES, left + (time.monotonic() - at) * _GUESSES_PER_SECOND)


def _network(client: str) -> str:
    """What one client owns: an IPv4 address, or the 2^64 addresses of an IPv6 network."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client
    prefix = 32 if address.version == 4 else 64
    return str(ipaddress.ip_network((address, prefix), strict=False))
