import configparser
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given

from backend.errors import SettingsError
from backend.formats.mot import write_mot
from backend.formats.mot_reader import read_mot
from tests.formats.judged import as_tracker, hota, in_sequence_folder
from tests.formats.made import CAR, FRAMES, OTHER, SIZE, clip, several


@given(several)
def test_mot_comes_back_as_it_was(regions: list[dict]) -> None:
    written = clip(*regions)
    labels = sorted({trace.label for trace in written.tracks})
    with TemporaryDirectory() as folder:
        write_mot([written], labels, Path(folder), False)
        (back,) = read_mot(Path(folder))
    assert (back.name, back.length, back.rate, back.size) == (written.name, FRAMES, 25, SIZE)
    assert [(track.id, track.label) for track in back.tracks] == [(trace.id, trace.label) for trace in written.tracks]
    for track, trace in zip(back.tracks, written.tracks, strict=True):
        assert track.frames.tolist() == trace.frames.tolist()
        assert np.allclose(track.boxes, trace.boxes, atol=0.011)


def test_mot_is_of_motchallenges_form(tmp_path: Path) -> None:
    write_mot([clip(CAR)], ["Person", "Car"], tmp_path, False)
    lines = (tmp_path / "7-0a1b2c3d-clip" / "gt" / "gt.txt").read_text().splitlines()
    assert lines[0] == "1,3,64.00,72.00,76.80,57.60,1,2,1"
    assert len(lines) == 50 + 31
    ini = configparser.ConfigParser()
    ini.read(tmp_path / "7-0a1b2c3d-clip" / "seqinfo.ini")
    assert dict(ini["Sequence"]) == {
        "name": "7-0a1b2c3d-clip",
        "imdir": "img1",
        "framerate": "25",
        "seqlength": "100",
        "imwidth": "640",
        "imheight": "360",
        "imext": ".jpg",
    }
    assert (tmp_path / "labels.txt").read_text() == "Person\nCar\n"
    with pytest.raises(SettingsError, match="--size"):
        write_mot([clip(CAR, size=None)], ["Car"], tmp_path, False)


def test_trackeval_finds_mot_equal_to_itself(tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    write_mot([clip(CAR, OTHER), clip(OTHER, id=8), clip(id=9)], ["Car"], truth, False)
    as_tracker(truth, tmp_path / "trackers")
    assert hota("mot", truth, tmp_path / "trackers", **in_sequence_folder(truth)) == {"pedestrian": pytest.approx(1)}


def test_trackeval_sees_what_is_missing(tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    write_mot([clip(CAR, OTHER)], ["Car"], truth, False)
    other = tmp_path / "other"
    write_mot([clip(CAR)], ["Car"], other, False)
    as_tracker(other, tmp_path / "trackers")
    assert hota("mot", truth, tmp_path / "trackers", **in_sequence_folder(truth))["pedestrian"] < 0.9
