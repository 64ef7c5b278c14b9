"""The contract of an engine: open a video, prompt, propagate; and preview what a prompt would select.

An engine knows nothing of jobs, HTTP or Label Studio, and no tensor leaves it. To cancel, stop iterating; to measure
progress, count the results; what was yielded is the partial result.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, SupportsBytes

from backend.tracks.prompts import Phrase, Prompt
from backend.tracks.track import FrameResult, Observation
from backend.video import Video

OPEN_HINT = (
    "set engine: sam2 or edgetam, which follow boxes and clicks on a laptop but know no words, and whose weights "
    "anyone may download: SAM3_BACKEND_IMAGE_SIZE=512 sam3-backend serve --engine sam2; or set engine: opencv for the "
    "stand-in without weights"
)
"""The alternatives that errors name when `engine: auto` cannot load SAM3."""
OPENCV_HINT = "set engine: opencv for the stand-in, which follows boxes and clicks on any machine but knows no words"
"""The alternative that errors name when SAM3 cannot be loaded."""


PREVIEW_FRAMES = 32
"""How many frames an engine keeps for previews: with SAM 3, 42 MB each in single precision."""
FAILED_PREFIX = "failed: "
"""Prefix of `Engine.status` when the model could not be loaded; the error message follows."""
DOWNLOADING_PREFIX = "downloading its weights: "
"""Prefix of `Engine.status` while that takes its time; how far it is follows."""
WAITING_PREFIX = "waiting for its weights: "
"""Prefix of `Engine.status` when the download does not go on by now; the reason follows."""


class HasStatus(Protocol):
    """An engine, or a proxy of one."""

    @property
    def status(self) -> str:
        """As `Engine.status`."""
        ...


def watch_status(engine: HasStatus, interval: float) -> Iterator[str]:
    """Yield each new status of an engine until it is ready or failed, polling every `interval` seconds."""
    last = ""
    while last != "ready" and not last.startswith(FAILED_PREFIX):
        status = engine.status
        if status == last:
            time.sleep(interval)
        else:
            yield status
            last = status


def read_process_memory() -> tuple[int, int] | None:
    """Bytes of memory that this process uses, and of the machine; None if unknown."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class CacheUse:
    """How an engine's cache of what it made of frames is used.

    Attributes:
        frames: how many frames are in it.
        hits, misses: how often a frame was in it, and how often it had to be computed.
        device_bytes, max_device_bytes: of the device's memory, in use and at most.
        host_bytes, max_host_bytes: of the host's memory, if the device has its own.
    """

    frames: int = 0
    hits: int = 0
    misses: int = 0
    device_bytes: int = 0
    max_device_bytes: int = 0
    host_bytes: int = 0
    max_host_bytes: int = 0


class Propagation(Protocol):
    """The results of a session on its way through a span, one after another; a generator is one."""

    def __iter__(self) -> Self: ...

    def __next__(self) -> FrameResult: ...

    def close(self) -> None:
        """End it early."""
        ...


def advance_each(propagations: Sequence[Propagation]) -> list[FrameResult | Exception]:
    """`Engine.advance` of an engine whose sessions share nothing: the next result of each, or its error."""
    results: list[FrameResult | Exception] = []
    for propagation in propagations:
        try:
            results.append(next(propagation))
        except Exception as error:
            results.append(error)
    return results


class Session(Protocol):
    """A model's state for one video; a context manager that frees it."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def prompt(self, prompts: Sequence[Prompt | Phrase]) -> FrameResult:
        """Apply prompts, all on one frame, and return the result of that frame.

        A phrase is searched from its frame on, in either direction. The objects that it finds are tracks with ids of
        their own, equal in both directions; `FrameResult.phrases` lists them.

        Raises:
            Unsupported: the engine does not support this kind of prompt.
            BadRequest: a prompt lies outside the video or the picture.
        """
        ...

    def propagate(self, span: range, reverse: bool = False) -> Propagation:
        """Propagate the prompts through a span of source frames.

        Yields exactly one result per frame, first to last (last to first with `reverse`). Each contains every prompted
        track and those that phrases found; of the latter, one that is absent for long may end. A track is absent until
        the direction reaches its first prompt or continues from its last propagated frame. The session stays usable
        when it is closed early.
        """
        ...

    def remove(self, track: str) -> None:
        """Remove a track; the others do not change."""
        ...

    def keep_masks(self) -> None:
        """Let the results contain masks from now on, if the engine has any, whatever the setting `show_masks` says."""
        ...

    def state(self) -> SupportsBytes:
        """What `Engine.open` needs to continue from the last yielded frame with equal results.

        It does not change when the session goes on, and any thread may make its bytes, which takes much longer.
        """
        ...


class Engine(Protocol):
    """A loaded model. One process may hold several sessions of it, but only one thread may use them."""

    name: str
    """As in the setting `engine` and in responses."""
    version: str
    """Changes whenever its tracks may."""

    @property
    def status(self) -> str:
        """One of "loading", "warming up", "ready", or one of the prefixes above and what follows it."""
        ...

    def memory(self) -> tuple[int, int] | None:
        """Bytes of the device's memory in use, and in total; None if unknown."""
        ...

    def cache_use(self) -> CacheUse | None:
        """How its cache of frames is used; None: it has none."""
        ...

    def open(self, video: Video, state: bytes | None = None) -> Session:
        """Wait for the model, then start on a video or continue from `Session.state` of a session on the same video.

        Raises:
            SettingsError: the model could not be loaded.
            StateRefused: the state is damaged, or of another version or video.
        """
        ...

    def advance(self, propagations: Sequence[Propagation]) -> list[FrameResult | Exception]:
        """The next result of each of these propagations, which do together what they have in common.

        They are of sessions on one video, stand on the same frame and go the same way. An error of one is returned in
        its place; the others do not notice.
        """
        ...

    def encode(self, video: Video, frame: int) -> None:
        """Compute what `preview` needs of a frame; the newest `PREVIEW_FRAMES` are kept, whatever sessions do.

        Raises:
            BadRequest: the video has no such frame.
        """
        ...

    def preview(self, video: Video, prompt: Prompt) -> list[Observation]:
        """What a prompt of a new object would select on its frame; no session notices.

        Args:
            prompt: a box or points.

        Returns:
            The candidates of an ambiguous prompt with their masks, best first. Their scores tell how well each mask is
            expected to fit. The first is what a session answers to this prompt. Empty: the prompt selects nothing.

        Raises:
            BadRequest: the prompt lies outside the video or the picture, or has negative points alone.
        """
        ...
