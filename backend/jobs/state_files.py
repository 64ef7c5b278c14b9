"""The engines' states, each in a file of its own: `states/<job>.<pass>.<frames>.<checksum>`.

A state is what an interrupted job continues from. The name says how far the session was, so it need not agree with the
frames that are kept: a job continues from its newest state, and what it computes again up to the kept frames is
dropped. States are therefore always safe to delete; they are the first to go when room is short.
"""

import logging
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

from backend.jobs.messages import SavedState
from backend.jobs.schedule import Progress

log = logging.getLogger(__name__)

_PART = ".part"


class _StateFile(NamedTuple):
    job: int
    place: tuple[int, int]
    checksum: int
    path: Path


class StateFiles:
    """A folder of states. One thread keeps those of a job; any may call the rest.

    Args:
        folder: created when it is needed.
        max_bytes: a larger state is not kept.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._runs = count()

    def new_path(self, job: int) -> Path:
        """Where a worker saves a job's states before they are kept: paths that begin so."""
        with suppress(OSError):  # the worker reports that it cannot save them
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.delete_parts(job)
        return self._folder / f"{job}.{next(self._runs)}{_PART}"

    def keep(self, job: int, progress: Progress, state: SavedState) -> bool:
        """Keep a state in place of the job's earlier ones; False: there is no room, and the earlier ones stay."""
        if state.path is None:
            return False
        size = _size(state.path)
        if size > self._max_bytes:
            log.warning("job %d: a state of %d bytes is not kept, limits.store is smaller: raise it", job, size)
            state.path.unlink(missing_ok=True)
            return False
        earlier = [file.path for file in self._files() if file.job == job]
        kept = self._folder / f"{job}.{progress.pass_index}.{progress.done}.{state.checksum:08x}"
        try:
            state.path.replace(kept)
        except OSError as error:
            log.warning("the state of job %d is not kept (%s): make room in data_dir", job, error.strerror)
            return False
        for path in earlier:
            if path != kept:
                path.unlink(missing_ok=True)
        return True

    def save(self, job: int, progress: Progress, state: bytes) -> bool:
        """As `keep`, for a state that is in memory."""
        path = self.new_path(job)
        path.write_bytes(state)
        return self.keep(job, progress, SavedState(path, zlib.crc32(state)))

    def newest(self, job: int, kept: Progress) -> tuple[Progress, SavedState] | None:
        """A job's newest state and its place, which is not beyond the frames that are kept."""
        # A power failure may lose the newest frames in the database, but not the newest state.
        most = kept.pass_index, kept.done
        own = [file for file in self._files() if file.job == job and file.place <= most]
        if not own:
            return None
        file = max(own, key=lambda file: file.place)
        return Progress(*file.place), SavedState(file.path, file.checksum)

    def delete(self, job: int) -> None:
        """Delete a job's states."""
        for file in self._files():
            if file.job == job:
                file.path.unlink(missing_ok=True)

    def jobs(self) -> list[int]:
        """The jobs that have states, that of the oldest state first."""
        return [file.job for file in sorted(self._files(), key=lambda file: _modified(file.path))]

    def used_bytes(self) -> int:
        """The size of all states."""
        return sum(_size(file.path) for file in self._files())

    def delete_parts(self, job: int | None = None) -> None:
        """Delete what an ended worker left of a job, or of all, before it was kept."""
        for path in self._folder.glob(f"{'*' if job is None else job}.*{_PART}*"):
            path.unlink(missing_ok=True)

    def _files(self) -> Iterator[_StateFile]:
        for path in list(self._folder.glob("*.*.*.*")):
            parts = path.name.split(".")
            if len(parts) == 4 and all(part.isdecimal() for part in parts[:3]) and _is_hex(parts[3]):
                yield _StateFile(int(parts[0]), (int(parts[1]), int(parts[2])), int(parts[3], 16), path)


def _is_hex(text: str) -> bool:
    return len(text) == 8 and not set(text) - set("0123456789abcdef")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
