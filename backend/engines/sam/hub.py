"""Downloads weights from the hub: resumed after a cut, checked when whole, with progress."""

import errno
import json
import logging
import os
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE

from backend.child_process import python_command
from backend.engines.sam.weights import Family
from backend.errors import SettingsError, existing_folder, explain_unwritable

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
WEIGHT_FILE = re.compile(r"\.(pt|pth|bin|safetensors)$")
"""The suffix of a weights file; no repository has it."""
SILENCE_SECONDS = 60.0
"""A hub that sends nothing for so long hangs."""
_START_SECONDS = 300.0
"""How long the process may take to begin, on a machine that is busy."""
_MAIN = "from backend.engines.sam.hub_process import main; main()"
_SILENCE = "it is silent"
_UNSAFE = "UnsafeName"
"""The error of `hub_process`, which is not loaded in this process."""
_TRANSIENT_STATUSES = (408, 429, 500, 502, 503, 504)
_MORE_ROOM = "free some space, or set model_dir to a folder on another disk"


class DownloadInterrupted(SettingsError):
    """The hub hangs, is overloaded, or was cut off in the middle: the same may succeed later.

    Attributes:
        trouble: what happened.
    """

    def __init__(self, trouble: str) -> None:
        super().__init__(f"{trouble}; what has come is kept: try again later")
        self.trouble = trouble


def download(
    repository: str,
    revision: str,
    model_dir: str,
    family: Family,
    on_progress: OnProgress = lambda done, total: None,
) -> Path:
    """The folder of a repository's files; the copy on disk if the hub is unreachable or denies access.

    Args:
        repository: on the hub.
        revision: branch, tag or commit; empty: its default.
        model_dir: where files are kept; empty: the cache of the hub's library.
        family: which files to fetch.
        on_progress: called with the bytes that are there and the bytes of all files, as they come.

    Raises:
        DownloadInterrupted: trying again may help. What has come is kept.
        SettingsError: they are neither on the hub nor on the disk, or there is no room for them.
    """
    if not HUB_NAME.fullmatch(repository) or WEIGHT_FILE.search(repository) or Path(repository).parent.is_dir():
        raise SettingsError(
            f"there is no file or folder {Path(repository).name}: set model_path to {family.hub_id}, to a folder "
            f"in the hub's layout, or to {family.original}"
        )
    folder = Path(model_dir).expanduser() if model_dir else Path(HF_HUB_CACHE)
    patterns = list(family.hub_files)
    request = {
        "repo_id": repository,
        "revision": revision or None,
        "allow_patterns": patterns,
        "cache_dir": str(folder),
    }
    with _started(request) as messages:
        download = _follow(messages, repository, folder, on_progress)
    if download.folder:
        return Path(download.folder)
    try:
        kept = snapshot_download(
            repository, revision=revision or None, allow_patterns=patterns, cache_dir=folder, local_files_only=True
        )
    except Exception:
        raise _explain(download, repository, revision, folder, family) from None
    log.warning("the hub cannot be reached (%s): loading the copy of %s on disk", download.error, repository)
    return Path(kept)


@contextmanager
def _started(request: dict[str, Any]) -> "Iterator[queue.Queue[dict[str, Any] | None]]":
    """What the process for a request sends, and None when it has ended; it is killed at the end."""
    command = python_command(_MAIN, str(os.getpid()))
    messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        stdin, stdout = process.stdin, process.stdout

        def read() -> None:
            for line in stdout or ():
                messages.put(json.loads(line))
            messages.put(None)

        reader = threading.Thread(target=read, name="download", daemon=True)
        reader.start()
        try:
            with suppress(OSError):  # it has ended already
                if stdin:
                    stdin.write(json.dumps(request) + "\n")
                    stdin.flush()
            yield messages
        finally:
            process.kill()
            reader.join()


@dataclass(slots=True)
class _Download:
    """How far a download is, as its process tells.

    Attributes:
        folder: with the files, when all are there; empty: they are not.
        error: the name of what went wrong; empty: nothing did.
        status, errno: the HTTP status and the system's number of the error; None: it has none.
        host: of the hub; empty: the process has not begun.
        done, total: bytes of all files; 0: none has come.
    """

    folder: str = ""
    error: str = ""
    status: int | None = None
    errno: int | None = None
    host: str = ""
    done: int = 0
    total: int = 0

    @property
    def percent(self) -> int:
        """How much has come, in percent."""
        return 100 * self.done // self.total if self.total else 0


def _follow(
    messages: "queue.Queue[dict[str, Any] | None]", repository: str, folder: Path, on_progress: OnProgress
) -> _Download:
    """Follow a download to its end.

    Raises:
        SettingsError: there is no room.
    """
    download, checked = _Download(), 0
    while not download.folder and not download.error:
        try:
            message = messages.get(timeout=SILENCE_SECONDS if download.host else _START_SECONDS)
        except queue.Empty:
            return replace(download, error=_SILENCE)
        download = replace(download, **({"error": "its process ended"} if message is None else message))
        if download.total > checked:
            _check_room(repository, folder, download.total - download.done)
            checked = download.total
        if message and "done" in message:
            on_progress(download.done, download.total)
    return download


def _check_room(repository: str, folder: Path, missing: int) -> None:
    """Raises SettingsError if so many bytes do not fit on the disk."""
    free = shutil.disk_usage(existing_folder(folder)).free
    if missing > free:
        raise SettingsError(
            f"{repository} needs {missing / 1e9:.1f} GB more, but the disk of model_dir has {free / 1e9:.1f} GB "
            f"free: {_MORE_ROOM}"
        )


def _explain(download: _Download, repository: str, revision: str, folder: Path, family: Family) -> SettingsError:
    """What went wrong, and how to mend it."""
    if download.status in (401, 403):
        return SettingsError(
            f"you have no access to {repository}: request it at huggingface.co/{repository}, then set "
            "HF_TOKEN to your token (huggingface.co/settings/tokens)"
        )
    if download.status == 404 and revision:
        return SettingsError(
            f"the hub has no {repository}, or no revision {revision} of it: correct model_path or revision"
        )
    if download.status == 404:
        return SettingsError(f"the hub has no {repository}: set model_path to {family.hub_id}")
    if download.errno in (errno.ENOSPC, errno.EDQUOT):
        return SettingsError(f"the disk of model_dir is full after {download.percent} % of {repository}: {_MORE_ROOM}")
    if download.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        error = PermissionError(download.errno, os.strerror(download.errno))
        return SettingsError(f"model_dir is {explain_unwritable(folder, error)}")
    if download.error == _UNSAFE:
        return SettingsError(
            f"{download.host} gives a file of {repository} a name that is none: set HF_ENDPOINT to a hub that you trust"
        )
    if download.error == _SILENCE:
        return DownloadInterrupted(f"{download.host} has sent nothing for {SILENCE_SECONDS:.0f} s")
    if download.status in _TRANSIENT_STATUSES:
        return DownloadInterrupted(f"{download.host} answers with the error {download.status}")
    if download.total or _is_begun(repository, folder):
        return DownloadInterrupted(f"the download from {download.host} broke off ({download.error})")
    return SettingsError(
        f"{repository} could not be fetched ({download.error}): connect to huggingface.co once, or set "
        f"model_path to a folder that holds its files, or to {family.original_setting}"
    )


def _is_begun(repository: str, folder: Path) -> bool:
    """Whether a file is there in part."""
    blobs = folder / f"models--{repository.replace('/', '--')}" / "blobs"
    return next(blobs.glob("*.part"), None) is not None
