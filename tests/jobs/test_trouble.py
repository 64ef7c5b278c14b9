"""Trouble of the disk: jobs pause until it is over, and everybody is told; nothing fails, hangs or is lost."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from backend.errors import StoreError
from backend.jobs import database, executor, video_fetcher
from backend.jobs.store import Store
from tests.fakes import FakeVideo, Gate, StubEngine, fake_path
from tests.jobs.test_scheduler import Harness, box, harness, left_sides, own_path, until, wait_for_end
from tests.labelstudio.bodies import body, drawn, keyframe

__all__ = ["harness"]
Trouble = Callable[[Store], AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.05)
    monkeypatch.setattr(executor, "_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(video_fetcher, "_RETRY_SECONDS", 0.05)


@contextmanager
def locked(store: Store) -> Iterator[None]:
    """Another program holds the database."""
    with closing(sqlite3.connect(store._database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def full(store: Store) -> Iterator[None]:
    """The database cannot grow, which is what SQLite says of a full disk."""
    writer = store._database._writer
    writer.execute("PRAGMA max_page_count = 1").close()
    yield
    writer.execute("PRAGMA max_page_count = 1000000").close()


@pytest.mark.parametrize(("trouble", "mend"), [(locked, "another program"), (full, "free some space")])
def test_a_running_job_pauses_and_loses_nothing(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, trouble: Trouble, mend: str
) -> None:
    gate = Gate(30)
    scheduler = harness.open(StubEngine(gate=gate))
    monkeypatch.setattr("backend.jobs.worker.Video", lambda *_: FakeVideo(2000))
    job = scheduler.submit(["a"], "1", box())
    until(lambda: job.progress()[0] == 30)
    with trouble(harness.store):
        gate.open()
        until(lambda: scheduler.trouble)
        assert mend in str(scheduler.trouble)
        assert scheduler.counts() == {"waiting": 0, "running": 1}
        if trouble is locked:  # a row more may still fit in the file that cannot grow
            with pytest.raises(StoreError, match=mend):
                scheduler.submit(["b"], "1", box(20))
        assert scheduler.submit(["a"], "1", box()) is job, "who asks for the same still joins it"
        assert not job.has_ended
    wait_for_end(scheduler, job)
    assert scheduler.trouble is None
    assert harness.engine.frames == list(range(2000)), "the worker kept its session"
    assert harness.engine.sessions == 1
    harness.open()
    assert left_sides(harness.scheduler.job(job.number)) == [64 + frame for frame in range(100)]


def test_the_end_of_a_job_is_saved_later(harness: Harness) -> None:
    gate = Gate(30)
    harness.fetch = own_path
    scheduler = harness.open(StubEngine(gate=gate))
    running, waiting = (scheduler.submit([task], "1", box(task=task)) for task in "78")
    until(lambda: running.progress()[0] == 30)
    with locked(harness.store):
        assert scheduler.cancel(waiting.number)
        assert (waiting.state, waiting.has_ended) == ("cancelled", True)
        assert [job.state for job in scheduler.jobs(9)] == ["cancelled", "running"], "the list is right at once"
        assert harness.store.job(waiting.number).state == "queued"
    gate.open()
    wait_for_end(scheduler, running)
    until(lambda: harness.store.job(waiting.number).state == "cancelled")
    until(lambda: harness.done == [running.number])


def test_a_server_that_stops_in_trouble_continues_its_jobs(harness: Harness) -> None:
    gate = Gate(40)
    scheduler = harness.open(StubEngine(gate=gate))
    job = scheduler.submit(["a"], "1", box())
    until(lambda: job.progress()[0] == 40)
    with locked(harness.store):
        gate.open()
        until(lambda: scheduler.trouble)
        harness.close()
    assert not job.has_ended
    scheduler = harness.open(StubEngine())
    assert left_sides(wait_for_end(scheduler, scheduler.submit(["a"], "1", box()))) == [64 + n for n in range(100)]


def test_nobody_waits_behind_a_request_that_waits_for_the_disk(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = harness.open()
    job = wait_for_end(scheduler, scheduler.submit(["a"], "1", box()))
    until(lambda: harness.done)
    entered, leave = threading.Event(), threading.Event()
    real = harness.store.add

    def slow(*asked, **more):
        entered.set()
        assert leave.wait(20)
        return real(*asked, **more)

    monkeypatch.setattr(harness.store, "add", slow)
    asking = threading.Thread(target=scheduler.submit, args=(["b"], "1", box(20)))
    asking.start()
    assert entered.wait(20)
    assert scheduler.counts() == {"waiting": 0, "running": 0}
    assert scheduler.task_jobs("3", "7") == [(job, 0)]
    assert [one.number for one in scheduler.jobs(9)] == [job.number]
    assert asking.is_alive()
    leave.set()
    asking.join()


def test_no_room_for_a_video_is_no_fault_of_its_job(harness: Harness) -> None:
    is_full = threading.Event()
    is_full.set()

    def fetch(*_: object) -> Path:
        if is_full.is_set():
            raise StoreError("the disk of data_dir is full: free some space")
        return fake_path()

    harness.fetch = fetch
    scheduler = harness.open()
    job = scheduler.submit(["a"], "1", box())
    until(lambda: scheduler.trouble)
    assert not job.has_ended
    is_full.clear()
    wait_for_end(scheduler, job)
    assert scheduler.trouble is None


def test_in_trouble_only_one_at_a_time_waits_for_the_disk(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.open()
    records = harness.store.records
    monkeypatch.setattr(database, "_PATIENCE", 1e9)
    with locked(harness.store), pytest.raises(StoreError):
        records.put_click("7", "p", True)
    with pytest.raises(StoreError, match="another program"):
        records.put_click("7", "p", True)  # the disk is not asked
    assert records.is_click_positive("7", "p") is None, "reading goes on"
    monkeypatch.setattr(database, "_PATIENCE", 0.0)
    records.put_click("7", "p", True)
    assert harness.scheduler.trouble is None


def test_who_asks_for_what_is_paused_gets_what_is_there_and_the_reason(make_service) -> None:
    gate = Gate(30)
    service = make_service(StubEngine(gate=gate), response_timeout=0.3)
    request = body(drawn(keyframe(1)))

    def ask() -> str:
        (answer,) = service.predict(request["tasks"], request["params"]["context"], request["label_config"], "3")
        return str(answer["result"][0]["meta"]["text"])

    assert "30 of 100 frames" in ask()
    with locked(service.store):
        gate.open()
        until(lambda: service.scheduler.trouble)
        assert "stub, paused: another program holds the job database" in ask()
        assert service.health()["storage"].startswith("another program")
        assert service.task_status.read(("3", "7")).text.startswith("Paused: another program")
    until(lambda: service.store.job(1).state == "done")
    assert "paused" not in ask()
    assert service.health()["storage"] == "ok"
