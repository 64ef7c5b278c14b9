"""The contract between the product and a model: open a video, prompt, propagate.

An engine hears nothing of jobs, HTTP or Label Studio, and no tensor leaves it. Cancelling is to stop iterating,
progress is to count what came, a partial result is what has been yielded.
"""

from collections.abc import Generator, Sequence
from typing import Protocol, Self

from backend.prompts import Phrase, Prompt
from backend.tracks import FrameResult
from backend.video import Video


class Session(Protocol):
    """A model's state for one video; a context manager that frees what it holds."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def prompt(self, prompts: Sequence[Prompt | Phrase]) -> FrameResult:
        """Take prompts, all on one frame, and answer for that frame at once.

        Raises:
            Unsupported: the engine has no use for this kind of prompt.
            BadRequest: a prompt lies outside the video or the picture.
        """
        ...

    def propagate(self, span: range, reverse: bool = False) -> Generator[FrameResult]:
        """Carry the prompts through a span of source frames.

        Yields exactly one result per frame, first to last (last to first with `reverse`), each naming every track that
        was prompted. A track is absent until the first prompt, or the last propagated frame, from which it can be
        carried in this direction. Closing the iterator half-way leaves the session usable.
        """
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

    def open(self, video: Video, state: bytes | None = None) -> Session:
        """Start on a video, or go on from `Session.state` of a session on the same video."""
        ...
