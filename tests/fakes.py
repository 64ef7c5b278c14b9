"""Stand-ins that make tests fast: a video without a file, and an engine whose answers are known beforehand."""

import ctypes
import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Container, Generator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from typing import Self, SupportsBytes

import numpy as np

from backend.engines.base import CacheUse, Engine, Propagation, advance_each
from backend.errors import BadRequest, SettingsError, Unsupported
from backend.jobs import worker
from backend.jobs.messages import Request
from backend.jobs.worker_client import WorkerClient
from backend.jobs.worker_link import ConnectionLink
from backend.tracks.geometry import Box
from backend.tracks.masks import Rle
from backend.tracks.prompts import Phrase, Point, Prompt
from backend.tracks.track import ABSENT, FrameResult, Observation
from backend.video import Video


class FakeVideo(Video):
    """`count` black frames at `rate` frames a second."""

    damage = ""

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

    def close(self) -> None:
        pass


class StubEngine:
    """Moves each box by `step` pixels a frame to the right, away from its nearest prompt before (after, in reverse).

    `seen` says on which source frames the object can be seen; `gate`, where given, is awaited before every frame.
    `answering`, by phrase, names what a phrase finds and the frames on which each of them can be seen, standing still;
    None: it knows no words. What lies in a negative exemplar is not found; phrases go by their names. `masks`:
    everything comes with a mask of its box, in pictures of 320 x 180. `score` is that of a prompted object on a frame.
    `together` is how many sessions advanced in each call, `encoded` which frames were encoded for previews.
    """

    name, version = "stub", "1"

    def __init__(
        self,
        step: float = 1.0,
        seen: Callable[[int], bool] = lambda frame: True,
        gate: Callable[[int], None] | None = None,
        answering: Mapping[str, Mapping[str, Container[int]]] | None = None,
        masks: bool = False,
        status: str = "ready",
        score: Callable[[int], float] = lambda frame: 0.9,
    ) -> None:
        self.score = score
        self.step, self.seen, self.gate = step, seen, gate
        self.answering, self.masks, self.status = answering, masks, status
        self.frames: list[int] = []
        self.prompted: list[Prompt] = []
        self.searched: list[Phrase] = []
        self.sessions = 0
        self.together: list[int] = []
        self.encoded: list[int] = []

    def memory(self) -> tuple[int, int] | None:
        return None

    def cache_use(self) -> CacheUse | None:
        return None

    def open(self, video: Video, state: bytes | None = None) -> "StubSession":
        if self.status.startswith("failed: "):
            raise SettingsError(self.status.removeprefix("failed: "))
        self.sessions += 1
        return StubSession(self, state)

    def advance(self, propagations: Sequence[Propagation]) -> list[FrameResult | Exception]:
        self.together.append(len(propagations))
        return advance_each(propagations)

    def encode(self, video: Video, frame: int) -> None:
        if frame not in self.encoded:
            self.encoded.append(frame)

    def preview(self, video: Video, prompt: Prompt) -> list[Observation]:
        """The box, or a square around the first positive click; less surely a larger one."""
        self.encode(video, prompt.frame)
        if prompt.is_negative:
            raise BadRequest("negative points alone select nothing: add a positive point or a box")
        box = prompt.box or _around(next(point for point in prompt.points if point.positive))
        boxes = box, Box(box.x0 - 10, box.y0 - 10, box.x1 + 10, box.y1 + 10)
        return [_mask_of(one, score, video) for one, score in zip(boxes, (0.9, 0.5), strict=True)]


def _mask_of(box: Box, score: float, video: Video) -> Observation:
    mask = np.zeros((video.height, video.width), bool)
    mask[max(round(box.y0), 0) : round(box.y1), max(round(box.x0), 0) : round(box.x1)] = True
    return Observation(box, score, Rle.from_mask(mask))


class StubSession:
    def __init__(self, engine: StubEngine, state: bytes | None = None) -> None:
        self.engine = engine
        self.prompts: dict[str, dict[int, Box]] = {}
        self.phrases: dict[str, int] = {}
        self.unlike: list[Box] = []
        self.is_masked = False
        if state is not None:
            prompts, self.phrases, *unlike = json.loads(state)  # earlier versions saved two
            self.unlike = [Box(*box) for boxes in unlike for box in boxes]
            self.prompts = {name: {frame: Box(*box) for frame, box in some} for name, some in prompts.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def prompt(self, prompts: Sequence[Prompt | Phrase]) -> FrameResult:
        (frame,) = {prompt.frame for prompt in prompts}
        boxes = {}
        for prompt in prompts:
            if isinstance(prompt, Phrase):
                if self.engine.answering is None:
                    raise Unsupported("the stub knows no words")
                self.engine.searched.append(prompt)
                self.phrases.setdefault(prompt.name, frame)
                self.unlike += [exemplar.box for exemplar in prompt.exemplars if not exemplar.positive]
                continue
            self.engine.prompted.append(prompt)
            if prompt.is_negative:
                continue  # it moves nothing
            box = prompt.box or _around(next(point for point in prompt.points if point.positive))
            boxes[prompt.track] = self.prompts.setdefault(prompt.track, {})[frame] = box
        texts = {prompt.name for prompt in prompts if isinstance(prompt, Phrase)}
        found = {name: (words, box) for name, (words, box) in self._found(frame, False).items() if words in texts}
        tracks = {name: Observation(box, 1.0) for name, box in boxes.items()}
        tracks |= {name: self._seen(Box(*place), 0.8) for name, (_, place) in found.items()}
        return FrameResult(frame, tracks, {name: words for name, (words, _) in found.items()})

    def propagate(self, span: range, reverse: bool = False) -> Generator[FrameResult]:
        for frame in reversed(span) if reverse else span:
            if self.engine.gate:
                self.engine.gate(frame)
            self.engine.frames.append(frame)
            found = self._found(frame, reverse)
            tracks = {track: self._look(track, frame, reverse) for track in self.prompts}
            tracks |= {name: self._seen(Box(*place), 0.8) for name, (_, place) in found.items()}
            yield FrameResult(frame, tracks, {name: words for name, (words, _) in found.items()})

    def _found(self, frame: int, reverse: bool) -> dict[str, tuple[str, tuple[int, int, int, int]]]:
        """Words and box by name; all boxes lie in a row from left to right."""
        names = [
            (words, name, frames)
            for words, found in (self.engine.answering or {}).items()
            for name, frames in found.items()
        ]
        return {
            name: (words, (40 * number, 120, 40 * number + 30, 150))
            for number, (words, name, frames) in enumerate(names)
            if words in self.phrases
            and not any(abs(box.x0 - 40 * number) < 20 and abs(box.y0 - 120) < 20 for box in self.unlike)
            and frame in frames
            and (frame <= self.phrases[words] if reverse else frame >= self.phrases[words])
        }

    def _seen(self, box: Box, score: float) -> Observation:
        if not (self.engine.masks and self.is_masked):
            return Observation(box, score)
        mask = np.zeros((180, 320), bool)
        mask[round(box.y0) : round(box.y1), round(box.x0) : round(box.x1)] = True
        return Observation(box, score, Rle.from_mask(mask))

    def _look(self, track: str, frame: int, reverse: bool) -> Observation:
        known = [at for at in self.prompts[track] if (at >= frame if reverse else at <= frame)]
        if not known or not self.engine.seen(frame):
            return ABSENT
        at = min(known) if reverse else max(known)
        shift = self.engine.step * (frame - at)
        box = self.prompts[track][at]
        return self._seen(Box(box.x0 + shift, box.y0, box.x1 + shift, box.y1), self.engine.score(frame))

    def keep_masks(self) -> None:
        self.is_masked = True

    def remove(self, track: str) -> None:
        del self.prompts[track]

    def state(self) -> SupportsBytes:
        prompts = {name: list(some.items()) for name, some in self.prompts.items()}
        return json.dumps([prompts, self.phrases, self.unlike]).encode()


def _around(point: Point) -> Box:
    """What a click shows the stub."""
    return Box(point.x - 20, point.y - 20, point.x + 20, point.y + 20)


class Gate:
    """Lets the engine pass frames up to one that the test moves on."""

    def __init__(self, until: int) -> None:
        self.until = until
        self.held = 0
        """How many threads of the engine wait here."""
        self._moved = threading.Condition()

    def __call__(self, frame: int) -> None:
        with self._moved:
            self.held += 1
            assert self._moved.wait_for(lambda: frame < self.until, timeout=30)
            self.held -= 1

    def open(self, until: int = 10**9) -> None:
        with self._moved:
            self.until = until
            self._moved.notify_all()


def sleeping_engine(seconds: float, log: Path | None = None, load: float = 0.0) -> StubEngine:
    """A stub for a worker process: each frame takes `seconds` and appends its number to the log."""

    def sleep(frame: int) -> None:
        time.sleep(seconds)
        if log:
            with log.open("a") as file:
                file.write(f"{frame}\n")

    engine = StubEngine(gate=sleep, answering={"car": {"x": range(10**6)}})
    if load:
        engine.status = "loading"
        threading.Timer(load, lambda: setattr(engine, "status", "ready")).start()
    return engine


class HeavyEngine(StubEngine):
    """A stub whose states are padded to `size` bytes."""

    def __init__(self, size: int, gate: Callable[[int], None]) -> None:
        super().__init__(gate=gate)
        self._padding = bytes(size)

    def open(self, video: Video, state: bytes | None = None) -> "StubSession":
        session = super().open(video, state and state[: state.index(b"\0")])
        plain = session.state
        setattr(session, "state", lambda: bytes(plain()) + self._padding)  # noqa: B010 (mypy: a method is replaced)
        return session


def heavy_engine(seconds: float, log: Path | None, size: int) -> StubEngine:
    """As `sleeping_engine`, with states of `size` bytes."""
    sleep = sleeping_engine(seconds, log).gate
    assert sleep
    return HeavyEngine(size, sleep)


def starved_engine(every: int) -> StubEngine:
    """A stub for a worker process: every so many frames its device has no memory left."""
    frames = itertools.count(1)

    def starve(_: int) -> None:
        if next(frames) % every == 0:
            raise Unsupported("the device has no memory left for one frame with one object or phrase")

    return StubEngine(gate=starve)


def stuck_engine() -> StubEngine:
    """A stub for a worker process whose first frame is a library's call that holds the interpreter's lock."""

    def stick(_: int) -> None:
        time.sleep(1)  # what was said before has left
        ctypes.PyDLL(None).sleep(60)

    return StubEngine(gate=stick)


def fake_path(*_: object) -> Path:
    """What a fetched video's path is where nobody reads it."""
    return Path("nowhere")


class ThreadLink(ConnectionLink):
    """What is sent is there when `send` returns, so that a test may go on."""

    _sending = threading.Lock()

    def send(self, request: Request) -> None:
        with suppress(OSError, ValueError), self._sending:
            self._connection.send(request)


def thread_link(make_engine: Callable[[], Engine]) -> ThreadLink:
    """A worker in a thread; `kill` ends it when it next sends or receives."""
    ours, theirs = Pipe()

    def kill() -> None:
        with suppress(OSError), socket.socket(fileno=os.dup(theirs.fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=worker.serve, args=(theirs, make_engine), name="worker", daemon=True).start()
    return ThreadLink(ours, kill)


def thread_worker(engine: StubEngine, timeout: float = 600.0, device: str = "stub") -> WorkerClient:
    """A client whose workers are threads of this process, so that tests can inspect and pause the engine."""
    return WorkerClient(partial(thread_link, lambda: engine), engine.name, engine.version, timeout, device=device)
