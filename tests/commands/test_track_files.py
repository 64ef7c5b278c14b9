"""`sam3-backend track` of several videos: jobs of all workers, and one bad file costs no other."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backend import engines
from backend.cli import main
from backend.commands import track_files
from backend.errors import SettingsError
from backend.formats.mask_sidecar import read_sidecar
from backend.jobs.store import Store
from backend.jobs.worker_pool import WorkerPool
from tests.clips import write_clip
from tests.commands.test_track import spans
from tests.fakes import StubEngine, thread_worker

COUNT = 40
FOUND = {"car": {"x": range(5, 30)}, "dog": {"y": range(COUNT)}, "cat": {}}


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    return [write_clip(tmp_path / f"{number}.mp4", frames=COUNT, size=(320, 180)).path for number in range(3)]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM3_BACKEND_DATA_DIR", str(tmp_path / "data"))


Work = Callable[..., list[StubEngine]]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Work:
    """Workers with these engines run the jobs."""

    def choose(*engines: StubEngine) -> list[StubEngine]:
        def make(_: Any) -> WorkerPool:
            return WorkerPool([thread_worker(engine, device=str(number)) for number, engine in enumerate(engines)])

        monkeypatch.setattr(track_files, "make_workers", make)
        return [*engines]

    return choose


def track(paths: Sequence[Path], *words: str, code: int = 0) -> list[dict[str, Any]]:
    """The tasks that come out."""
    output = paths[0].parent / "tasks.json"
    assert main(["track", *map(str, paths), *words, "-o", str(output)]) == code
    tasks: list[dict[str, Any]] = json.loads(output.read_text())
    return tasks


def test_all_workers_track_and_each_video_has_a_task(clips: list[Path], workers: Work, capsys) -> None:
    used = workers(*(StubEngine(answering=FOUND, gate=lambda _: time.sleep(0.005)) for _ in range(2)))
    tasks = track(clips, "--label", "Vehicle", "--text", "car, cat", "--label", "Pet", "--text", "dog")
    assert [task["data"] for task in tasks] == [{"video": str(path), "fps": 25} for path in clips]
    assert [spans(task) for task in tasks] == [[("Pet", 1, COUNT), ("Vehicle", 6, 30)]] * 3
    assert all(engine.frames for engine in used)
    assert capsys.readouterr().err.splitlines()[-1] == "sam3-backend: tracked: 3 videos"


@pytest.mark.parametrize(
    "words",
    [
        "--text car,dog",
        "--text dog --span 10..20",
        "--text dog@12 --span 10..20 --direction both",
        "--text dog@12 --span 10..20 --direction backward",
        "--text dog --direction backward",
        "--text dog@39",
    ],
)
def test_a_video_has_the_same_task_as_if_it_were_alone(clips, workers: Work, monkeypatch, words: str) -> None:
    monkeypatch.setattr(engines, "load_engine", lambda _: StubEngine(answering=FOUND))
    workers(StubEngine(answering=FOUND))
    (alone,) = track(clips[:1], *words.split())
    tasks = track(clips, *words.split())
    assert spans(alone)
    assert [spans(task) for task in tasks] == [spans(alone)] * 3
    ids = [region["id"] for region in tasks[0]["predictions"][0]["result"]]
    assert ids == [region["id"] for region in alone["predictions"][0]["result"]], "what is there keeps its name"


def test_one_bad_file_costs_no_other_and_is_told(clips: list[Path], workers: Work, capsys) -> None:
    workers(StubEngine(answering=FOUND))
    text, gone = clips[0].with_name("text.mp4"), clips[0].with_name("gone.mp4")
    text.write_text("no video")
    assert [spans(task) for task in track([text, *clips, gone], "--text", "dog", code=1)] == [[("dog", 1, COUNT)]] * 3
    lines = capsys.readouterr().err.splitlines()[-4:]
    assert lines[0] == "sam3-backend: tracked: 3 videos; not tracked: 2 videos"
    assert lines[1].startswith(f"sam3-backend: {text}: failed: ")
    assert lines[2] == f"sam3-backend: {gone}: failed: there is no such file"
    assert "2 videos failed: see above" in lines[3]


def test_it_goes_on_where_it_was_interrupted(clips: list[Path], workers: Work, monkeypatch) -> None:
    engine = StubEngine(answering=FOUND, gate=lambda _: time.sleep(0.01))
    workers(engine)

    def interrupt(_: float) -> None:
        time.sleep(0.01)
        if len(engine.frames) > COUNT:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(track_files, "time", SimpleNamespace(sleep=interrupt, time=time.time))
        main(["track", *map(str, clips), "--text", "dog", "-o", str(clips[0].parent / "tasks.json")])
    assert not (clips[0].parent / "tasks.json").exists()
    assert [spans(task) for task in track(clips[::-1], "--text", "dog")] == [[("dog", 1, COUNT)]] * 3
    assert len(engine.frames) < 4 * COUNT
    before = len(engine.frames)
    track(clips, "--text", "dog")
    assert len(engine.frames) == before, "done is done"
    write_clip(clips[0], frames=COUNT - 1, size=(320, 180))
    assert spans(track(clips, "--text", "dog")[0]) == [("dog", 1, COUNT - 1)], "another file under the same name"


def test_masks_of_all_lie_beside_the_tasks(clips: list[Path], workers: Work, monkeypatch) -> None:
    monkeypatch.setenv("SAM3_BACKEND_SHOW_MASKS", "true")
    workers(StubEngine(answering=FOUND, masks=True))
    tasks = track(clips, "--text", "car")
    ids = [region["id"] for task in tasks for region in task["predictions"][0]["result"]]
    masks = read_sidecar(clips[0].parent / "tasks.json")
    assert {name: sorted(some) for name, some in masks.items()} == {name: [*range(5, 30)] for name in ids}


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("--box 1,2,3,4@0", 2, "several videos are searched by --text alone"),
        ("--like 1,2,3,4@0", 2, "several videos are searched by --text alone"),
        ("--text dog --overlay o.mp4", 2, "several videos are searched by --text alone"),
        ("--text dog --video-url a", 2, "several videos are searched by --text alone"),
        ("--text dog@3 --text car", 2, "give every --text the same @F, or none"),
        ("--text dog@99", 1, "frame 99 is outside the span 0..40"),
        ("--text dog --span 90..99", 1, "the span 90..99 is outside the video"),
    ],
)
def test_a_mistake_is_one_sentence(clips, workers: Work, capsys, words: str, code: int, sentence: str) -> None:
    workers(StubEngine(answering=FOUND))
    assert main(["track", *map(str, clips), *words.split(), "-o", str(clips[0].parent / "t.json")]) == code
    assert sentence in capsys.readouterr().err


def test_an_engine_that_cannot_run_ends_the_command(clips: list[Path], workers: Work, capsys) -> None:
    workers(StubEngine(status="failed: there are no weights: set model_path"))
    assert main(["track", *map(str, clips), "--text", "dog"]) == 2
    assert "there are no weights: set model_path" in capsys.readouterr().err


def test_what_was_begun_is_closed_when_no_workers_can_be_made(clips: list[Path], monkeypatch, capsys) -> None:
    closed: list[Store] = []

    class WatchedStore(Store):
        def close(self) -> None:
            super().close()
            closed.append(self)

    def refuse(_: Any) -> WorkerPool:
        raise SettingsError("there is no cluster")

    monkeypatch.setattr(track_files, "make_workers", refuse)
    monkeypatch.setattr(track_files, "Store", WatchedStore)
    assert main(["track", *map(str, clips), "--text", "dog"]) == 2
    assert "there is no cluster" in capsys.readouterr().err
    assert len(closed) == 1
