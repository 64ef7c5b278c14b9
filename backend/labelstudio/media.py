"""A cache of the files that tasks refer to. A file appears in it only when its download is complete."""

import errno
import fcntl
import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from backend.errors import DiskFull, MediaError
from backend.labelstudio.addresses import AddressPolicy, parse_url
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.disk import Disk, touch
from backend.labelstudio.download import Download, RemoteFile, Validators
from backend.labelstudio.task_data import CLOUD_SCHEMES
from backend.labelstudio.transport import TransferGuard
from backend.settings import Settings
from backend.video import index_path

_FRESH_SECONDS = 60.0
"""A file that was checked so recently is not checked again; without an answer, a file counts as current."""
_LOWEST_RATE = 1024.0
"""Bytes a second that have to arrive."""
_WAIT_SECONDS = 0.1
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known of an address: the name of its file, its version, and when that was checked (Unix time)."""

    file: str
    validators: Validators
    checked: float

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """The saved entry; None: there is none."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(values["file"], Validators(**values["validators"]), values["checked"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, path: Path) -> None:
        """Replace the saved entry."""
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        try:
            part.write_text(json.dumps(asdict(self)), encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


class MediaCache:
    """A folder of downloaded files, one for each address.

    Args:
        folder: created on first use.
        max_bytes: the largest file to download.
        max_seconds: the longest time for one download.
        disk: how much may be kept; None: as much as there is room for.
        policy: which hosts other than Label Studio files may come from.
        use_proxy: use the proxy that the environment names.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        max_seconds: float,
        *,
        disk: Disk | None = None,
        policy: AddressPolicy | None = None,
        use_proxy: bool = False,
    ) -> None:
        self._folder, self._max_bytes, self._max_seconds = folder, max_bytes, max_seconds
        self._disk = disk or Disk(folder)
        self._policy, self._use_proxy = policy or AddressPolicy(), use_proxy
        self._locks: dict[str, tuple[threading.Lock, int]] = {}
        self._changing = threading.Lock()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The cache in `data_dir`, with the limits of the settings."""
        folder, limits = settings.data_dir.expanduser() / "media", settings.limits
        return cls(
            folder,
            limits.bytes,
            limits.seconds,
            disk=Disk(folder, limits.media, limits.reserve),
            policy=AddressPolicy(settings.media_allow),
            use_proxy=settings.use_proxy,
        )

    def fetch(self, url: str, client: LabelStudioClient | None, cancelled: Callable[[], bool] = lambda: False) -> Path:
        """The file at a task's url, downloaded if it is not in the cache; each file is downloaded by one thread only.

        A file that may have changed is checked, and downloaded again if it has. The name of the new one differs.

        Args:
            url: http(s), or a path on Label Studio.
            client: the task's Label Studio; its token is sent to its own origin only.
            cancelled: called often during the download, which stops once this returns true.

        Raises:
            MediaError: the download failed.
            DiskFull: there is no room for it.
        """
        url = _absolute_url(url, client)
        key = _key(url)
        with self._only_one(key, cancelled):
            entry = self._entry(key)
            if entry is None:
                return self._download(url, client, key, cancelled)
            path = self._folder / entry.file
            touch(path)
            if time.time() - entry.checked < _FRESH_SECONDS or not entry.validators.condition():
                return path
            return self._check(url, client, key, entry, cancelled)

    def has(self, url: str, client: LabelStudioClient | None) -> bool:
        """Whether a file is in the cache.

        Raises:
            MediaError: the url is not valid.
        """
        return self._entry(_key(_absolute_url(url, client))) is not None

    def forget(self, path: Path) -> None:
        """Remove a file, for instance one that is not a video; the next `fetch` downloads it again."""
        for each in (path, index_path(path)):
            each.unlink(missing_ok=True)
        self._record(path.name.partition("-")[0]).unlink(missing_ok=True)

    def _record(self, key: str) -> Path:
        return self._folder / f"{key}.json"

    def _entry(self, key: str) -> _Entry | None:
        entry = _Entry.load(self._record(key))
        return entry if entry and (self._folder / entry.file).exists() else None

    @contextmanager
    def _only_one(self, key: str, cancelled: Callable[[], bool]) -> Iterator[None]:
        """Let one thread at a time fetch a file; one that waits can be cancelled."""
        with self._changing:
            lock, count = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = lock, count + 1
        try:
            while not lock.acquire(timeout=_WAIT_SECONDS):
                if cancelled():
                    raise MediaError("the download was cancelled: send the request again")
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._changing:
                lock, count = self._locks.pop(key)
                if count > 1:
                    self._locks[key] = lock, count - 1

    def _check(
        self, url: str, client: LabelStudioClient | None, key: str, entry: _Entry, cancelled: Callable[[], bool]
    ) -> Path:
        """The current file of an address that was downloaded before; the old one if the server cannot be asked."""
        path = self._folder / entry.file
        try:
            new = self._download(url, client, key, cancelled, entry.validators)
        except (MediaError, DiskFull):
            new = path
        if new == path:
            replace(entry, checked=time.time()).save(self._record(key))
        return new

    def _download(
        self,
        url: str,
        client: LabelStudioClient | None,
        key: str,
        cancelled: Callable[[], bool],
        known: Validators | None = None,
    ) -> Path:
        remote = RemoteFile(url, client, self._policy, self._use_proxy, self._max_bytes)
        path = self._folder / f"{key}-{uuid.uuid4().hex[:8]}"
        part = path.with_name(f"{path.name}.part")
        late = f"the video did not arrive in {self._max_seconds:g} s: raise limits.seconds"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (
                TransferGuard(self._max_seconds, late, cancelled, _LOWEST_RATE) as guard,
                part.open("w+b") as file,
            ):
                part.chmod(0o600)
                fcntl.flock(file, fcntl.LOCK_EX)  # so that no other process takes it for a stale one
                validators = Download(remote, file, guard, self._disk.new_file(), known).run()
                if validators is None:
                    return self._folder / (self._entry(key) or _Entry(path.name, Validators(), 0)).file
                file.flush()
                part.replace(path)
            _Entry(path.name, validators, time.time()).save(self._record(key))
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise DiskFull("the disk of data_dir is full: free some space. Jobs continue then") from error
            raise MediaError(f"the video could not be saved ({error.strerror}): check data_dir") from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        return path


def _key(url: str) -> str:
    return hashlib.sha256(url.encode(errors="replace")).hexdigest()[:32]


def _absolute_url(url: str, client: LabelStudioClient | None) -> str:
    """A task's url, with Label Studio's address before a path. Spaces are encoded, as browsers do."""
    url = url.strip(" ").replace(" ", "%20")
    if url.startswith("/"):
        if client is None:
            raise MediaError(
                "the video is stored in Label Studio, whose address is unknown: set LABEL_STUDIO_URL and "
                "LABEL_STUDIO_API_KEY, or open the project's page once"
            )
        # Label Studio below a path may write that path into the addresses of uploads.
        below = urlsplit(client.url).path
        is_whole = below and url.startswith(f"{below}/")
        url = (client.url.removesuffix(below) if is_whole else client.url) + url
    if url.partition("://")[0] in CLOUD_SCHEMES:
        raise MediaError("Label Studio serves files in cloud storage for its tasks alone: give the task's number")
    parse_url(url)
    return url
