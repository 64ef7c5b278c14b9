"""Authentication of requests to Label Studio."""

import json
import threading
import time

import requests
from requests.auth import AuthBase

from backend.errors import MediaError
from backend.labelstudio.addresses import origin_of
from backend.labelstudio.transport import TransferGuard, open_session, read_answer

_TIMEOUT = (5.0, 30.0)
_SECONDS = 60.0
"""Within which Label Studio has to answer."""
_MAX_ANSWER = 1 << 20
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
        use_proxy: use the proxy that the environment names.

    Attributes:
        origin: of Label Studio; None: its address is none.
    """

    def __init__(self, url: str, token: str, use_proxy: bool = False) -> None:
        self._url, self.origin, self._use_proxy = url, origin_of(url), use_proxy
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
        return self.origin is not None and origin_of(url) == self.origin

    def renew(self) -> bool:
        """Drop the access token, so that the next request gets a new one; False: this token cannot be renewed."""
        with self._lock:
            self._access = ("", 0.0)
        return self.is_personal

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
                access = self._refresh()
                self._access = access, time.monotonic() + _ACCESS_LIFETIME
            return f"Bearer {access}"

    def _refresh(self) -> str:
        """A new access token."""
        late = "Label Studio does not answer in time: check that it is running"
        with (
            TransferGuard(_SECONDS, late) as guard,
            open_session(guard, self.origin, use_proxy=self._use_proxy) as http,
        ):
            # No redirects, so that the token goes nowhere else.
            response = http.post(
                f"{self._url}/api/token/refresh",
                json={"refresh": self._token},
                timeout=_TIMEOUT,
                allow_redirects=False,
                auth=no_auth,
                stream=True,
            )
            body = read_answer(response, guard, _MAX_ANSWER)
        try:
            access = json.loads(body)["access"] if response.status_code == 200 else None
        except (ValueError, KeyError, TypeError, RecursionError):
            access = None
        if not isinstance(access, str):
            raise MediaError("Label Studio refused the personal access token: set LABEL_STUDIO_API_KEY to a new one")
        return access
