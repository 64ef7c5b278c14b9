"""The contract between the product and a model: open a video, prompt, propagate.

An engine hears nothing of jobs, HTTP or Label Studio, and no tensor leaves it. Cancelling is to stop iterating,
progress is to count what came, a partial result is what has been yielded.
"""

import os
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Protocol, Self

from backend.tracks.prompts import Phrase, Prompt
from backend.tracks.track import FrameResult
from backend.video import Video

OPENCV_HINT = "set engine: opencv for the stand-in, which follows boxes and clicks on any machine but knows no words"
"""What to do where SAM3 cannot be loaded."""


FAILED_PREFIX = "failed: "
"""How `Engine.status` begins for a model that could not be loaded; the error's sentence follows."""


class HasStatus(Protocol):
    """An engine, or who stands for it."""

    @property
    def status(self) -> str:
        """As `Engine.status`."""
        ...


def watch_status(engine: HasStatus, interval: float) -> Iterator[str]:
    """Every status of an engine, once each, until it is ready or has failed; looked at every so many seconds."""
    last = ""
    while last != "ready" and not last.startswith(FAILED_PREFIX):
        status = engine.status
        if status == last:
            time.sleep(interval)
        else:
            yield status
            last = status


def read_process_memory() -> tuple[int, int] | None:
    """Bytes of main memory that this process holds, and all that the machine has; None where nobody can say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


class Session(Protocol):
    """A model's state for one video; a context manager that frees what it holds."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def prompt(self, prompts: Sequence[Prompt | Phrase]) -> FrameResult:
        """Take prompts, all on one frame, and answer for that frame at once.

        A phrase is looked for from its frame on, in either direction. What it finds are tracks of their own, with
        ids that no prompt has; the same object has the same id in both directions. `FrameResult.phrases` tells them.

        Raises:
            Unsupported: the engine has no use for this kind of prompt.
            BadRequest: a prompt lies outside the video or the picture.
        """
        ...

    def propagate(self, span: range, reverse: bool = False) -> Generator[FrameResult]:
        """Carry the prompts through a span of source frames.

        Yields exactly one result per frame, first to last (last to first with `reverse`), each naming every track that
        was prompted, and those that phrases have found; of these, one that has been gone for long may be given up. A
        track is absent until the first prompt, or the last propagated frame, from which it can be carried in this
        direction. Closing the iterator half-way leaves the session usable.
        """
        ...

    def remove(self, track: str) -> None:
        """Forget a track; nothing changes about the others."""
        ...

    def state(self) -> bytes:
        """What `Engine.open` needs, at a frame boundary, to go on from there with equal results."""
        ...


class Engine(Protocol):
    """A loaded model. One process may hold several sessions of it, but runs one at a time."""

    name: str
    """As in the setting `engine` and in answers."""
    version: str
    """Changes whenever its tracks may."""

    @property
    def status(self) -> str:
        """How far the model is: "loading", "warming up", "ready", or "failed: " and the sentence of the error."""
        ...

    def memory(self) -> tuple[int, int] | None:
        """Bytes of the device's memory that are used, and all that it has; None where nobody can say."""
        ...

    def open(self, video: Video, state: bytes | None = None) -> Session:
        """Start on a video, or go on from `Session.state` of a session on the same video, once the model is ready.

        Raises:
            SettingsError: the model could not be loaded.
        """
        ...
