"""The project benchmark's own judgement, and that what it measures is done; nothing is timed here."""

from pathlib import Path

import pytest

from backend.formats.registry import NAMES
from benchmarks import project
from tests.clips import write_clip


def test_what_is_lost_and_doubled_is_counted() -> None:
    assert project.counted([1, 2, 3], 3) == {"lost": 0, "doubled": 0}
    assert project.counted([3, 1, 3, 3], 4) == {"lost": 2, "doubled": 2}


def test_every_format_is_exported(tmp_path: Path) -> None:
    found = project.exports(tmp_path / "exports", tracks=2, frames=100)
    assert {name.removesuffix(" --dense") for name in found} == {*NAMES}
    (boxes,) = (tmp_path / "exports").glob("motFalse/*/gt/gt.txt")
    assert len(boxes.read_text().splitlines()) == 2 * 100
    (masks,) = (tmp_path / "exports").glob("mots*/*/gt/gt.txt")
    assert len(masks.read_text().splitlines()) == 2 * 2, "one on a fiftieth of the frames"
    (pictures,) = (tmp_path / "exports").glob("davis*/Annotations/*")
    assert len([*pictures.iterdir()]) == 100


def test_keyframes_have_gaps() -> None:
    sequence = project.region(1, 10_000)["value"]["sequence"]
    assert len(sequence) == 500
    assert sum(not keyframe["enabled"] for keyframe in sequence) == 10


@pytest.mark.slow
def test_a_command_that_is_killed_twice_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.ROOT)
    clip = write_clip(tmp_path / "clip.mp4", frames=20, size=(64, 48)).path
    found = project.broken_off(clip, tmp_path / "broken", tasks=12, interruptions=2)
    assert found == {"tasks": 12, "interruptions": 2, "lost": 0, "doubled": 0}
