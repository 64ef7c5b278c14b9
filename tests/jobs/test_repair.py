"""A damaged database, row or block: what can be read is kept, the rest is said, and nothing else is lost."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from backend.errors import StoreDamaged
from backend.jobs.schedule import Progress
from backend.jobs.store import Store
from backend.tracks.track import ResultBlock
from tests.fakes import StubEngine
from tests.jobs.test_scheduler import Harness, box, harness, left_sides, until, wait_for_end
from tests.jobs.test_store import add_job, end_job, mask_blocks

__all__ = ["harness"]
COUNT = 60


def change(path: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(sql, values)


def filled(path: Path) -> list[int]:
    """A database of many jobs, each with results of several pages."""
    rows = np.random.default_rng(1).random((1, 500, 5), np.float32)
    store = Store(path, 2**30, 30)
    numbers = [add_job(store, f"d{number}") for number in range(COUNT)]
    for number in numbers:
        store.save(number, [], [(0, ResultBlock(range(500), False, ("a",), rows))], Progress(0, 500), (500, 500, 1))
        end_job(store, number)
    store.records.put_connection("3", "http://studio", "t0ken")
    store.records.put_click("7", "p", False)
    store.close()
    return numbers


def damage(path: Path, first: float, last: float, seed: int = 1) -> None:
    """Overwrite a part of the file, by shares of its length."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(int(size * first))
        file.write(random.Random(seed).randbytes(int(size * (last - first))))


def spoil_root(path: Path, table: str) -> None:
    """Overwrite the page at which a table begins."""
    with closing(sqlite3.connect(path)) as file:
        sql = "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_master WHERE name = ?"
        ((root, size),) = file.execute(sql, (table,))
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(random.Random(1).randbytes(size))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_damaged_pages_cost_what_was_on_them(tmp_path: Path, share: float) -> None:
    path = tmp_path / "jobs.sqlite3"
    numbers = filled(path)
    damage(path, share, share + 0.02)
    path.with_suffix(".damaged").touch()  # reading or writing there leaves this
    store = Store(path, 2**30, 30)
    assert "the job database was damaged: it is kept as jobs.sqlite3.damaged-" in str(store.repaired)
    left = [row.number for row in store.latest(999)]
    assert len(left) >= COUNT * 0.9
    whole = [number for number in left if sum(len(block.frames) for _, block in store.blocks(number)) == 500]
    assert len(whole) >= COUNT * 0.9
    assert store.records.connection("3") == ("http://studio", "t0ken")
    assert store.records.is_click_positive("7", "p") is False
    assert add_job(store, "new") > max(left), "numbers are not used twice"
    assert {*left} <= {*numbers}
    store.close()
    assert (path.stat().st_mode & 0o77, path.with_suffix(".damaged").exists()) == (0, False)
    store = Store(path, 2**30, 30)
    assert store.repaired is None, "it is whole now"
    store.close()


def test_a_start_finds_damaged_jobs_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    filled(path)
    spoil_root(path, "jobs")
    store = Store(path, 2**30, 30)
    assert "the job database was damaged" in str(store.repaired)
    assert store.records.connection("3") == ("http://studio", "t0ken")
    store.close()


def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    path.write_bytes(b"no database at all, but as long as one" * 999)
    store = Store(path, 2**30, 30)
    assert "0 jobs" in str(store.repaired)
    assert add_job(store)
    store.close()
    (aside,) = tmp_path.glob("jobs.sqlite3.damaged-*")
    assert aside.read_bytes().startswith(b"no database at all")


def test_a_row_that_cannot_be_read_costs_no_other(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    scheduler = harness.open()
    first, second, third = (wait_for_end(scheduler, scheduler.submit([key], "1", box())) for key in "abc")
    until(lambda: len(harness.done) == 3)
    harness.close()
    path = harness.folder / "jobs.sqlite3"
    change(path, "UPDATE jobs SET recipe = json_set(recipe, '$.later', 1), state = 'queued' WHERE number = 1")
    change(path, "UPDATE jobs SET recipe = '{', names = CAST(X'ff' AS TEXT) WHERE number = 2")
    scheduler = harness.open()
    assert [job.number for job in scheduler.jobs(9)] == [third.number]
    assert [scheduler.job(number) is None for number in (1, 2, 3)] == [True, True, False]
    assert caplog.text.count("is set aside") == 2
    harness.store.prune()
    assert mask_blocks(path) == []
    again = wait_for_end(scheduler, scheduler.submit(["a"], "1", box()))
    assert again.number > third.number
    assert {first.number, second.number} == {1, 2}


def close_after_a_job(harness: Harness) -> None:
    """Track one job to its end, and stop."""
    scheduler = harness.open()
    wait_for_end(scheduler, scheduler.submit(["a"], "1", box()))
    until(lambda: harness.done)
    harness.close()


@pytest.mark.parametrize("found", ["when asked again", "when read", "when continued"])
def test_damaged_results_are_computed_once_more(harness: Harness, found: str) -> None:
    close_after_a_job(harness)
    path = harness.folder / "jobs.sqlite3"
    with closing(sqlite3.connect(path)) as file:
        blocks = file.execute("SELECT number, start FROM blocks ORDER BY number").fetchall()
    number, start = blocks[1]
    change(path, "UPDATE blocks SET rows = X'00' WHERE number = ?", number)
    if found == "when continued":
        change(path, "UPDATE jobs SET state = 'queued'")
    engine = StubEngine(step=1.0)
    scheduler = harness.open(engine)
    if found == "when read":
        job = scheduler.submit(["a"], "1", box(), batch=True)  # nobody waits for its results
        assert job.state == "done"
        assert job.resolved.propagation.done == start
        assert (job.state, "damaged" in str(job.error)) == ("failed", True)
    again = wait_for_end(scheduler, scheduler.submit(["a"], "1", box()))
    assert left_sides(again) == [64 + frame for frame in range(100)]
    harness.open()
    assert left_sides(harness.scheduler.job(again.number)) == [64 + frame for frame in range(100)]


@pytest.mark.parametrize("times", ["''", "zeroblob(64)", "7"])
def test_a_damaged_record_of_a_video_costs_no_frame(harness: Harness, times: str) -> None:
    close_after_a_job(harness)
    change(harness.folder / "jobs.sqlite3", f"UPDATE videos SET times = {times}")
    engine = StubEngine()
    scheduler = harness.open(engine)
    assert scheduler.job(1).resolved is None
    again = wait_for_end(scheduler, scheduler.submit(["a"], "1", box()))
    assert (again.number, again.state, engine.frames) == (1, "done", [])
    assert left_sides(again) == [64 + frame for frame in range(100)]


def test_damage_that_a_start_does_not_see_is_said_and_repaired_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    numbers = filled(path)
    spoil_root(path, "blocks")
    store = Store(path, 2**30, 30)
    assert store.repaired is None
    with pytest.raises(StoreDamaged, match="restart the backend, which repairs it"):
        list(store.blocks(numbers[0]))
    store.close()
    store = Store(path, 2**30, 30)
    assert str(store.repaired).endswith("0 parts of their results were read from it")
    assert [row.number for row in store.latest(999)] == numbers[::-1]
    store.close()
