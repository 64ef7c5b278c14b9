from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import SupportsBytes

import pytest

from backend.jobs.messages import Chunk, RunReply, StartRun
from backend.jobs.propagation import PropagationRun
from backend.jobs.schedule import Progress, intervals_between
from backend.jobs.worker_run import SAVED_FRAMES, Run
from backend.tracks.geometry import Box
from backend.tracks.prompts import Prompt
from backend.video import Video
from tests.fakes import FakeVideo, StubEngine, StubSession

FRAMES = 100


class State:
    """One whose bytes take something."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make

    def __bytes__(self) -> bytes:
        return self._make()


class Engine(StubEngine):
    def __init__(self, make_state: Callable[[], bytes]) -> None:
        super().__init__()
        self.make_state = make_state

    def open(self, video: Video, state: bytes | None = None) -> StubSession:
        return Session(self, state)


class Session(StubSession):
    engine: Engine

    def state(self) -> SupportsBytes:
        return State(self.engine.make_state)


def replies_of(engine: StubEngine, folder: Path, at_end: Callable[[], None] = lambda: None) -> list[RunReply]:
    """What a run sends; `at_end` is called when all of its frames are computed."""
    prompt = Prompt("object", 0, box=Box(10, 10, 30, 30))
    schedule = PropagationRun(FRAMES, {"object": intervals_between([0], "forward")}, [prompt]).schedule
    replies: list[RunReply] = []
    with ThreadPoolExecutor(1) as writer:
        request = StartRun(1, schedule, Progress(), None, folder / "state")
        run = Run(engine, FakeVideo(FRAMES), request, replies.append, writer)
        while not run.is_complete:
            (result,) = engine.advance([run.propagation])
            run.add(result, (1,))
        run.flush()
        at_end()
        run.close()
        closed_with = len(replies)
    assert len(replies) == closed_with, "nothing follows its end"
    return replies


def chunks_of(replies: list[RunReply]) -> list[Chunk]:
    chunks = [reply for reply in replies if isinstance(reply, Chunk)]
    assert [frame for chunk in chunks for block in chunk.blocks for frame in block.frames] == [*range(FRAMES)]
    return chunks


def test_frames_are_computed_while_a_state_is_written(tmp_path: Path) -> None:
    all_computed = Event()

    def make_state() -> bytes:
        assert all_computed.wait(20)
        return b"state"

    chunks = chunks_of(replies_of(Engine(make_state), tmp_path, all_computed.set))
    with_state = [chunk for chunk in chunks if chunk.state]
    assert len(with_state) == FRAMES // SAVED_FRAMES
    assert [chunk.state.path.read_bytes() for chunk in with_state] == [b"state"] * len(with_state)
    assert [chunk.blocks[-1].frames[-1] for chunk in with_state] == [31, 63, 95]


def test_a_state_that_cannot_be_made_costs_no_frame(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def make_state() -> bytes:
        raise MemoryError(str(tmp_path))

    chunks = chunks_of(replies_of(Engine(make_state), tmp_path))
    assert [chunk.state.path for chunk in chunks if chunk.state] == [None] * (FRAMES // SAVED_FRAMES)
    assert "the engine's state is not saved: MemoryError" in caplog.text
    assert str(tmp_path) not in caplog.text
    assert not list(tmp_path.iterdir())
