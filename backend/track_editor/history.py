"""Earlier versions of what was changed, on disk, so that a change can be taken back."""

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from backend.errors import SettingsError
from backend.track_editor.track_table import Result

_MOST = 50
"""Versions kept of one annotation."""


def digest_results(results: Sequence[Result]) -> str:
    """What two states of an annotation are told apart by."""
    return sha256(json.dumps(results, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A change and what it was made to.

    Attributes:
        what: the change, in words.
        before: what was annotated before it.
        after: digest of what is annotated since.
    """

    what: str
    before: Sequence[Result]
    after: str


class History:
    """Of one annotation, the newest last.

    Args:
        folder: of all of them.
        name: of the annotation.
    """

    def __init__(self, folder: Path, name: str) -> None:
        # Names are addresses and paths: a digest of them is short, and tells neither.
        self._folder = folder / sha256(name.encode(errors="replace")).hexdigest()[:16]

    def add(self, version: HistoryEntry) -> None:
        """Keep one; the oldest go.

        Raises:
            SettingsError: it cannot be written.
        """
        number = 1 + max(self._numbers(), default=0)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Whole or not at all: without it the change could not be taken back.
            part = self._path(number).with_suffix(".part")
            told = {"what": version.what, "before": version.before, "after": version.after}
            part.write_bytes(gzip.compress(json.dumps(told).encode(), 6))
            part.replace(self._path(number))
            for old in self._numbers()[:-_MOST]:
                self._path(old).unlink()
        except OSError as error:
            raise SettingsError(
                f"the version before cannot be kept in data_dir ({type(error).__name__}), so nothing was changed: "
                "set data_dir to a folder that can be written, with room on its disk"
            ) from error

    def newest(self) -> HistoryEntry | None:
        """The last change that was kept."""
        numbers = self._numbers()
        if not numbers:
            return None
        told = json.loads(gzip.decompress(self._path(numbers[-1]).read_bytes()))
        return HistoryEntry(told["what"], told["before"], told["after"])

    def drop(self) -> None:
        """Forget the newest."""
        for number in self._numbers()[-1:]:
            self._path(number).unlink()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06}.json.gz"

    def _numbers(self) -> list[int]:
        return sorted(int(path.name.partition(".")[0]) for path in self._folder.glob("*.json.gz"))
