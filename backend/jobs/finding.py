"""The job behind a line of words: its file opened, its phrases looked for, everything that answers to them tracked."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from backend.jobs.footage import Footage
from backend.jobs.propagation import Propagations
from backend.labelstudio.clock import Clock
from backend.labelstudio.grammar import Range
from backend.labelstudio.segments import Segment, sampled, tracked
from backend.labelstudio.sequence import LAST_FRAME, Item
from backend.prompts import Phrase
from backend.tracks import Track

_WHOLE = Segment(None, None)


@dataclass(frozen=True, slots=True)
class _View:
    """What is known once the file is open."""

    clock: Clock
    size: tuple[int, int]
    propagations: Propagations


@dataclass(frozen=True, slots=True)
class Found:
    """One object that was found, as far as it is known.

    Attributes:
        phrase: the words that it answers to.
        items: its keyframes.
        score: mean over the frames where it is present.
    """

    phrase: str
    items: tuple[Item, ...]
    score: float


class Finding:
    """The work of one job; other threads may ask for what is there while it runs.

    Args:
        phrases: what to find.
        within: LS frames to look on.
    """

    def __init__(self, phrases: Sequence[str], within: Range, footage: Footage) -> None:
        self.phrases = tuple(phrases)
        self._within = within
        self._footage = footage
        self._view: _View | None = None
        self._progress = (0, 1)
        self._last: int | None = None
        self._until = 0
        self._whole: dict[str, Found] | None = None
        self.length: int | None = None
        """LS frames of the video, once it is open."""

    def run(self, cancelled: Callable[[], bool]) -> None:
        """Open, look, propagate.

        Raises:
            BackendError: the file cannot be had or decoded, it has none of these frames, or the engine knows no words.
        """
        with self._footage.open(cancelled) as video:
            clock = Clock(video.times, video.end, self._footage.framerate)
            self.length = clock.length
            clock.check(self._within.first)
            first, last = (clock.source(min(frame, clock.length)) for frame in self._within)
            propagations = Propagations(
                len(video),
                {},
                [Phrase(text, first) for text in self.phrases],
                "forward",
                max_frames=self._footage.max_frames,
                span=range(first, last + 1),
            )
            self._progress = (0, propagations.total)
            self._view = _View(clock, (video.width, video.height), propagations)
            with closing(propagations.run(self._footage.engine, video)) as frames:
                for done, frame in enumerate(frames, start=1):
                    self._progress, self._last = (done, propagations.total), frame
                    if cancelled():
                        break
            is_whole = not cancelled() and self._last == len(video) - 1
            self._until = LAST_FRAME if is_whole else self.until()
        # Made once, here; what they were made of takes a hundred times the memory.
        self._whole, self._view = self.found(), None

    def progress(self) -> tuple[int, int]:
        """Frames done and to do."""
        return self._progress

    def until(self) -> int:
        """The last LS frame that was looked at; the last of all where the video's end was."""
        view = self._view
        return view.clock.frame(self._last) if view and self._last is not None else self._until

    def found(self) -> dict[str, Found]:
        """What is known by now, by names that stay the same while the job goes on."""
        view = self._view
        if view is None:
            return self._whole or {}
        tracks = view.propagations.tracks()
        found = {name: self._found(track, view.propagations.found[name], view) for name, track in tracks.items()}
        return {name: one for name, one in found.items() if one.items}

    def _found(self, track: Track, phrase: str, view: _View) -> Found:
        boxes = sampled(_WHOLE, track, view.clock, view.size, view.clock.length)
        return Found(phrase, tuple(tracked(_WHOLE, boxes, self._footage.bound)), float(np.nanmean(track.scores)))
