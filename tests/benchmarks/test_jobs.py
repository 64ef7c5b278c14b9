"""The jobs benchmark's own judgement, and what it finds; nothing is timed here."""

from pathlib import Path

from benchmarks import jobs


def test_what_is_computed_again_counts_for_the_kill_that_lost_it() -> None:
    assert jobs.recomputed([0, 1, 2, 3, 4], [2]) == [0, 0]
    assert jobs.recomputed([0, 1, 2, 1, 2, 3], [3]) == [2, 0]
    # The second kill strikes another job: what the first one lost is computed again only after it.
    assert jobs.recomputed([0, 1, 50, 51, 1, 51], [2, 4]) == [1, 1, 0]
    assert jobs.recomputed([0, 1, 1, 2], [4]) == [0, 1], "nobody was killed in between"


def test_tracks_take_little_room(tmp_path: Path) -> None:
    assert jobs.store(tmp_path, quick=True, frames=2000)["bytes_per_object_frame"] <= 64
