"""Why a request to Label Studio failed, or Label Studio's to us, as one sentence that names the mend."""

import errno
import re
import socket
import ssl
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import requests

_UNKNOWN_AUTHORITY = {18, 19, 20, 21}
"""OpenSSL's codes for a certificate that no trusted authority has signed."""
_NOTHING_LISTENS = {errno.ECONNREFUSED, errno.EADDRNOTAVAIL}
"""The latter for the IPv6 address of localhost on a machine without IPv6."""
_PLAIN_HTTP = ("wrong_version", "record_layer", "http_request", "unknown_protocol")
"""What OpenSSL reports if the server answers without TLS."""
_WRONG_NAME = {62, 64}
_EXPIRED = {9, 10}
LOOSEN_GUARD = (
    "start Label Studio with USE_DEFAULT_BANNED_SUBNETS=false and USER_ADDITIONAL_BANNED_SUBNETS set to all networks "
    "but the backend's, as docker-compose.yml does"
)
"""Opens one network; ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false would open all private ones."""
_CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv")
_HANDSHAKE_TIMEOUT = 3.0
"""Seconds to find out whether a server speaks https."""


def is_container() -> bool:
    """Whether this process runs in a container of Docker or Podman."""
    return any(Path(mark).exists() for mark in _CONTAINER_MARKS)


def is_loopback(host: str) -> bool:
    """Whether the name or address means this machine."""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def origin(url: str) -> str:
    """The URL's scheme, host and port, without a user, a path or a query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def explain_failure(url: str, error: Exception) -> str:
    """Why Label Studio at this address did not answer.

    Args:
        url: its address, as the settings give it.
        error: what requests raised.
    """
    if isinstance(error, ValueError):  # InvalidURL, InvalidSchema, MissingSchema
        return "label_studio_url is not an address: write it like http://localhost:8080"
    address, host = origin(url), urlsplit(url).hostname or ""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"{address} {_explain_certificate(cause)}"
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        if any(mark in str(error).lower() for mark in _PLAIN_HTTP):
            return f"{address} does not speak https: set label_studio_url to http://{urlsplit(address).netloc}"
        return f"{address} closed the https handshake: check its TLS settings"
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        hint = ", in Docker to the name of Label Studio's service" if is_container() else ""
        return f"the name {host} of label_studio_url is unknown here: correct it{hint}"
    if any(isinstance(cause, OSError) and cause.errno in _NOTHING_LISTENS for cause in causes):
        if is_container() and is_loopback(host):
            port = urlsplit(url).port or 80
            return (
                f"nothing listens at {address}, which is this container itself: if Label Studio runs outside it, set "
                f"label_studio_url to http://host.docker.internal:{port} and start the container with "
                "--add-host=host.docker.internal:host-gateway, or use the name of Label Studio's service"
            )
        return f"nothing listens at {address}: start Label Studio, or correct label_studio_url"
    if isinstance(error, requests.ReadTimeout):
        return f"{address} accepts connections but does not answer: Label Studio may still be starting, or hang"
    if isinstance(error, requests.Timeout):
        return f"{address} cannot be reached in time: check the address, and firewalls between it and this machine"
    if url.startswith("http://") and _speaks_https(url):
        return _wrong_scheme(address)
    return f"{address} closed the connection without an answer ({type(error).__name__}): check that it is Label Studio"


def explain_response(url: str, response: requests.Response) -> str | None:
    """What is wrong with a response that Label Studio would not have given; None if it may be Label Studio's.

    Args:
        url: Label Studio's address, as the settings give it.
    """
    address = origin(url)
    if response.is_redirect:
        target = origin(str(response.headers.get("Location")))
        if target.startswith("http") and target != address:
            return f"{address} redirects to {target}: set label_studio_url to the address that browsers end up at"
        return f"{address} redirects instead of answering: set label_studio_url to Label Studio's own address"
    if response.status_code in (502, 503, 504):
        return f"{address} answers {response.status_code}: a proxy is there, but Label Studio behind it is not running"
    if response.status_code == 400 and url.startswith("http://") and _speaks_https(url):
        return _wrong_scheme(address)
    return None


def explain_refused_backend(backend: str, response: str) -> str:
    """Why Label Studio refused to connect a backend.

    Args:
        backend: the backend's address for Label Studio.
        response: the text of Label Studio's response.
    """
    address, host = origin(backend), urlsplit(backend).hostname or ""
    text = response.lower()
    if "reserved network" in text or "not allowed" in text:
        block = re.search(r"block: ([0-9a-f.:/]+)", text)
        network = block[1] if block else "its network"
        return f"Label Studio's guard refuses {address}, because it is in {network}: {LOOSEN_GUARD}"
    if "can't resolve" in text or "name or service not known" in text or "name resolution" in text:
        return f"Label Studio does not know the name {host}: give an address that its machine can resolve"
    if "authentication parameters" in text:
        return f"{address} needs a user and a password: set BASIC_AUTH_USER and BASIC_AUTH_PASS here as on the server"
    if "valid ml backend" in text:
        return f"Label Studio reaches {address}, but its setup failed: see the backend's log"
    where = "on Label Studio's machine" + (", which may be a container of its own" if is_loopback(host) else "")
    if "refused" in text:
        return f"nothing listens at {address} {where}: start the backend, or give the address it has from there"
    if "timed out" in text or "timeout" in text:
        return f"{address} does not answer {where}: check firewalls between them, and the backend's `host` setting"
    return f"Label Studio does not reach {address}: start the backend, or give the address it has from there"


def is_private(host: str) -> bool:
    """Whether Label Studio's guard may refuse the host; a name with dots is assumed to be public."""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host


def _explain_certificate(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _UNKNOWN_AUTHORITY:
        return (
            "has a certificate that no authority known here has signed: set ca_bundle to your authority's "
            "certificate (a PEM file)"
        )
    if error.verify_code in _WRONG_NAME:
        return "has a certificate for another name: set label_studio_url to the name in the certificate"
    if error.verify_code in _EXPIRED:
        return "has a certificate that has expired or is not valid yet: renew it, or set this machine's clock"
    return f"has a certificate that is not accepted ({error.verify_message}): correct it"


def _wrong_scheme(address: str) -> str:
    return f"{address} speaks https only: set label_studio_url to https://{urlsplit(address).netloc}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all errors inside it: requests and urllib3 wrap the real one several times."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = (*one.args, getattr(one, "reason", None), one.__cause__, one.__context__)
        waiting += [cause for cause in inner if isinstance(cause, BaseException)]


def _speaks_https(url: str) -> bool:
    """Whether a TLS handshake with the server succeeds; its certificate does not matter."""
    parts = urlsplit(url)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        address = parts.hostname or "", parts.port or 80
        with (
            socket.create_connection(address, _HANDSHAKE_TIMEOUT) as connection,
            context.wrap_socket(connection, server_hostname=parts.hostname),
        ):
            return True
    except (OSError, ValueError):
        return False
