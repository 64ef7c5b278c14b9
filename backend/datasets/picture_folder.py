"""The folder of an unfinished export. Pictures of an export that was interrupted are used again."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backend.datasets.plan import DatasetPlan, PlannedVideo, estimate_bytes
from backend.errors import SettingsError

_STATE = ".pictures.json"
"""What the pictures that are there were made of."""
_SUFFIXES = (".jpg", ".png")
PathOf = Callable[[PlannedVideo, int], str]
"""The path of a picture of a video and frame, relative to the dataset's folder."""


class PictureFolder:
    """The folder of an unfinished dataset, with the pictures that are there already.

    Args:
        path: of the folder; created if needed. Everything but usable pictures is removed.
        settings: what all pictures depend on.
    """

    def __init__(self, path: Path, plan: DatasetPlan, path_of: PathOf, settings: Mapping[str, Any]) -> None:
        self.path, self._plan, self._path_of = path, plan, path_of
        state = _read_state(path / _STATE)
        if state.get("settings") != settings:
            shutil.rmtree(path, ignore_errors=True)
            state = {}
        path.mkdir(exist_ok=True)
        self._folders: set[Path] = {path}
        found = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
        known = state.get("videos", {})
        versions = {planned.name: list(planned.video.key[1:]) for planned in plan.videos if planned.video}
        self._usable: set[str] = set()
        if plan.options.pictures != "none":
            for planned in plan.videos:
                if known.get(planned.name) == versions.get(planned.name):
                    self._usable |= found & {path_of(planned, frame) for frame in planned.frames.tolist()}
        for name in found - self._usable:
            (path / name).unlink()
        _write_whole(path / _STATE, json.dumps({"settings": settings, "videos": versions}).encode())

    @property
    def usable(self) -> int:
        """Number of pictures that are there already."""
        return len(self._usable)

    def check_space(self) -> None:
        """Check that the pictures fit on the disk.

        Raises:
            SettingsError: they do not.
        """
        if self._plan.options.pictures == "none":
            return
        needed = sum(
            len(self.missing(planned)) * estimate_bytes(planned.size, self._plan.options)
            for planned in self._plan.videos
        )
        free = shutil.disk_usage(self.path).free
        if needed > free:
            raise SettingsError(
                f"the pictures need about {format_bytes(needed)} and {format_bytes(free)} are free: choose another "
                "disk, or take fewer pictures with --every, --rate or --max"
            )

    def missing(self, planned: PlannedVideo) -> dict[int, str]:
        """The frames of a video that have no picture yet, and the paths of their pictures."""
        names = {frame: self._path_of(planned, frame) for frame in planned.frames.tolist()}
        return {frame: name for frame, name in names.items() if name not in self._usable}

    def write(self, name: str, data: bytes) -> None:
        """Write a file, which appears when it is whole."""
        path = self.path / name
        if path.parent not in self._folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(path.parent)
        _write_whole(path, data)

    def remove(self, planned: PlannedVideo) -> None:
        """Remove the pictures of a video that cannot be exported."""
        for frame in planned.frames.tolist():
            (self.path / self._path_of(planned, frame)).unlink(missing_ok=True)

    def finish(self, output: Path) -> None:
        """Give the folder its name."""
        (self.path / _STATE).unlink()
        if output.is_dir():
            output.rmdir()
        self.path.replace(output)


def format_bytes(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _write_whole(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.tmp")
    part.write_bytes(data)
    part.replace(path)
