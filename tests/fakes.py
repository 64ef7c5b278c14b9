"""Stand-ins that make tests fast: a video without a file, and an engine whose answers are known beforehand."""

import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from backend.geometry import Box
from backend.prompts import Phrase, Prompt
from backend.tracks import ABSENT, FrameResult, Observation


class FakeVideo:
    """`count` black frames at `rate` frames a second."""

    def __init__(self, count: int = 100, rate: float = 25.0, width: int = 640, height: int = 360) -> None:
        self.times = np.arange(count) / rate
        self.rate, self.width, self.height = rate, width, height
        self.end = self.duration = count / rate

    def __len__(self) -> int:
        return len(self.times)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class StubEngine:
    """Moves each box by `step` pixels a frame to the right, away from its nearest prompt before (after, in reverse).

    `seen` says on which source frames the object can be seen; `gate`, where given, is awaited before every frame.
    """

    name, version = "stub", "1"

    def __init__(
        self,
        step: float = 1.0,
        seen: Callable[[int], bool] = lambda frame: True,
        gate: Callable[[int], None] | None = None,
    ) -> None:
        self.step, self.seen, self.gate = step, seen, gate
        self.frames: list[int] = []

    def open(self, video: FakeVideo, state: bytes | None = None) -> "StubSession":
        return StubSession(self)


class StubSession:
    def __init__(self, engine: StubEngine) -> None:
        self.engine = engine
        self.prompts: dict[str, dict[int, Box]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def prompt(self, prompts: Sequence[Prompt | Phrase]) -> FrameResult:
        for prompt in prompts:
            assert isinstance(prompt, Prompt)
            assert prompt.box is not None
            self.prompts.setdefault(prompt.track, {})[prompt.frame] = prompt.box
        return FrameResult(prompts[0].frame, {p.track: Observation(p.box, 1.0) for p in prompts})

    def propagate(self, span: range, reverse: bool = False) -> Generator[FrameResult]:
        for frame in reversed(span) if reverse else span:
            if self.engine.gate:
                self.engine.gate(frame)
            self.engine.frames.append(frame)
            yield FrameResult(frame, {track: self._look(track, frame, reverse) for track in self.prompts})

    def _look(self, track: str, frame: int, reverse: bool) -> Observation:
        known = [at for at in self.prompts[track] if (at >= frame if reverse else at <= frame)]
        if not known or not self.engine.seen(frame):
            return ABSENT
        at = min(known) if reverse else max(known)
        shift = self.engine.step * (frame - at)
        box = self.prompts[track][at]
        return Observation(Box(box.x0 + shift, box.y0, box.x1 + shift, box.y1), 0.9)

    def state(self) -> bytes:
        return b""


class Gate:
    """Lets the engine pass frames up to one that the test moves on."""

    def __init__(self, until: int) -> None:
        self.until = until
        self._moved = threading.Condition()

    def __call__(self, frame: int) -> None:
        with self._moved:
            assert self._moved.wait_for(lambda: frame < self.until, timeout=30)

    def open(self, until: int = 10**9) -> None:
        with self._moved:
            self.until = until
            self._moved.notify_all()


def fake_path(*_: object) -> Path:
    """What a fetched video's path is where nobody reads it."""
    return Path("nowhere")
