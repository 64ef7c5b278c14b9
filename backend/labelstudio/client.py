"""One Label Studio, and who may see its token: its own origin, nobody else."""

import threading
import time
from urllib.parse import urlsplit

import requests

from backend.errors import MediaError

_TIMEOUT = (5.0, 30.0)
# Label Studio's access tokens live for 300 s.
_ACCESS_LIFETIME = 240.0


class Client:
    """One Label Studio and a token for it.

    Args:
        url: its address, with the path below which it is served, if any.
        token: a legacy token or a personal access token; empty: ask without one.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        self._token = token.strip()
        self._access = ("", 0.0)
        self._lock = threading.Lock()

    def serves(self, url: str) -> bool:
        """Whether `url` is of this Label Studio's own origin."""
        return _origin(url) == _origin(self.url)

    def authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token to a request to this Label Studio; to any other address, nothing."""
        if self._token and request.url and self.serves(request.url):
            request.headers["Authorization"] = self._credentials()
        return request

    def _credentials(self) -> str:
        # A personal access token is a JWT that is only good for asking for a short-lived one.
        if self._token.count(".") != 2:
            return f"Token {self._token}"
        with self._lock:
            access, until = self._access
            if time.monotonic() >= until:
                # No redirects, and an auth that does nothing: the token goes nowhere else, and no .netrc is read.
                answer = requests.post(
                    f"{self.url}/api/token/refresh",
                    json={"refresh": self._token},
                    timeout=_TIMEOUT,
                    allow_redirects=False,
                    auth=lambda request: request,
                )
                if answer.status_code != 200:
                    raise MediaError(
                        "Label Studio refused the personal access token: set LABEL_STUDIO_API_KEY to a new one"
                    )
                access = answer.json()["access"]
                self._access = access, time.monotonic() + _ACCESS_LIFETIME
            return f"Bearer {access}"


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)
