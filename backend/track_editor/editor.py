"""One annotation: looked at, changed, a change taken back; never over what somebody else has changed meanwhile."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from backend.errors import Conflict
from backend.formats.tasks import ChosenAnnotation, ExportControls
from backend.labelstudio.region import parse_region
from backend.track_editor.annotation import AnnotationStore
from backend.track_editor.edits import Edit, EditResult, apply_edit
from backend.track_editor.history import History, HistoryEntry, digest_results
from backend.track_editor.track_table import Result, TrackTable

NOTHING = "there is no change to take back, or the annotation was changed by somebody since"
VERSIONS = "versions"
"""The folder of `data_dir` in which versions are kept."""
_WRITING = threading.Lock()
"""One change at a time: what was read is still there when it is written."""
_CHANGED = "the annotation was changed meanwhile, and nothing was done: look at it again"


@dataclass(frozen=True, slots=True)
class EditorState:
    """An annotation as it is.

    Attributes:
        version: what it is told apart by from what it was or becomes.
        last: the change that it came of, where that can be taken back.
    """

    chosen: ChosenAnnotation
    table: TrackTable
    version: str
    last: HistoryEntry | None

    @property
    def undo(self) -> str | None:
        """The last change, in words."""
        return self.last.what if self.last else None

    @property
    def annotation_name(self) -> str:
        """Which annotation it is."""
        return f"{self.chosen.kind.removesuffix('s')} {self.chosen.entry.get('id', '')}".strip()

    @property
    def author(self) -> str:
        """Who submitted it, and when, as far as that is told."""
        entry = self.chosen.entry
        # "anna@x.org, 1": with the number of the account.
        who = str(entry.get("created_username") or entry.get("model_version") or "").partition(",")[0].strip()
        when = str(entry.get("updated_at") or entry.get("created_at") or "")[:16].replace("T", " ")
        return ", ".join(part for part in (who, when) if part)


class Editor:
    """One annotation of a source.

    Args:
        folder: where versions are kept, `VERSIONS` in `data_dir`.
    """

    def __init__(self, source: AnnotationStore, folder: Path) -> None:
        self._source, self._folder = source, folder

    def read(self) -> EditorState:
        """As it is now.

        Raises:
            BackendError: it cannot be had or read.
        """
        chosen, controls = self._source.read()
        return self._state(chosen, controls)

    def preview(self, edit: Edit) -> tuple[EditorState, EditResult]:
        """What a change would make of what is there.

        Raises:
            BackendError: it cannot be made.
        """
        state = self.read()
        return state, apply_edit(state.table, edit)

    def apply(self, edit: Edit, version: str) -> EditorState:
        """Make a change to what a person has looked at.

        Args:
            version: of the state that they saw.

        Raises:
            BackendError: it cannot be made; nothing is changed.
        """
        with _WRITING:
            state = self.read()
            _check(state, version)
            return self._write(state, apply_edit(state.table, edit).table.results(), str(edit))

    def put_regions(self, regions: Mapping[int, Result], what: str, version: str) -> EditorState:
        """Put other regions in the place of those of some tracks.

        Args:
            regions: by the numbers of the tracks; each has the id and the number of its track.
            what: the change, in words.
            version: of the state that they were made from.

        Raises:
            BackendError: it cannot be made; nothing is changed.
        """
        with _WRITING:
            state = self.read()
            _check(state, version)
            rows = [
                replace(row, region=parse_region(new), result=new) if (new := regions.get(row.number)) else row
                for row in state.table.rows
            ]
            return self._write(state, state.table.with_rows(rows, state.table.others).results(), what)

    def undo(self, version: str) -> EditorState:
        """Take the last change back.

        Raises:
            BackendError: there is none, or something else was changed since.
        """
        with _WRITING:
            state = self.read()
            _check(state, version)
            if state.last is None:
                raise Conflict(NOTHING)
            written = self._source.write(state.chosen, state.last.before)
            return self._state(written, state.table.controls)

    def _write(self, state: EditorState, results: Sequence[Result], what: str) -> EditorState:
        versions, before = self._versions(state.chosen), state.chosen.results
        # Kept first: whatever happens from here on, it is there, and `_state` knows what never came about.
        versions.add(HistoryEntry(what, before, digest_results(results)))
        written = self._source.write(state.chosen, results)
        if digest_results(written.results) != digest_results(results):
            # Label Studio keeps it in words of its own.
            versions.drop()
            versions.add(HistoryEntry(what, before, digest_results(written.results)))
        return self._state(written, state.table.controls)

    def _versions(self, chosen: ChosenAnnotation) -> History:
        return History(self._folder, self._source.name(chosen))

    def _state(self, chosen: ChosenAnnotation, controls: ExportControls) -> EditorState:
        versions, now = self._versions(chosen), digest_results(chosen.results)
        while (last := versions.newest()) and last.after != now and digest_results(last.before) == now:
            versions.drop()  # it was taken back, or never made
        return EditorState(
            chosen, TrackTable.from_annotation(chosen, controls), now, last if last and last.after == now else None
        )


def _check(state: EditorState, version: str) -> None:
    if state.version != version:
        raise Conflict(_CHANGED)
