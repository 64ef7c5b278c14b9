"""Downloads from the hub in a process of its own, because a hub that hangs cannot be interrupted otherwise.

The files are put where the hub's library looks for them before it downloads: it does not go on with a part of a file.

The request is one line of JSON on standard input; each line of JSON on standard output is one of:

- `{"host": …}`: it begins, at this host.
- `{"done": …, "total": …}`: bytes of all files, as they come.
- `{"folder": …}`: the folder with the files.
- `{"error": …, "status": …, "errno": …}`: the name of an error, its HTTP status and the system's number, or null.
"""

import hashlib
import json
import os
import re
import sys
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from huggingface_hub import HfApi, HfFileMetadata, constants, get_hf_file_metadata, hf_hub_url, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented, but not in its __all__
    build_hf_headers,
    disable_progress_bars,
    filter_repo_objects,
)

_POLL_SECONDS = 0.5
_TIMEOUT = 120.0
"""Seconds that the hub may take to answer a question; who asked for the download ends it sooner."""
_CHUNK_BYTES = 2**16
"""So much is written at once; with the library's 10 MB a slow line would seem to hang."""
_REPORT_SECONDS = 0.2
"""Time between two reports of what has come."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[\w-][\w.-]*")


class Damaged(Exception):
    """A file is not what the hub says that it is."""


class UnsafeName(Exception):
    """The hub names a file by more than a name: it would lie outside the cache."""


def main() -> None:
    """Do what the request asks for."""
    threading.Thread(target=_exit_with, args=(int(sys.argv[1]),), daemon=True).start()
    # What the library prints must not mix with ours.
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def send(**message: Any) -> None:
        output.write(json.dumps(message) + "\n")

    request: dict[str, Any] = json.loads(sys.stdin.readline())
    disable_progress_bars()
    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK_BYTES
    send(host=urlsplit(constants.ENDPOINT).hostname)
    try:
        _Files(**request, send=send).fetch()
        send(folder=snapshot_download(**request))
    except Exception as error:  # The network's errors have no common class.
        send(**describe_error(error))
    os._exit(0)


class _Files:
    """The files of a repository that match patterns, in the library's cache."""

    def __init__(
        self, repo_id: str, revision: str | None, allow_patterns: list[str], cache_dir: str, send: Any
    ) -> None:
        info = HfApi().model_info(repo_id, revision=revision or constants.DEFAULT_REVISION, timeout=_TIMEOUT)
        names = filter_repo_objects((file.rfilename for file in info.siblings or ()), allow_patterns=allow_patterns)
        urls = [hf_hub_url(repo_id, name, revision=info.sha) for name in names]
        self._files = [(url, get_hf_file_metadata(url, timeout=_TIMEOUT)) for url in urls]
        if not all(_NAME.fullmatch(file.etag) for _, file in self._files if file.etag):
            raise UnsafeName
        self._folder = Path(cache_dir) / repo_folder_name(repo_id=repo_id, repo_type="model") / "blobs"
        self._total = sum(file.size or 0 for _, file in self._files)
        self._send = send

    def fetch(self) -> None:
        """Fetch what is missing."""
        self._report()
        for url, file in self._files:
            if file.etag and file.size:
                self._fetch_file(url, file, self._folder / file.etag)

    def _fetch_file(self, url: str, file: HfFileMetadata, path: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._lock(path):
            part = _part_of(path)
            if path.exists():
                return
            with part.open("ab") as stream:
                size = stream.tell()
                target: Any = _Reporting(stream, self._report)
                http_get(url, target, resume_size=size, headers=build_hf_headers(), expected_size=file.size)
            if _SHA256.fullmatch(path.name) and _sha256(part) != path.name:
                part.unlink()
                raise Damaged
            part.rename(path)
        self._report()

    def _lock(self, path: Path) -> AbstractContextManager[Any]:
        """The lock of a file, once another process that fetches it is done; meanwhile its progress is ours."""
        lock, done = FileLock(f"{_part_of(path)}.lock"), self._done()
        while True:
            try:
                return lock.acquire(timeout=_POLL_SECONDS)
            except Timeout:
                if self._done() != done:
                    done = self._done()
                    self._report()

    def _done(self) -> int:
        paths = [self._folder / file.etag for _, file in self._files if file.etag]
        return sum(each.stat().st_size for path in paths for each in (path, _part_of(path)) if each.exists())

    def _report(self) -> None:
        self._send(done=self._done(), total=self._total)


class _Reporting:
    """A file that says now and then that it was written to."""

    def __init__(self, stream: BinaryIO, on_write: Any) -> None:
        self._stream, self._on_write, self._reported = stream, on_write, 0.0

    def write(self, data: bytes) -> int:
        count = self._stream.write(data)
        if time.monotonic() - self._reported >= _REPORT_SECONDS:
            self._stream.flush()
            self._on_write()
            self._reported = time.monotonic()
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe_error(error: BaseException) -> dict[str, Any]:
    """An error's type, and the first status and number among its causes."""
    message: dict[str, Any] = {"error": type(error).__name__, "status": None, "errno": None}
    cause: BaseException | None = error
    while cause is not None:
        if message["status"] is None and isinstance(cause, HfHubHTTPError):
            message["status"] = cause.response.status_code
        if message["errno"] is None and isinstance(cause, OSError):
            message["errno"] = cause.errno
        cause = cause.__cause__ or cause.__context__
    return message


def _exit_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)
