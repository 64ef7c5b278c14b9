"""Trouble of a server's disk, clock and database, and states of a gigabyte."""

import json
import os
import signal
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.jobs_parts.faults import Faults, set_faults
from benchmarks.jobs_parts.kills import saved_results
from benchmarks.jobs_parts.load import WITHIN
from benchmarks.jobs_parts.logged_engine import logged
from benchmarks.jobs_parts.requests import SERIES, Answered, ask, is_accepted, milliseconds, read_health
from benchmarks.jobs_parts.servers import Server, place_clip, until

_DAY = 86400.0
_HELD, _FULL = "another program", "free some space"

_DISK_FAULTS: tuple[tuple[Faults, str], ...] = ({"full": True}, _FULL), ({"slow": 0.5}, "")
"""And what /health says."""


class _Annotators:
    """They ask for one job after the other.

    Attributes:
        accepted: jobs that they were promised.
        told: what /health said of the storage.
        answers: of /health, while something was wrong.
    """

    def __init__(self, server: Server) -> None:
        self._server, self._next = server, 0
        self.accepted: list[int] = []
        self.told: list[str] = []
        self.answers: list[Answered] = []

    def ask(self, count: int) -> None:
        """Ask for further jobs."""
        for _ in range(count):
            if is_accepted(ask(self._server.port, SERIES[self._next])):
                self.accepted.append(self._next)
            self._next += 1

    def is_accepted(self, number: int) -> bool:
        """Ask for a job once more."""
        return is_accepted(ask(self._server.port, SERIES[number]))

    def watch(self, seconds: float, sentence: str = "") -> None:
        """Go on asking for so long, and until /health says what is wrong."""
        begin = time.monotonic()
        while (age := time.monotonic() - begin) < seconds or (sentence not in " ".join(self.told) and age < 60):
            if len(self.answers) % 20 == 0:
                self.ask(1)
            self.answers.append(ask(self._server.port, ("/health", None)))
            self.told.append(json.loads(self.answers[-1][3])["storage"])
            time.sleep(0.01)


def trouble(folder: Path, quick: bool) -> dict[str, Any]:
    count, seconds = (2, 0.5) if quick else (12, 20.0)
    place_clip(folder, 1_000 if quick else 120_000)
    server = Server.stub(folder, seconds=0.002 if quick else 0.005, faults=True)
    people, database = _Annotators(server), folder / "jobs.sqlite3"
    people.ask(count)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        people.watch(seconds, _HELD)
        other.execute("ROLLBACK")
    for faults, sentence in _DISK_FAULTS:
        people.ask(count)
        set_faults(folder, faults)
        people.watch(seconds, sentence)
        set_faults(folder, {})
        server.idle()
    people.ask(count)
    set_faults(folder, {"clock": 40 * _DAY})
    server.restart()
    people.watch(seconds)
    server.idle()
    set_faults(folder, {"clock": -40 * _DAY})
    server.restart(lambda: _spoil(database))
    repaired = read_health(server.port)["storage"]
    again = [number for number in people.accepted if until(partial(people.is_accepted, number), 60)]
    server.idle()
    server.close()
    print(f"told: {', '.join(sorted({*people.told}))}; {repaired}")
    results = saved_results(folder)
    lost = [number for number in people.accepted if number not in results or number not in again]
    is_told = all(any(sentence in told for told in people.told) for sentence in (_HELD, _FULL))
    return {
        "trouble_lost": len(lost),
        "trouble_told": is_told and "damaged" in repaired,
        "trouble_health_ms": milliseconds(one[1] for one in people.answers),
    }


def _spoil(database: Path) -> None:
    """Overwrite a page of a database that nobody has open."""
    with closing(sqlite3.connect(database)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    with database.open("r+b") as raw:
        raw.seek(database.stat().st_size // 2 // 4096 * 4096)
        raw.write(bytes(4096))
    database.with_suffix(".damaged").touch()


def big_state(folder: Path, quick: bool) -> dict[str, Any]:
    size, log = 10**7 if quick else 10**9, folder / "log"
    place_clip(folder, SERIES.frames)
    server = Server.stub(folder, seconds=0.015 if quick else 0.05, log=str(log), within=WITHIN, state=size)
    ask(server.port, SERIES[0])
    states, killed, late = folder / "states", 0, list[float]()
    while json.loads(ask(server.port, ("/jobs", None))[3])["jobs"][0]["state"] != "done":
        _, seconds, status, _ = ask(server.port, SERIES[0])
        assert status == 200
        late.append(max(seconds - WITHIN, 0.0))
        kept = any(".part" not in path.name for path in states.glob("1.*"))
        if kept and not killed and (worker := server.worker()):
            killed = len(logged(log))
            os.kill(worker, signal.SIGKILL)
    server.close()
    frames = logged(log)
    print(f"killed after {killed} frames; {len(frames)} of {SERIES.frames} frames were computed; {len(late)} requests")
    is_whole = {*frames} == {*map(str, range(SERIES.frames))} and saved_results(folder)
    return {
        "big_state_ok": bool(killed and is_whole and frames.count("0") == 1),
        "big_state_predict_ms": milliseconds(late),
    }
