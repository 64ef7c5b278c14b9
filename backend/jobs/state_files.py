"""The engines' states, each in a file of its own: `states/<job>.<pass>.<frames>.<checksum>`.

A state is what an interrupted job continues from. The name says how far the session was, so it need not agree with the
frames that are kept: a job continues from its newest state, and what it computes again up to the kept frames is
dropped. States are therefore always safe to delete; they are the first to go when room is short.
"""

import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from backend.jobs.schedule import Progress

log = logging.getLogger(__name__)

_PART = ".part"


class _StateFile(NamedTuple):
    job: int
    place: tuple[int, int]
    checksum: str
    path: Path


class StateFiles:
    """A folder of states. Only one thread may save states; any may call the rest.

    Args:
        folder: created when it is needed.
        max_bytes: a larger state is not kept.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    def save(self, job: int, progress: Progress, state: bytes) -> bool:
        """Keep a state in place of the job's earlier ones; False: there is no room, and the earlier ones stay."""
        if len(state) > self._max_bytes:
            log.warning("the state of job %d has %d bytes, more than limits.store: it is not saved", job, len(state))
            return False
        name = f"{job}.{progress.pass_index}.{progress.done}.{zlib.crc32(state):08x}"
        part = self._folder / (name + _PART)
        earlier = [file.path for file in self._files() if file.job == job and file.path.name != name]
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.write_bytes(state)
            part.replace(self._folder / name)
        except OSError as error:
            log.warning("the state of job %d is not saved (%s): make room in data_dir", job, error.strerror)
            part.unlink(missing_ok=True)
            return False
        for path in earlier:
            path.unlink(missing_ok=True)
        return True

    def newest(self, job: int, kept: Progress) -> tuple[Progress, bytes] | None:
        """A job's newest whole state, and its place, which is not beyond the frames that are kept."""
        own = [file for file in self._files() if file.job == job]
        for file in sorted(own, key=lambda file: file.place, reverse=True):
            if file.place > (kept.pass_index, kept.done):
                continue  # a power failure may lose the newest frames in the database, but not the newest state
            try:
                state = file.path.read_bytes()
            except OSError:
                continue
            if f"{zlib.crc32(state):08x}" == file.checksum:
                return Progress(*file.place), state
        return None

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

    def delete_parts(self) -> None:
        """Delete what an ended process left half written."""
        for path in self._folder.glob(f"*{_PART}"):
            path.unlink(missing_ok=True)

    def _files(self) -> Iterator[_StateFile]:
        for path in list(self._folder.glob("*.*.*.*")):
            parts = path.name.split(".")
            if len(parts) == 4 and all(part.isdecimal() for part in parts[:3]):
                yield _StateFile(int(parts[0]), (int(parts[1]), int(parts[2])), parts[3], path)


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
