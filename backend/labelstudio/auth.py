"""Authentication of requests to Label Studio."""

import threading
import time
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from backend.errors import MediaError

_TIMEOUT = (5.0, 30.0)
# Label Studio's access tokens are valid for 300 s.
_ACCESS_LIFETIME = 240.0


def no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Send a request without credentials; with no auth at all, requests would read them from .netrc."""
    return request


class TokenAuth(AuthBase):
    """Adds a token to the requests that go to its own Label Studio.

    Args:
        url: Label Studio's address.
        token: a legacy token or a personal access token; empty: requests are sent without one.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token.strip()
        self._access = ("", 0.0)
        self._lock = threading.Lock()

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token to a request, if it goes to this Label Studio."""
        if self._token and request.url and self.serves(request.url):
            request.headers["Authorization"] = self._credentials()
        return request

    def serves(self, url: str) -> bool:
        """Whether `url` has the same origin as this Label Studio."""
        return _origin(url) == _origin(self._url)

    @property
    def is_personal(self) -> bool:
        """Whether the token is a personal access token; otherwise it is a legacy one."""
        # A JWT, which can only be exchanged for a short-lived access token.
        return self._token.count(".") == 2

    def _credentials(self) -> str:
        if not self.is_personal:
            return f"Token {self._token}"
        with self._lock:
            access, expiry = self._access
            if time.monotonic() >= expiry:
                # No redirects, so that the token goes nowhere else.
                response = requests.post(
                    f"{self._url}/api/token/refresh",
                    json={"refresh": self._token},
                    timeout=_TIMEOUT,
                    allow_redirects=False,
                    auth=no_auth,
                )
                if response.status_code != 200:
                    raise MediaError(
                        "Label Studio refused the personal access token: set LABEL_STUDIO_API_KEY to a new one"
                    )
                access = response.json()["access"]
                self._access = access, time.monotonic() + _ACCESS_LIFETIME
            return f"Bearer {access}"


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)
