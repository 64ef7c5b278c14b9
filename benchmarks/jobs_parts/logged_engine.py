"""An engine in a worker that logs what it computes, so that nothing is computed again unnoticed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Self
from weakref import WeakKeyDictionary

from backend.engines.base import Engine, Propagation
from backend.tracks.prompts import Phrase, Prompt
from backend.tracks.track import FrameResult
from backend.video import Video

CONTINUE = "continue"


class LoggedEngine:
    """An engine as another one, which appends a line to a file for every frame: its number, and whose sessions' it was.

    A session is named by its prompts, also when it continues from a state; that is a line, too: `continue`, its name.
    """

    def __init__(self, make: Callable[[], Engine], log: Path) -> None:
        self._engine, self._log = make(), log
        self.names: WeakKeyDictionary[Propagation, str] = WeakKeyDictionary()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def open(self, video: Video, state: bytes | None = None) -> "_LoggedSession":
        """As the engine does; the session's name stands before its state."""
        name, _, inner = (state or b"").partition(b"\n")
        session = _LoggedSession(self, self._engine.open(video, inner if state else None), name.decode())
        if state:
            self._write(f"{CONTINUE} {name.decode()}")
        return session

    def advance(self, propagations: Sequence[Propagation]) -> list[FrameResult | Exception]:
        """As the engine does."""
        results = self._engine.advance(propagations)
        frames = {result.frame for result in results if isinstance(result, FrameResult)}
        names = [self.names[one] for one in propagations]
        for frame in frames:
            self._write(f"{frame} {' '.join(names)}")
        return results

    def _write(self, line: str) -> None:
        with self._log.open("a") as file:
            file.write(f"{line}\n")


class _LoggedSession:
    def __init__(self, engine: LoggedEngine, session: Any, name: str) -> None:
        self._engine, self._session, self._name = engine, session, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def __enter__(self) -> Self:
        self._session.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._session.__exit__(*error)

    def prompt(self, prompts: Sequence[Prompt | Phrase]) -> FrameResult:
        self._name += name_session([prompts])
        result: FrameResult = self._session.prompt(prompts)
        return result

    def propagate(self, span: range, reverse: bool = False) -> Propagation:
        propagation: Propagation = self._session.propagate(span, reverse)
        self._engine.names[propagation] = self._name
        return propagation

    def state(self) -> bytes:
        state: bytes = bytes(self._session.state())
        return self._name.encode() + b"\n" + state


def name_session(groups: Sequence[Sequence[Prompt | Phrase]]) -> str:
    """The name of a session with these prompts."""
    return "".join(_name(prompt) for group in groups for prompt in group)


def _name(prompt: Prompt | Phrase) -> str:
    what = prompt.name.replace(" ", "_") if isinstance(prompt, Phrase) else f"{prompt.box and round(prompt.box.x0, 2)}"
    return f"{prompt.frame}:{what};"


class FrameLog:
    """What engines have logged so far; read on from where it was read before."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._lock = path, 0, Lock()
        self._lines: list[str] = []
        self._frames: list[str] = []
        self._known: set[str] = set()

    def lines(self) -> list[str]:
        """The lines, each of a frame and of the sessions that advanced together, or of one that was continued."""
        with self._lock:
            if self._path.exists():
                with self._path.open("rb") as file:
                    file.seek(self._offset)
                    whole = file.read().rpartition(b"\n")
                self._offset += len(whole[0] + whole[1])
                new = whole[0].decode().splitlines()
                self._lines += new
                frames = [one for line in new for one in split_line(line)]
                self._frames += frames
                self._known.update(frames)
            return self._lines

    def frames(self) -> list[str]:
        """Every session's every frame, in order."""
        self.lines()
        return self._frames

    def count(self) -> int:
        """How many different frames there are."""
        self.lines()
        return len(self._known)


def split_line(line: str) -> list[str]:
    """The frame of each session of a line."""
    frame, *names = line.split()
    if frame == CONTINUE:
        return []
    return [f"{frame} {name}" for name in names] or [frame]


def logged(log: Path) -> list[str]:
    """The frames that workers have computed, in order."""
    return FrameLog(log).frames()
