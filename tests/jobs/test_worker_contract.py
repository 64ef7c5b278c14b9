"""What every kind of worker keeps to, wherever it runs: open, run, stop, kill, status."""

import os
import queue
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from backend.engines.base import Engine
from backend.errors import BackendError, SettingsError
from backend.jobs.carried import CarriedReply, ServerFiles, VideoFile, WantVideo, send_video
from backend.jobs.messages import (
    Ack,
    Chunk,
    EncodeFrames,
    Failure,
    FrameEncoded,
    InitialTracks,
    OpenVideo,
    PreviewMasks,
    PreviewPrompt,
    Reply,
    Request,
    RunEnd,
    StartRun,
    StopRun,
    WorkerStatus,
)
from backend.jobs.node_worker import NodeWorker
from backend.jobs.propagation import PropagationRun
from backend.jobs.schedule import Progress, intervals_between
from backend.jobs.worker_launcher import process_launcher
from backend.jobs.worker_link import WorkerLink
from backend.jobs.worker_run import read_state
from backend.tracks.geometry import Box
from backend.tracks.prompts import Prompt
from backend.video import VideoInfo, VideoLimits
from backend.worker_settings import RaySettings
from tests.clips import write_clip
from tests.fakes import StubEngine, sleeping_engine, stuck_engine, thread_link
from tests.needs import need

FRAMES = 100
ROOT = Path(__file__).resolve().parents[2]


def a_process(make_engine: Callable[[], Engine]) -> WorkerLink:
    return process_launcher(make_engine, "error")()


def a_ray_actor(make_engine: Callable[[], Engine]) -> WorkerLink:
    need(find_spec("ray") is not None, "Ray (pip install -e '.[ray]')")
    import ray

    from backend.jobs import ray_link

    if not ray.is_initialized():
        os.environ.setdefault("RAY_AUTH_TOKEN", "0123456789abcdef" * 2)  # else Ray writes one into the home folder
        ray_link.connect(RaySettings())
    return ray_link.ray_launcher(make_engine, "error", RaySettings(num_gpus=0, num_cpus=0.1), 2**30)()


class NodeLink:
    """As `RayLink`, with the node's part in this process."""

    def __init__(self, make_engine: Callable[[], Engine]) -> None:
        self._node, self._files = NodeWorker(make_engine, "error", 2**30), ServerFiles()
        self._requests, self._parts = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._replies: queue.Queue[CarriedReply | WantVideo | None] = queue.Queue()
        threading.Thread(target=self._read_loop, daemon=True).start()

    def send(self, request: Request) -> None:
        self._requests.submit(self._node.handle, self._files.pack(request))

    def receive(self, seconds: float | None = None) -> Reply | None:
        while True:
            try:
                reply = self._replies.get(timeout=seconds)
            except queue.Empty:
                return None
            if reply is None:
                self._replies.put(None)
                raise EOFError
            if isinstance(reply, CarriedReply):
                return self._files.unpack(reply)
            self._parts.submit(send_video, reply.video, self._node.add_part)

    def kill(self) -> None:
        with suppress(OSError), socket.socket(fileno=os.dup(self._node._connection.fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)

    def _read_loop(self) -> None:
        for reply in self._node.replies():
            self._replies.put(reply)
        self._replies.put(None)


KINDS: dict[str, Callable[[Callable[[], Engine]], WorkerLink]] = {
    "process": a_process,
    "thread": thread_link,
    "node": NodeLink,
    "ray": a_ray_actor,
}


class Worker:
    """A worker that a test talks to; it fails the test when nothing comes for long."""

    def __init__(self, link: WorkerLink) -> None:
        self.link, self.statuses = link, list[WorkerStatus]()

    def receive(self) -> Reply:
        """The next reply that is no status."""
        deadline = time.monotonic() + 120
        while True:
            reply = self.link.receive(deadline - time.monotonic())
            assert reply is not None, "nothing comes"
            if not isinstance(reply, WorkerStatus):
                return reply
            self.statuses.append(reply)

    def status(self) -> str:
        """The last status; it comes by itself, at any time."""
        while not self.statuses:
            reply = self.link.receive(30)
            assert isinstance(reply, WorkerStatus)
            self.statuses.append(reply)
        return self.statuses[-1].status

    def wait_for_end(self) -> None:
        """Until the worker has ended, whatever it has sent before."""
        with suppress(EOFError):
            while True:
                self.receive()

    def open(self, clip: Path) -> VideoInfo:
        self.link.send(OpenVideo(clip, VideoLimits()))
        reply = self.receive()
        assert isinstance(reply, VideoInfo)
        return reply

    def start(self, run_id: int, states: Path, frame: int = 0, **more: object) -> None:
        intervals = intervals_between([frame], "forward")
        prompt = Prompt("object", frame, box=Box(10, 10, 30, 30))
        schedule = PropagationRun(FRAMES, {"object": intervals}, [prompt]).schedule
        given = {"progress": Progress(), "state": None} | more
        self.link.send(StartRun(run_id, schedule, new_states=states, **given))

    def run_to_end(self, *, acknowledge: bool = True) -> tuple[list[Chunk], RunEnd]:
        """The chunks of a run, and its end."""
        chunks = []
        while not isinstance(reply := self.receive(), RunEnd):
            assert not isinstance(reply, Failure), reply.error
            if isinstance(reply, Chunk):
                chunks.append(reply)
                if reply.state and acknowledge:
                    self.link.send(Ack(reply.run_id))
        return chunks, reply


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=FRAMES, size=(64, 48)).path


@pytest.fixture(scope="module", autouse=True)
def leave_ray() -> Iterator[None]:
    yield
    if find_spec("ray"):
        from backend.jobs import ray_link

        ray_link.disconnect()


@pytest.fixture(params=[*list(KINDS)[:-1], pytest.param("ray", marks=pytest.mark.slow)])
def launch(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., Worker]]:
    monkeypatch.chdir(ROOT)  # workers import their engine factory from here
    monkeypatch.setattr(VideoFile, "is_here", False)  # in this process
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    workers: list[Worker] = []

    def launch(make_engine: Callable[[], Engine]) -> Worker:
        workers.append(Worker(KINDS[request.param](make_engine)))
        return workers[-1]

    yield launch
    for worker in workers:
        worker.link.kill()


def frames_of(chunks: list[Chunk]) -> list[int]:
    return [frame for chunk in chunks for block in chunk.blocks for frame in block.frames]


def test_a_run_goes_through_the_video_and_tells_its_states(launch, clip: Path, tmp_path: Path) -> None:
    worker = launch(partial(sleeping_engine, 0.001))
    info = worker.open(clip)
    assert (len(info.times), info.size) == (FRAMES, (64, 48))
    worker.start(1, tmp_path / "state")
    assert isinstance(worker.receive(), InitialTracks)
    chunks, end = worker.run_to_end()
    assert (end, frames_of(chunks)) == (RunEnd(1, True), [*range(FRAMES)])
    states = [chunk.state for chunk in chunks if chunk.state]
    assert len(states) >= 3
    assert all(read_state(state) for state in states)
    assert worker.status() == "ready"


def test_a_run_that_is_stopped_goes_on_from_its_state(launch, clip: Path, tmp_path: Path) -> None:
    worker = launch(partial(sleeping_engine, 0.002))
    worker.open(clip)
    worker.start(1, tmp_path / "a")
    while not isinstance(first := worker.receive(), Chunk):
        pass
    worker.link.send(StopRun(1))
    chunks, end = worker.run_to_end()
    chunks = [first, *chunks]  # there may be no more frames before it stops
    assert (end.is_complete, chunks[-1].state is not None) == (False, True)
    stopped_at = frames_of(chunks)[-1] + 1
    assert stopped_at < FRAMES
    other = launch(partial(sleeping_engine, 0.0))
    other.open(clip)
    other.start(2, tmp_path / "b", progress=Progress(0, stopped_at), state=chunks[-1].state)
    more, end = other.run_to_end()
    assert (end, frames_of(more)) == (RunEnd(2, True), [*range(stopped_at, FRAMES)])


def test_a_run_waits_until_its_states_are_on_disk(launch, clip: Path, tmp_path: Path) -> None:
    worker = launch(partial(sleeping_engine, 0.0))
    worker.open(clip)
    worker.start(1, tmp_path / "state")
    states = 0
    while states < 2:
        reply = worker.receive()
        states += isinstance(reply, Chunk) and reply.state is not None
    while (reply := worker.link.receive(0.3)) is not None:
        assert isinstance(reply, WorkerStatus), "it waits"
    for _ in range(9):
        worker.link.send(Ack(1))
    assert worker.run_to_end(acknowledge=False)[1].is_complete


def test_previews_are_answered(launch, clip: Path) -> None:
    worker = launch(partial(sleeping_engine, 0.0))
    worker.link.send(EncodeFrames("1", clip, VideoLimits(), [7]))
    assert worker.receive() == FrameEncoded("1", 7)
    prompt = Prompt("object", 8, box=Box(10, 10, 30, 30))
    worker.link.send(PreviewPrompt(5, "1", clip, VideoLimits(), prompt))
    masks = worker.receive()
    assert isinstance(masks, PreviewMasks)
    assert (masks.preview_id, masks.candidates[0].box) == (5, prompt.box)


def test_an_error_is_the_runs_own_and_names_no_path(launch, clip: Path, tmp_path: Path) -> None:
    worker = launch(partial(sleeping_engine, 0.0))
    worker.link.send(OpenVideo(tmp_path / "none.mp4", VideoLimits()))
    reply = worker.receive()
    assert isinstance(reply, Failure)
    assert isinstance(reply.error, BackendError)
    assert str(tmp_path) not in str(reply.error)
    worker.open(clip)
    worker.start(1, tmp_path / "state")
    assert worker.run_to_end()[1].is_complete


def failing_engine() -> StubEngine:
    raise SettingsError("there is no such model: give another")


def test_an_engine_that_cannot_be_made_is_told_and_the_worker_ends(launch) -> None:
    worker = launch(failing_engine)
    reply = worker.receive()
    assert isinstance(reply, Failure)
    assert (reply.run_id, str(reply.error)) == (None, "there is no such model: give another")
    worker.link.kill()
    worker.wait_for_end()


def test_one_that_is_killed_has_ended_and_drops_what_it_is_sent(launch, clip: Path, tmp_path: Path) -> None:
    worker = launch(partial(sleeping_engine, 0.01))
    worker.open(clip)
    worker.start(1, tmp_path / "state")
    while not isinstance(worker.receive(), Chunk):
        pass
    worker.link.kill()
    worker.wait_for_end()
    worker.link.send(StopRun(1))
    worker.link.kill()


@pytest.mark.parametrize("launch", ["process", pytest.param("ray", marks=pytest.mark.slow)], indirect=True)
def test_one_that_hangs_keeps_nobody_waiting_and_can_be_killed(launch, clip: Path, tmp_path: Path) -> None:
    worker = launch(stuck_engine)
    worker.open(clip)
    worker.start(1, tmp_path / "state")
    assert isinstance(worker.receive(), InitialTracks)
    for number in range(2000):  # far more than a connection holds
        worker.link.send(EncodeFrames(str(number), clip, VideoLimits(), [*range(200)]))
    worker.link.kill()
    worker.wait_for_end()
