"""The jobs benchmark's own judgement, and what it finds; nothing is timed here."""

from pathlib import Path

import pytest

from benchmarks import jobs


def test_what_is_computed_again_counts_for_the_kill_that_lost_it() -> None:
    assert jobs.recomputed([0, 1, 2, 3, 4], [2]) == [0, 0]
    assert jobs.recomputed([0, 1, 2, 1, 2, 3], [3]) == [2, 0]
    # The second kill strikes another job: what the first one lost is computed again only after it.
    assert jobs.recomputed([0, 1, 50, 51, 1, 51], [2, 4]) == [1, 1, 0]
    assert jobs.recomputed([0, 1, 1, 2], [4]) == [0, 1], "nobody was killed in between"


@pytest.mark.slow
def test_no_kill_loses_a_job_or_changes_what_it_comes_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(jobs.ROOT)
    figures = jobs.kills(tmp_path, quick=True)
    assert (figures["kills"], figures["lost_jobs"], figures["bytes_equal"]) == (20, 0, True)
    assert figures["max_recomputed"] <= 64


def test_tracks_take_little_room(tmp_path: Path) -> None:
    assert jobs.store(tmp_path, quick=True, frames=2000)["bytes_per_object_frame"] <= 64


@pytest.mark.slow
def test_no_trouble_loses_a_job_or_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(jobs.ROOT)
    assert jobs.ooms(tmp_path / "ooms", quick=True) == {"ooms": 25, "survived": True}
    figures = jobs.trouble(tmp_path / "trouble", quick=True)
    assert (figures["trouble_lost"], figures["trouble_told"]) == (0, True)
    assert jobs.big_state(tmp_path / "state", quick=True)["big_state_ok"]
