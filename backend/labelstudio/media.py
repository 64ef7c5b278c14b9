"""A task's video as a local file: streamed into a cache, in place only when whole."""

import hashlib
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from backend.errors import MediaError
from backend.labelstudio.auth import no_auth
from backend.labelstudio.client import LabelStudioClient

_CHUNK = 1 << 20
_TIMEOUT = (5.0, 30.0)
_REDIRECTS = 5


class MediaCache:
    """A folder of downloaded files, one for each address.

    Args:
        folder: where they are kept; made when first needed.
        max_bytes: the largest file that is fetched.
        max_seconds: the longest that one download may take.
    """

    def __init__(self, folder: Path, max_bytes: int, max_seconds: float) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def fetch(self, url: str, client: LabelStudioClient | None, cancelled: Callable[[], bool] = lambda: False) -> Path:
        """The file behind a task's url, downloaded unless it is here; one download at a time for each file.

        Args:
            url: http(s), or a path of Label Studio's own.
            client: the task's Label Studio; its token goes to its own origin alone.
            cancelled: asked often; where it says so, the download is given up.

        Raises:
            MediaError: it cannot be had: why, and what mends it.
        """
        url = _whole(url, client)
        path = self._path(url)
        with self._locks[path.name]:
            if not path.exists():
                self._download(url, client, path, cancelled)
        return path

    def has(self, url: str, client: LabelStudioClient | None) -> bool:
        """Whether a file is here already.

        Raises:
            MediaError: its address cannot be one.
        """
        return self._path(_whole(url, client)).exists()

    def _path(self, url: str) -> Path:
        return self._folder / hashlib.sha256(url.encode(errors="replace")).hexdigest()[:32]

    def forget(self, path: Path) -> None:
        """Fetch a file anew next time: what came was not what the task meant."""
        path.unlink(missing_ok=True)

    def _download(self, url: str, client: LabelStudioClient | None, path: Path, cancelled: Callable[[], bool]) -> None:
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        deadline = time.monotonic() + self._max_seconds
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._open(url, client) as answer, part.open("wb") as file:
                self._copy(answer, file, deadline, cancelled)
            part.replace(path)
        except requests.RequestException as error:
            raise MediaError(f"the video could not be fetched ({type(error).__name__}): is its server up?") from error
        except (HTTPError, ValueError) as error:
            raise MediaError(
                f"the video could not be fetched ({type(error).__name__}): check the task's url"
            ) from error
        except OSError as error:
            raise MediaError(f"the video could not be kept ({error.strerror}): make room in data_dir") from error
        finally:
            part.unlink(missing_ok=True)

    def _open(self, url: str, client: LabelStudioClient | None) -> requests.Response:
        """The answer to GET, redirects followed by hand so that each hop decides anew about the token."""
        for _ in range(_REDIRECTS + 1):
            answer = requests.get(
                url, auth=client.auth if client else no_auth, stream=True, timeout=_TIMEOUT, allow_redirects=False
            )
            if answer.status_code == 200:
                return answer
            answer.close()
            if not answer.is_redirect:
                break
            url = urljoin(url, answer.headers["Location"])
            if not _is_http(url):
                raise MediaError("the video's server redirects to an address that is not http: correct the task's url")
        mend = (
            "set LABEL_STUDIO_API_KEY to a valid token" if answer.status_code in (401, 403) else "check the task's url"
        )
        raise MediaError(f"the video's server answered {answer.status_code}: {mend}")

    def _copy(self, answer: requests.Response, file: BinaryIO, deadline: float, cancelled: Callable[[], bool]) -> None:
        announced = int(answer.headers.get("Content-Length") or 0)
        count = 0
        # read1 hands over what has come: a server that drips must not outlive the deadline within one chunk.
        while chunk := answer.raw.read1(_CHUNK, decode_content=True):
            count += len(chunk)
            if max(count, announced) > self._max_bytes:
                raise MediaError(f"the video is larger than {self._max_bytes >> 20} MiB: raise limits.bytes")
            if time.monotonic() > deadline:
                raise MediaError(f"the video did not arrive in {self._max_seconds:g} s: raise limits.seconds")
            if cancelled():
                raise MediaError("nobody waits for the video any more: ask again")
            file.write(chunk)
        if announced and count < announced and "Content-Encoding" not in answer.headers:
            raise MediaError("the video's server broke off: ask again")


def _whole(url: str, client: LabelStudioClient | None) -> str:
    """A task's url with the place that it is at."""
    if url.startswith("/"):
        if client is None:
            raise MediaError(
                "the video is kept by Label Studio, whose address is unknown here: set LABEL_STUDIO_URL and "
                "LABEL_STUDIO_API_KEY, or open the project's page once"
            )
        url = client.url + url
    if not _is_http(url):
        raise MediaError("the video's address cannot be fetched: use http or https")
    return url


def _is_http(url: str) -> bool:
    try:
        return urlsplit(url).scheme in ("http", "https")
    except ValueError:
        return False
