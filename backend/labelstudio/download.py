"""Downloads one file: follows redirects, tries again, continues after a cut, and keeps only what arrived whole."""

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import BinaryIO
from urllib.parse import urljoin

import requests
from urllib3.exceptions import HTTPError, NewConnectionError

from backend.errors import MediaError
from backend.labelstudio.addresses import AddressPolicy, origin_of, parse_url
from backend.labelstudio.auth import no_auth
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.transport import TransferGuard, open_session

_CHUNK = 1 << 20
_TIMEOUT = (5.0, 30.0)
_CHECK_TIMEOUT = (2.0, 5.0)
"""While a copy is here, nobody waits long for a server to say that it is current."""
_MAX_REDIRECTS = 3
_MAX_RETRIES = 3
_FIRST_DELAY = 0.5
"""Seconds before the first retry; each further one waits twice as long, and all of them vary."""
_UNCHANGED = HTTPStatus.NOT_MODIFIED
_PLAIN_ENCODINGS = ("", "identity", "aws-chunked")
"""S3 keeps `aws-chunked` of an upload as the file's encoding, and sends the file as it is."""


@dataclass(frozen=True, slots=True)
class Validators:
    """What a server says of a file's version; empty where it says nothing."""

    etag: str = ""
    modified: str = ""

    @classmethod
    def from_response(cls, response: requests.Response) -> "Validators":
        """The validators in a response's headers."""
        return cls(response.headers.get("ETag", "")[:1024], response.headers.get("Last-Modified", "")[:64])

    def condition(self) -> dict[str, str]:
        """Headers that request the file only if it has changed."""
        named = {"If-None-Match": self.etag, "If-Modified-Since": self.modified}
        return {name: value for name, value in named.items() if value}

    @property
    def strong(self) -> str:
        """What identifies the bytes of the file, for `If-Range`; empty: nothing does."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """Where a file is, and who may be asked for it.

    Attributes:
        url: http(s).
        client: the task's Label Studio; None: it is not known.
        policy: which other hosts are permitted.
        use_proxy: use the proxy that the environment names.
        max_bytes: the largest file.
    """

    url: str
    client: LabelStudioClient | None
    policy: AddressPolicy
    use_proxy: bool
    max_bytes: int


class _Interrupted(Exception):
    """The download may succeed if it is tried again.

    Attributes:
        delay: seconds that the server asks to wait for; None: it does not say.
        fix: what somebody can do if it fails again.
    """

    def __init__(self, message: str, delay: float | None = None, fix: str = "try again") -> None:
        super().__init__(message)
        self.delay, self.fix = delay, fix


class Download:
    """One download of a file into an open, empty one.

    Args:
        file: for reading and writing.
        guard: ends it.
        room: called before so many bytes are written; raises BackendError if there is no room for them.
        known: of a copy that is here; the download then ends early if the file has not changed.
    """

    def __init__(
        self,
        remote: RemoteFile,
        file: BinaryIO,
        guard: TransferGuard,
        room: Callable[[int], None],
        known: Validators | None = None,
    ) -> None:
        self._remote, self._file, self._guard, self._room, self._known = remote, file, guard, room, known
        self._validators = Validators()
        self._written = 0
        self._hop = parse_url(remote.url)

    def run(self) -> Validators | None:
        """Download the file.

        Returns:
            The validators of what was written; None: the file has not changed since the known copy.

        Raises:
            BackendError: it cannot be had.
        """
        retries = 0 if self._known else _MAX_RETRIES
        for retry in range(retries + 1):
            try:
                return self._attempt()
            except _Interrupted as failure:
                self._guard.check()
                delay = failure.delay
                if retry == retries:
                    raise MediaError(f"{failure}: {failure.fix}") from failure
                if delay is None:
                    delay = _FIRST_DELAY * 2**retry * random.uniform(0.5, 1.5)  # noqa: S311 (no secret)
                if delay >= self._guard.left:
                    raise MediaError(f"{failure}, and asks to wait {delay:.0f} s: try again then") from failure
                self._guard.sleep(delay)
        raise AssertionError("unreachable")

    def _attempt(self) -> Validators | None:
        try:
            with self._session() as session, self._open(session) as response:
                if response.status_code == _UNCHANGED and self._known:
                    return None
                self._copy(response)
        except ValueError as error:
            raise MediaError("the video could not be fetched: check the task's url") from error
        except (requests.RequestException, HTTPError) as error:
            self._guard.check()
            if _is_unreachable(error):
                raise MediaError(self._unreachable()) from error
            raise _Interrupted(_CUT) from error
        return self._validators

    def _session(self) -> requests.Session:
        remote = self._remote
        own = origin_of(remote.client.url) if remote.client else None
        return open_session(self._guard, own, remote.policy, remote.use_proxy)

    def _open(self, session: requests.Session) -> requests.Response:
        """The response to GET. Follows redirects itself, so that every hop decides whether to send the token."""
        client, url = self._remote.client, self._remote.url
        is_own, is_renewed = client is not None, False
        redirects = 0
        while True:
            self._hop = parse_url(url)
            # Once another server had a say in where the request goes, Label Studio must not take it for ours.
            is_own = is_own and client is not None and client.auth.serves(url)
            response = session.get(
                url,
                headers=self._headers(),
                auth=client.auth if client and is_own else no_auth,
                stream=True,
                timeout=_CHECK_TIMEOUT if self._known else _TIMEOUT,
                allow_redirects=False,
            )
            if response.status_code in (200, 206) or (response.status_code == _UNCHANGED and self._known):
                return response
            response.close()
            if response.status_code == 401 and is_own and client and not is_renewed and client.auth.renew():
                is_renewed = True
                continue
            if not response.is_redirect:
                raise self._refusal(response, url)
            redirects += 1
            if redirects > _MAX_REDIRECTS:
                raise self._refusal(response, url)
            url = _redirect_target(url, response.headers["Location"])

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        if self._written and self._validators.strong:
            headers |= {"Range": f"bytes={self._written}-", "If-Range": self._validators.strong}
        elif self._known:
            headers |= self._known.condition()
        return headers

    def _refusal(self, response: requests.Response, url: str) -> Exception:
        """The error for a status; one that may pass is an `_Interrupted`."""
        status = response.status_code
        said = f"the video's server answered {status}"
        if status == 416:  # the file is shorter than what is here, so it has changed
            self._written, self._validators = 0, Validators()
            return _Interrupted(said)
        if status == 429 or status >= 500:
            fix = "try again later" if status == 429 else "open the video in the browser, it may be deleted"
            return _Interrupted(said, _retry_after(response.headers), fix)
        if status in (401, 403):
            fix = "set LABEL_STUDIO_API_KEY to a valid token"
        elif "/resolve/?fileuri=" in url:
            fix = "connect the project to the file's bucket, under Settings → Cloud Storage"
        else:
            fix = "check the task's url"
        return MediaError(f"{said}: {fix}")

    def _copy(self, response: requests.Response) -> None:
        if response.headers.get("Content-Encoding", "").strip().lower() not in _PLAIN_ENCODINGS:
            raise MediaError("the video's server sends it compressed: switch that off for videos")
        total = self._start(response)
        # read1 returns whatever has arrived, so that the guard counts it at once.
        while chunk := response.raw.read1(_CHUNK, decode_content=False):
            self._guard.check()
            self._guard.add_bytes(len(chunk))
            self._check_size(self._written + len(chunk))
            self._room(len(chunk))
            self._file.write(chunk)
            self._written += len(chunk)
        self._guard.check()
        if total is not None and self._written != total:
            raise _Interrupted(_CUT)
        self._file.truncate()

    def _start(self, response: requests.Response) -> int | None:
        """Go to where the body belongs in the file; returns the whole file's size, or None if it is not known."""
        length = _count(response.headers.get("Content-Length"))
        if response.status_code == 206:
            place = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("Content-Range", ""))
            is_same = Validators.from_response(response).strong in ("", self._validators.strong)
            if place is None or int(place[1]) != self._written or not is_same:
                self._written, self._validators = 0, Validators()
                raise _Interrupted("the video's server sent another part than was asked for")
            total = int(place[2]) if place[2] != "*" else length and self._written + length
        else:
            self._written, self._validators, total = 0, Validators.from_response(response), length
        self._file.seek(self._written)
        self._check_size(total or 0)
        self._room(max(0, (total or 0) - self._written))
        return total

    def _check_size(self, size: int) -> None:
        if size > self._remote.max_bytes:
            raise MediaError(f"the video is larger than {self._remote.max_bytes >> 20} MiB: raise limits.bytes")

    def _unreachable(self) -> str:
        """One sentence for a refused address and for one that does not answer: it must not tell what is where."""
        client, host = self._remote.client, self._hop.hostname or ""
        if client and client.auth.serves(self._hop.geturl()):
            return "the video could not be fetched: is its server up? Label Studio does not answer"
        return (
            f"the video could not be fetched from {host}: is its server up? If its address is private, "
            f"add {host} to media_allow"
        )


_CUT = "the video's server closed the connection too early"


def _is_unreachable(error: Exception) -> bool:
    """Whether no connection was made; otherwise it broke off."""
    cause = getattr(error.args[0], "reason", None) if error.args else None
    unreachable = requests.exceptions.SSLError | requests.exceptions.ConnectTimeout
    return isinstance(error, unreachable) or isinstance(cause, NewConnectionError)


def _redirect_target(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
    except ValueError:
        target = ""
    if origin_of(target) is None:
        raise MediaError("the video's server redirects to an address that is not http: correct the task's url")
    return target


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 18 else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for: a number, or a date."""
    value = headers.get("Retry-After", "").strip()
    if (seconds := _count(value)) is not None:
        return float(seconds)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
