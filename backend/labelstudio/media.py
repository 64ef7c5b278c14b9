"""A cache of the files that tasks refer to. A file appears in it only when its download is complete."""

import errno
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

from backend.errors import MediaError, StoreError
from backend.labelstudio.auth import no_auth
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.task_data import CLOUD_SCHEMES

_CHUNK = 1 << 20
_TIMEOUT = (5.0, 30.0)
_REDIRECTS = 5


class MediaCache:
    """A folder of downloaded files, one for each address.

    Args:
        folder: created on first use.
        max_bytes: the largest file to download.
        max_seconds: the longest time for one download.
    """

    def __init__(self, folder: Path, max_bytes: int, max_seconds: float) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def fetch(self, url: str, client: LabelStudioClient | None, cancelled: Callable[[], bool] = lambda: False) -> Path:
        """The file at a task's url, downloaded if it is not in the cache; each file is downloaded by one thread only.

        Args:
            url: http(s), or a path on Label Studio.
            client: the task's Label Studio; its token is sent to its own origin only.
            cancelled: called often during the download, which stops once this returns true.

        Raises:
            MediaError: the download failed.
        """
        url = _absolute_url(url, client)
        path = self._path(url)
        with self._locks[path.name]:
            if not path.exists():
                self._download(url, client, path, cancelled)
        return path

    def has(self, url: str, client: LabelStudioClient | None) -> bool:
        """Whether a file is in the cache.

        Raises:
            MediaError: the url is not valid.
        """
        return self._path(_absolute_url(url, client)).exists()

    def _path(self, url: str) -> Path:
        return self._folder / hashlib.sha256(url.encode(errors="replace")).hexdigest()[:32]

    def forget(self, path: Path) -> None:
        """Remove a file, for instance one that is not a video; the next `fetch` downloads it again."""
        path.unlink(missing_ok=True)

    def _download(self, url: str, client: LabelStudioClient | None, path: Path, cancelled: Callable[[], bool]) -> None:
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        deadline = time.monotonic() + self._max_seconds
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._open(url, client) as response, part.open("wb") as file:
                self._copy(response, file, deadline, cancelled)
            part.replace(path)
        except requests.RequestException as error:
            raise MediaError(f"the video could not be fetched ({type(error).__name__}): is its server up?") from error
        except (HTTPError, ValueError) as error:
            raise MediaError(
                f"the video could not be fetched ({type(error).__name__}): check the task's url"
            ) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreError("the disk of data_dir is full: free some space. Jobs continue then") from error
            raise MediaError(f"the video could not be saved ({error.strerror}): make room in data_dir") from error
        finally:
            part.unlink(missing_ok=True)

    def _open(self, url: str, client: LabelStudioClient | None) -> requests.Response:
        """The response to GET. Follows redirects itself, so that every hop decides whether to send the token."""
        for _ in range(_REDIRECTS + 1):
            response = requests.get(
                url, auth=client.auth if client else no_auth, stream=True, timeout=_TIMEOUT, allow_redirects=False
            )
            if response.status_code == 200:
                return response
            response.close()
            if not response.is_redirect:
                break
            url = urljoin(url, response.headers["Location"])
            if not _is_http(url):
                raise MediaError("the video's server redirects to an address that is not http: correct the task's url")
        if response.status_code in (401, 403):
            mend = "set LABEL_STUDIO_API_KEY to a valid token"
        elif "/resolve/?fileuri=" in url:
            mend = "connect the project to the file's bucket, under Settings → Cloud Storage"
        else:
            mend = "check the task's url"
        raise MediaError(f"the video's server answered {response.status_code}: {mend}")

    def _copy(
        self, response: requests.Response, file: BinaryIO, deadline: float, cancelled: Callable[[], bool]
    ) -> None:
        announced = int(response.headers.get("Content-Length") or 0)
        count = 0
        # read1 returns whatever has arrived, so that a slow server cannot exceed the deadline within one chunk.
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            count += len(chunk)
            if max(count, announced) > self._max_bytes:
                raise MediaError(f"the video is larger than {self._max_bytes >> 20} MiB: raise limits.bytes")
            if time.monotonic() > deadline:
                raise MediaError(f"the video did not arrive in {self._max_seconds:g} s: raise limits.seconds")
            if cancelled():
                raise MediaError("the download was cancelled: send the request again")
            file.write(chunk)
        if announced and count < announced and "Content-Encoding" not in response.headers:
            raise MediaError("the video's server closed the connection too early: try again")


def _absolute_url(url: str, client: LabelStudioClient | None) -> str:
    """A task's url, with Label Studio's address before a path."""
    if url.startswith("/"):
        if client is None:
            raise MediaError(
                "the video is stored in Label Studio, whose address is unknown: set LABEL_STUDIO_URL and "
                "LABEL_STUDIO_API_KEY, or open the project's page once"
            )
        url = client.url + url
    if url.partition("://")[0] in CLOUD_SCHEMES:
        raise MediaError("Label Studio serves files in cloud storage for its tasks alone: give the task's number")
    if not _is_http(url):
        raise MediaError("the video's address is not valid: use http or https")
    return url


def _is_http(url: str) -> bool:
    try:
        return urlsplit(url).scheme in ("http", "https")
    except ValueError:
        return False
