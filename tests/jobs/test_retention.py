"""What is deleted, in which order, and by which clock."""

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.jobs import store_keeper
from backend.jobs.schedule import Progress
from backend.jobs.store import Store
from backend.jobs.store_clock import StoreClock
from backend.tracks.track import ResultBlock
from tests.fakes import Gate, StubEngine
from tests.jobs.test_scheduler import Harness, box, harness, until, wait_for_end
from tests.jobs.test_store import add_job, end_job

__all__ = ["harness"]
DAY = 86400.0
ROWS = np.random.default_rng(1).random((1, 2000, 5), np.float32)
"""40 kB."""


def done_job(store: Store, digest: str, state="done", **changes) -> int:
    number = add_job(store, digest, **changes)
    store.save(number, [], [(0, ResultBlock(range(2000), False, ("a",), ROWS))], Progress(0, 2000), (1, 1, 1))
    end_job(store, number, state)
    return number


def numbers(store: Store) -> list[int]:
    return sorted(row.number for row in store.latest(999))


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(0, 1e6)), max_size=20))
def test_the_clock_never_goes_back_and_jumps_at_most_a_day(starts: list[tuple[float, float]]) -> None:
    last, wall = None, 1.7e9
    for jump, seconds in starts:
        wall += jump
        uptime = 0.0
        clock = StoreClock(last, lambda now=wall: now, lambda: uptime)  # noqa: B023
        begin = clock.now()
        assert begin == wall if last is None else last <= begin <= last + DAY
        uptime = seconds
        last = clock.now()
        assert last == pytest.approx(begin + seconds)


def test_a_clock_that_is_set_wrongly_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, now = tmp_path / "jobs.sqlite3", time.time()
    store = Store(path, 2**30, 30)
    job = done_job(store, "1")
    store.records.put_click("7", "p", False)
    store.close()
    for wrong in (now + 40 * DAY, now - 4000 * DAY, now + 40 * DAY):
        monkeypatch.setattr("backend.jobs.store_clock.time.time", lambda wrong=wrong: wrong)
        store = Store(path, 2**30, 30)
        assert numbers(store) == [job]
        assert store.records.is_click_positive("7", "p") is False
        store.close()


def test_old_jobs_go_but_no_prediction_that_label_studio_has_not_got(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    store = Store(path, 2**30, 30)
    done_job(store, "asked")
    done_job(store, "failed", "failed", post="{}")
    unposted, posted = (done_job(store, digest, post="{}") for digest in ("unposted", "posted"))
    waiting = add_job(store, "5")
    store.set_posted(posted)
    store.close()
    store = Store(path, 2**30, 0.0)
    assert numbers(store) == [unposted, waiting]
    store.close()


def test_states_go_first_then_what_was_fetched_and_last_what_nobody_has(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    store = Store(path, 2**30, 30)
    unfetched = [done_job(store, f"u{number}") for number in range(6)]
    stopped = [done_job(store, f"s{number}", "cancelled") for number in range(6)]
    fetched = [done_job(store, f"f{number}") for number in range(6)]
    waiting = [add_job(store, f"w{number}") for number in range(2)]
    store.set_fetched(fetched)
    for number in (*stopped, *waiting):
        store.states.save(number, Progress(0, 32), bytes(100_000))

    def left(max_bytes: int) -> list[int]:
        store._retention._max_bytes = max_bytes
        store.prune()
        assert {*waiting} <= {*store.states.jobs()}, "unfinished jobs need theirs"
        return numbers(store)

    everything = [*unfetched, *stopped, *fetched, *waiting]
    size = store._database.used_bytes()
    assert left(size + 4 * 100_000) == everything
    assert len(store.states.jobs()) == 4
    assert left(size + 2 * 100_000) == everything
    assert sorted(store.states.jobs()) == waiting
    some = left(size + 2 * 100_000 - 10_000)
    assert {*unfetched, *stopped} < {*some} < {*everything}
    few = left(size + 2 * 100_000 - 9 * 40_000)
    assert {*unfetched} < {*few}
    assert not {*few} & {*fetched}
    assert left(200_000) == waiting
    assert path.with_name("jobs.sqlite3-wal").stat().st_size == 0
    store.close()


def test_room_is_made_while_jobs_run(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_keeper, "_EVERY", 0.05)
    gate = Gate(10**6)
    scheduler = harness.open(StubEngine(gate=gate))
    old = wait_for_end(scheduler, scheduler.submit(["old"], "1", box()))
    until(lambda: harness.store.job(old.number).state == "done")
    gate.until = 30
    running = scheduler.submit(["running"], "1", box(20))
    until(lambda: running.progress()[0] == 30)
    harness.store._retention._max_bytes = 1
    until(lambda: numbers(harness.store) == [running.number])
    harness.store._retention._max_bytes = 2**30
    gate.open()
    wait_for_end(scheduler, running)


def test_a_result_that_was_sent_counts_as_fetched(make_service, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.labelstudio.bodies import body, drawn, keyframe

    monkeypatch.setattr(store_keeper, "_EVERY", 0.05)
    gate = Gate(30)
    service = make_service(StubEngine(gate=gate), response_timeout=0.2)
    request = body(drawn(keyframe(1)))

    def ask() -> None:
        service.predict(request["tasks"], request["params"]["context"], request["label_config"], "3")

    ask()
    gate.open()
    until(lambda: service.store.job(1).state == "done")
    assert not service.store.job(1).is_fetched, "nobody has more than a part of it"
    ask()
    until(lambda: service.store.job(1).is_fetched)
