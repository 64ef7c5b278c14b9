"""One annotation: looked at, changed, a change taken back; never over what somebody else has changed meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.errors import BadRequest
from backend.formats.tasks import Chosen, Controls
from backend.track_editor.annotation import Source
from backend.track_editor.edits import Change, Edit, change
from backend.track_editor.history import Version, Versions, digest
from backend.track_editor.track_table import Result, Roster

NOTHING = "there is no change to take back, or the annotation was changed by somebody since"
_CHANGED = "the annotation was changed meanwhile, and nothing was done: look at it again"


@dataclass(frozen=True, slots=True)
class State:
    """An annotation as it is.

    Attributes:
        version: what it is told apart by from what it was or becomes.
        last: the change that it came of, where that can be taken back.
    """

    chosen: Chosen
    roster: Roster
    version: str
    last: Version | None

    @property
    def undo(self) -> str | None:
        """The last change, in words."""
        return self.last.what if self.last else None

    @property
    def of(self) -> str:
        """Which annotation it is."""
        return f"{self.chosen.kind.removesuffix('s')} {self.chosen.entry.get('id', '')}".strip()

    @property
    def by(self) -> str:
        """Who submitted it, and when, as far as that is told."""
        entry = self.chosen.entry
        # "anna@x.org, 1": with the number of the account.
        who = str(entry.get("created_username") or entry.get("model_version") or "").partition(",")[0].strip()
        when = str(entry.get("updated_at") or entry.get("created_at") or "")[:16].replace("T", " ")
        return ", ".join(part for part in (who, when) if part)


class Desk:
    """One annotation of a source.

    Args:
        folder: where versions are kept, `data_dir/versions`.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        self._source, self._folder = source, folder

    def look(self) -> State:
        """As it is now.

        Raises:
            BackendError: it cannot be had or read.
        """
        chosen, controls = self._source.read()
        return self._state(chosen, controls)

    def preview(self, edit: Edit) -> tuple[State, Change]:
        """What a change would make of what is there.

        Raises:
            BackendError: it cannot be made.
        """
        state = self.look()
        return state, change(state.roster, edit)

    def apply(self, edit: Edit, version: str) -> State:
        """Make a change to what a person has looked at.

        Args:
            version: of the state that they saw.

        Raises:
            BackendError: it cannot be made; nothing is changed.
        """
        state = self.look()
        _check(state, version)
        return self._write(state, change(state.roster, edit).roster.results(), str(edit))

    def undo(self, version: str) -> State:
        """Take the last change back.

        Raises:
            BackendError: there is none, or something else was changed since.
        """
        state = self.look()
        _check(state, version)
        if state.last is None:
            raise BadRequest(NOTHING)
        written = self._source.write(state.chosen, state.last.before)
        return self._state(written, state.roster.controls)

    def _write(self, state: State, results: Sequence[Result], what: str) -> State:
        versions, before = self._versions(state.chosen), state.chosen.results
        # Kept first: whatever happens from here on, it is there, and `_state` knows what never came about.
        versions.add(Version(what, before, digest(results)))
        written = self._source.write(state.chosen, results)
        if digest(written.results) != digest(results):
            # Label Studio keeps it in words of its own.
            versions.drop()
            versions.add(Version(what, before, digest(written.results)))
        return self._state(written, state.roster.controls)

    def _versions(self, chosen: Chosen) -> Versions:
        return Versions(self._folder, self._source.name(chosen))

    def _state(self, chosen: Chosen, controls: Controls) -> State:
        versions, now = self._versions(chosen), digest(chosen.results)
        while (last := versions.newest()) and last.after != now and digest(last.before) == now:
            versions.drop()  # it was taken back, or never made
        return State(chosen, Roster.of(chosen, controls), now, last if last and last.after == now else None)


def _check(state: State, version: str) -> None:
    if state.version != version:
        raise BadRequest(_CHANGED)
