"""Downloads weights from the hub: resumed after a cut, checked when whole, with progress."""

import logging
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HfHubHTTPError
from tqdm import tqdm

from backend.engines.sam.weights import Family
from backend.errors import SettingsError, existing_folder

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
WEIGHT_FILE = re.compile(r"\.(pt|pth|bin|safetensors)$")
"""The suffix of a weights file; no repository has it."""


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
        SettingsError: they are neither on the hub nor on the disk, or there is no room for them.
    """
    if not HUB_NAME.fullmatch(repository) or WEIGHT_FILE.search(repository) or Path(repository).parent.is_dir():
        raise SettingsError(
            f"there is no file or folder {Path(repository).name}: set model_path to {family.hub_id}, to a folder "
            f"in the hub's layout, or to {family.original}"
        )
    folder = Path(model_dir).expanduser() if model_dir else Path(HF_HUB_CACHE)
    fetch = partial(
        snapshot_download,
        repository,
        revision=revision or None,
        allow_patterns=list(family.hub_files),
        cache_dir=folder,
        tqdm_class=_progress_bar(repository, folder, on_progress),
    )
    try:
        return Path(fetch())
    except SettingsError:
        raise
    except Exception as error:  # The network's errors have no common class.
        try:
            kept = fetch(local_files_only=True)
        except Exception:
            raise _hub_error(repository, revision, error, family) from error
        log.warning("the hub cannot be reached (%s): loading the copy of %s on disk", type(error).__name__, repository)
        return Path(kept)


def _hub_error(repository: str, revision: str, error: BaseException, family: Family) -> SettingsError:
    status = None
    cause: BaseException | None = error
    while cause is not None and status is None:
        status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
        cause = cause.__cause__
    if status in (401, 403):
        return SettingsError(
            f"you have no access to {repository}: request it at huggingface.co/{repository}, then set "
            "HF_TOKEN to your token (huggingface.co/settings/tokens)"
        )
    if status == 404 and revision:
        return SettingsError(
            f"the hub has no {repository}, or no revision {revision} of it: correct model_path or revision"
        )
    if status == 404:
        return SettingsError(f"the hub has no {repository}: set model_path to {family.hub_id}")
    return SettingsError(
        f"{repository} could not be fetched ({type(error).__name__}): connect to huggingface.co once, or set "
        f"model_path to a folder that holds its files, or to {family.original_setting}"
    )


def _progress_bar(repository: str, folder: Path, on_progress: OnProgress) -> "type[tqdm[Any]]":
    """A progress bar that draws nothing and reports the bytes that are written to the disk."""

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **options: Any) -> None:
            self._counts = str(options.get("desc", "")).startswith("Reconstructing")
            self._checked = 0.0
            iterable: Any = args[0] if args else options.get("iterable")
            super().__init__(iterable, total=options.get("total"), disable=True)

        def update(self, n: float | None = 1) -> bool | None:
            self.n += int(n or 0)  # a bar that is disabled does not count
            if self._counts and self.total:
                self.refresh()
                on_progress(int(self.n), int(self.total))
            return None

        def refresh(self, *_: object, **__: object) -> None:
            if not self._counts or not self.total or self.total == self._checked:
                return
            self._checked = self.total
            left, free = self.total - self.n, shutil.disk_usage(existing_folder(folder)).free
            if left > free:
                raise SettingsError(
                    f"{repository} needs {left / 1e9:.1f} GB more, but the disk of model_dir has {free / 1e9:.1f} GB "
                    "free: free some space, or set model_dir to a folder on another disk"
                )

    return Bar
