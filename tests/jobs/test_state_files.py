"""States of interrupted jobs: which one a job continues from, and what becomes of one that cannot be kept."""

import zlib
from pathlib import Path

import pytest

from backend.errors import StateRefused
from backend.jobs import job_recorder, worker_run
from backend.jobs.messages import SavedState
from backend.jobs.schedule import Progress
from backend.jobs.state_files import StateFiles
from backend.jobs.worker_run import read_state
from tests.fakes import Gate, StubEngine
from tests.jobs.test_scheduler import Harness, box, harness, left_sides, own_path, until, wait_for_end

__all__ = ["harness"]


ALL = Progress(9, 9)


def newest(states: StateFiles, job: int, kept: Progress = ALL) -> tuple[Progress, bytes] | None:
    found = states.newest(job, kept)
    return found and (found[0], read_state(found[1]))


def test_a_job_continues_from_its_newest_state_that_is_not_beyond_its_frames(tmp_path: Path) -> None:
    states = StateFiles(tmp_path / "states", 100)
    assert newest(states, 7) is None
    for job, place, state in ((7, Progress(0, 32), b"a"), (7, Progress(1, 2), b"b"), (8, Progress(0, 64), b"c")):
        assert states.save(job, place, state)
    assert newest(states, 7) == (Progress(1, 2), b"b")
    assert newest(states, 7, Progress(0, 99)) is None, "of a place beyond the frames that are kept"
    assert (newest(states, 8), sorted(states.jobs()), states.used_bytes()) == ((Progress(0, 64), b"c"), [7, 8], 2)
    assert len(list((tmp_path / "states").iterdir())) == 2, "the earlier one is gone"
    states.delete(7)
    assert newest(states, 7) is None
    assert newest(StateFiles(tmp_path / "states", 100), 8) == (Progress(0, 64), b"c")


def test_a_state_without_room_leaves_the_earlier_one(tmp_path: Path) -> None:
    states = StateFiles(tmp_path, 3)
    assert states.save(7, Progress(0, 32), b"abc")
    assert not states.save(7, Progress(0, 64), b"abcd")
    assert not states.keep(7, Progress(0, 64), SavedState(None))
    assert not states.keep(7, Progress(0, 64), SavedState(tmp_path / "gone"))
    assert newest(states, 7) == (Progress(0, 32), b"abc")
    assert [path.name for path in tmp_path.iterdir()] == [f"7.0.32.{zlib.crc32(b'abc'):08x}"]


def test_what_a_killed_worker_left_is_deleted(tmp_path: Path) -> None:
    states = StateFiles(tmp_path, 100)
    states.save(7, Progress(0, 32), b"abc")
    for job in (7, 17):
        states.new_path(job).with_suffix(".part.1").write_bytes(b"half")
    states.new_path(7)
    assert sorted(path.name.partition(".")[0] for path in tmp_path.iterdir()) == ["17", "7"]
    states.delete_parts()
    assert len(list(tmp_path.iterdir())) == 1
    assert newest(states, 7) == (Progress(0, 32), b"abc")


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    states = StateFiles(tmp_path, 100)
    states.save(7, Progress(0, 32), b"abc")
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"ab")
    with pytest.raises(StateRefused):
        newest(states, 7)
    _, saved = states.newest(7, Progress(0, 99))
    path.unlink()
    with pytest.raises(StateRefused):
        read_state(saved)


def test_a_job_whose_state_is_damaged_keeps_its_frames(harness: Harness) -> None:
    gate = Gate(40)
    scheduler = harness.open(StubEngine(gate=gate))
    job = scheduler.submit(["a"], "1", box())
    until(lambda: job.progress()[0] == 40)
    scheduler.cancel(job.number)
    gate.open()
    wait_for_end(scheduler, job, "cancelled")
    (path,) = (harness.folder / "states").iterdir()
    path.write_bytes(b"")
    again = wait_for_end(scheduler, scheduler.submit(["a"], "1", box()))
    assert left_sides(again) == [64 + frame for frame in range(100)]
    assert harness.engine.frames[-100:] == list(range(100))
    until(lambda: harness.done)
    assert not list((harness.folder / "states").iterdir()), "a job that is done needs none"


def test_a_job_whose_state_cannot_be_kept_is_not_interrupted(harness: Harness) -> None:
    gate = Gate(70)
    harness.fetch = own_path
    scheduler = harness.open(StubEngine(gate=gate))
    harness.store.states._max_bytes = 1
    batch = scheduler.submit(["batch"], "1", box(), batch=True)
    until(lambda: not batch.keeps_state)
    asked = scheduler.submit(["asked"], "1", box(20, task="8"))
    gate.open()
    wait_for_end(scheduler, asked)
    assert batch.state == "done"
    assert harness.engine.frames == [*range(100), *range(100)]


def test_frames_are_saved_also_where_states_are_too_dear(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_run, "_FREE_SECONDS", -1e9)
    monkeypatch.setattr(job_recorder, "_SAVE_SECONDS", 0.0)
    gate = Gate(70)
    scheduler = harness.open(StubEngine(gate=gate))
    job = scheduler.submit(["a"], "1", box())
    until(lambda: harness.store.job(job.number).frames == (70, 100))
    assert harness.store.states.jobs() == []
    harness.worker.kill()
    gate.open()
    again = wait_for_end(scheduler, job)
    assert left_sides(again) == [64 + frame for frame in range(100)]
    harness.open()
    assert left_sides(harness.scheduler.job(job.number)) == left_sides(again), "no frame is there twice"


def test_a_job_that_is_dear_to_interrupt_runs_for_a_while_first(harness: Harness) -> None:
    gate = Gate(40)
    harness.fetch = own_path
    scheduler = harness.open(StubEngine(gate=gate))
    batch = scheduler.submit(["batch"], "1", box(), batch=True)
    until(lambda: batch.progress()[0] == 40)
    batch.stop_seconds = 1e6
    first = scheduler.submit(["first"], "1", box(20, task="8"))
    gate.open(60)
    until(lambda: batch.progress()[0] == 60)
    assert first.state == "queued"
    batch.stop_seconds = 0.0
    gate.open()
    wait_for_end(scheduler, first)
    wait_for_end(scheduler, batch)
    assert 0 < harness.engine.frames[60:].index(0) < 40, "it is looked at again while the job runs"
