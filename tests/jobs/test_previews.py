"""Previews on the worker: what goes first, what is dropped, and what they cost."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.errors import BackendError, BadRequest, Busy
from backend.tracks.geometry import Box
from backend.tracks.prompts import Point, Prompt
from backend.video import VideoLimits
from tests.fakes import FakeVideo, Gate, StubEngine
from tests.jobs.test_scheduler import Harness, box, left_sides, until, wait_for_end

HERE = Path("nowhere")


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    harness = Harness(tmp_path, monkeypatch)
    yield harness
    harness.close()


def opened(harness: Harness, engine: StubEngine) -> Harness:
    harness.open(engine)
    until(lambda: harness.worker.status == "ready")
    return harness


def ask(harness: Harness, x: float = 40, frame: int = 3, session: str = "1", path: Path = HERE):
    prompt = Prompt("object", frame, points=(Point(x, 50),))
    return harness.worker.previews.preview(session, path, VideoLimits(), prompt, 20)


def asked_aside(harness: Harness, *arguments, **more) -> tuple[threading.Thread, list]:
    """Ask in a thread, and wait until the worker is asked; the answer, or the error, comes into the list."""
    answers: list = []
    client, sent = harness.worker.previews, threading.Event()
    send = client._send

    def note_sent(request) -> bool:
        is_sent = send(request)
        sent.set()
        return is_sent

    harness.monkeypatch.setattr(client, "_send", note_sent)

    def run() -> None:
        try:
            answers.append(ask(harness, *arguments, **more))
        except BackendError as error:
            answers.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert sent.wait(10)
    return thread, answers


def test_the_candidates_come_back_and_no_session_is_opened(harness: Harness) -> None:
    opened(harness, StubEngine())
    best, other = ask(harness)
    assert best.box == Box(20, 30, 60, 70)
    assert best.mask.area == 1600
    assert best.score > other.score
    assert harness.engine.sessions == 0


def test_a_preview_goes_before_the_next_frame_of_a_run_and_changes_nothing(harness: Harness) -> None:
    gate = Gate(30)
    opened(harness, StubEngine(gate=gate))
    job = harness.scheduler.submit(["a"], "1", box())
    until(lambda: job.progress()[0] == 30)
    thread, answers = asked_aside(harness)
    frames_then = []
    preview = harness.engine.preview
    harness.engine.preview = lambda *request: frames_then.append(len(harness.engine.frames)) or preview(*request)
    gate.open(31)
    thread.join(20)
    assert answers[0][0].box == Box(20, 30, 60, 70)
    assert frames_then == [31], "it interrupts the run at the end of the frame that was under way"
    gate.open()
    wait_for_end(harness.scheduler, job)
    assert left_sides(job) == [64 + frame for frame in range(100)]
    assert harness.engine.frames == list(range(100))


def test_frames_ahead_take_turns_with_a_run(harness: Harness) -> None:
    gate = Gate(30)
    opened(harness, StubEngine(gate=gate))
    job = harness.scheduler.submit(["a"], "1", box())
    until(lambda: job.progress()[0] == 30)
    order: list[str] = []
    encode, advance = harness.engine.encode, harness.engine.advance
    harness.engine.encode = lambda *request: order.append("ahead") or encode(*request)
    harness.engine.advance = lambda *request: order.append("run") or advance(*request)
    harness.worker.previews.encode("1", HERE, VideoLimits(), [5, 6, 7])
    gate.open()
    wait_for_end(harness.scheduler, job)
    assert order[:6] == ["ahead", "run", "ahead", "run", "ahead", "run"]
    assert harness.engine.encoded == [5, 6, 7]


def test_a_further_click_on_a_frame_encodes_nothing(harness: Harness) -> None:
    opened(harness, StubEngine())
    encoded: list[tuple[str, int]] = []
    harness.worker.previews.on_encoded = lambda session, frame: encoded.append((session, frame))
    harness.worker.previews.encode("1", HERE, VideoLimits(), [3])
    until(lambda: encoded)
    assert ask(harness)[0].box != ask(harness, 80)[0].box
    assert encoded[0] == ("1", 3)
    assert harness.engine.encoded == [3]


def test_a_newer_order_replaces_the_frames_that_are_left(harness: Harness) -> None:
    gate = Gate(30)
    opened(harness, StubEngine(gate=gate))
    job = harness.scheduler.submit(["a"], "1", box())
    until(lambda: job.progress()[0] == 30)
    for frames in ([5, 6, 7], [8, 9], []):
        harness.worker.previews.encode("1", HERE, VideoLimits(), frames)
    harness.worker.previews.encode("2", HERE, VideoLimits(), [1])
    harness.worker.previews.encode("3", HERE, VideoLimits(), [2])
    harness.worker.previews.end("3")
    gate.open()
    wait_for_end(harness.scheduler, job)
    assert harness.engine.encoded == [1]


def test_of_a_session_that_asks_twice_only_the_newer_prompt_is_answered(harness: Harness) -> None:
    gate = Gate(30)
    opened(harness, StubEngine(gate=gate))
    job = harness.scheduler.submit(["a"], "1", box())
    until(lambda: job.progress()[0] == 30)
    others = [asked_aside(harness, 40, session="2")]
    until(lambda: len(harness.worker.previews._waiting) == 1)
    older = asked_aside(harness, 40)
    until(lambda: len(harness.worker.previews._waiting) == 2)
    newer = asked_aside(harness, 80)
    until(lambda: len(harness.worker.previews._waiting) == 3)
    gate.open()
    for thread, _ in (*others, older, newer):
        thread.join(20)
    assert isinstance(older[1][0], BadRequest)
    assert newer[1][0][0].box.x0 == 60
    assert others[0][1][0][0].box.x0 == 20
    wait_for_end(harness.scheduler, job)


def test_a_worker_that_ends_is_told_and_the_next_one_answers(harness: Harness) -> None:
    gate = Gate(30)
    opened(harness, StubEngine(gate=gate))
    job = harness.scheduler.submit(["a"], "1", box())
    until(lambda: job.progress()[0] == 30)
    thread, answers = asked_aside(harness)
    until(lambda: harness.worker.previews._waiting)
    harness.worker.kill()
    gate.open()
    thread.join(20)
    assert isinstance(answers[0], Busy)
    wait_for_end(harness.scheduler, job)
    assert ask(harness)[0].box == Box(20, 30, 60, 70)


def test_an_error_is_the_askers_alone_and_holds_no_path(harness: Harness) -> None:
    opened(harness, StubEngine())
    harness.monkeypatch.setattr(StubEngine, "encode", lambda *_: 1 / 0)
    with pytest.raises(BackendError, match="see the server log"):
        ask(harness)
    negative = Prompt("object", 0, points=(Point(1, 1, positive=False),))
    harness.monkeypatch.undo()
    harness.monkeypatch.setattr("backend.jobs.worker.Video", lambda path, limits: FakeVideo())
    with pytest.raises(BadRequest, match="positive"):
        harness.worker.previews.preview("1", HERE, VideoLimits(), negative, 20)
    wait_for_end(harness.scheduler, harness.scheduler.submit(["a"], "1", box()))


def test_few_videos_are_open_at_a_time(harness: Harness) -> None:
    opened(harness, StubEngine())
    closed: list[Path] = []

    class CountedVideo(FakeVideo):
        def __init__(self, path: Path) -> None:
            super().__init__()
            self.path = path

        def close(self) -> None:
            closed.append(self.path)

    harness.monkeypatch.setattr("backend.jobs.worker.Video", lambda path, limits: CountedVideo(path))
    for number in (0, 1, 2, 3, 0, 4):
        ask(harness, session=str(number), path=Path(str(number)))
    assert closed == [Path("1")]
