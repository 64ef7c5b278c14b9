import sys

import numpy as np
import pytest

from backend.errors import SettingsError
from backend.formats.imported_tracks import Detection, ImportedTrack, ImportedVideo
from backend.formats.link_detections import link_detections


def video(detections: list[Detection], tracks: tuple[ImportedTrack, ...] = ()) -> ImportedVideo:
    return ImportedVideo("walk", 100, None, (640, 360), tracks, tuple(detections))


def moving(label: str, x: float, speed: float, frames: range, y: float = 10) -> list[Detection]:
    return [Detection(frame, label, (x + speed * frame, y, x + speed * frame + 40, y + 30), 0.5) for frame in frames]


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 3])
def test_detections_become_tracks(step: int) -> None:
    """Two of one class that pass each other at a distance, one of another class in the same place, one after a gap."""
    pytest.importorskip("norfair", reason="the extra link is not installed")
    frames = range(0, 60, step)
    right, left = moving("Car", 0, 4, frames), moving("Car", 240, -4, frames, y=60)
    person = moving("Person", 0, 4, frames)
    gap = [item for item in moving("Dog", 300, 0, frames, y=200) if not 18 <= item.frame < 24]
    known = ImportedTrack(7, "Car", np.array([0]), np.array([[0, 0, 9, 9.0]]))
    every = sorted([*right, *left, *person, *gap], key=lambda item: item.frame)
    linked = link_detections(video(every, (known,)))
    assert linked.detections == ()
    assert linked.tracks[0] is known
    assert sorted(track.id for track in linked.tracks) == [7, 8, 9, 10, 11]
    expected = [[item.box for item in group] for group in (right, left, person, gap)]
    found = [[tuple(box) for box in track.boxes.tolist()] for track in linked.tracks[1:]]
    assert sorted(found) == sorted(expected)
    assert {track.score for track in linked.tracks[1:]} == {0.5}


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "norfair", None)
    with pytest.raises(SettingsError, match=r"pip install 'sam3-backend\[link\]'"):
        link_detections(video(moving("Car", 0, 1, range(3))))
    assert link_detections(video([])).tracks == ()
