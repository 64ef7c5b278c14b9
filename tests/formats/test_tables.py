import configparser
import csv
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given

from backend.errors import SettingsError
from backend.formats.readers import read_mot
from backend.formats.tables import write_csv, write_mot, write_yolo
from tests.formats.judged import as_tracker, hota, in_sequence_folder
from tests.formats.made import FRAMES, SIZE, clip, several, traced
from tests.labelstudio.bodies import drawn, keyframe

CAR = drawn(keyframe(1, 10), keyframe(50, 60, enabled=False), keyframe(70, 20), id="a", meta={"track_id": 3})
OTHER = drawn(keyframe(20, 5, 60), keyframe(90, 70, 60, enabled=False), id="b", meta={"track_id": 1})


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


@given(several)
def test_yolo_has_a_file_for_every_frame_and_the_boxes_on_it(regions: list[dict]) -> None:
    written = clip(*regions, size=None)
    labels = sorted({trace.label for trace in written.tracks})
    with TemporaryDirectory() as folder:
        write_yolo([written], labels, Path(folder), False)
        assert (Path(folder) / "classes.txt").read_text().splitlines() == labels
        files = sorted((Path(folder) / "labels" / written.name).iterdir())
        found = {file.stem: [line.split() for line in file.read_text().splitlines()] for file in files}
    assert list(found) == [f"{frame:06d}" for frame in range(FRAMES)]
    for frame in range(FRAMES):
        lines = {int(line[5]): line for line in found[f"{frame:06d}"]}
        boxes = {
            trace.id: shown[frame]
            for trace, shown in zip(written.tracks, traced(written), strict=True)
            if frame in shown
        }
        assert set(lines) == set(boxes)
        for trace in (trace for trace in written.tracks if trace.id in boxes):
            assert labels[int(lines[trace.id][0])] == trace.label
            x, y, w, h = map(float, lines[trace.id][1:5])
            expected = np.clip(boxes[trace.id], 0, 1)
            assert np.allclose([x - w / 2, y - h / 2, x + w / 2, y + h / 2], expected, atol=2e-6)


def test_yolo_cuts_off_what_lies_outside_the_picture(tmp_path: Path) -> None:
    write_yolo([clip(drawn(keyframe(1, -10, 0, 20, 10), keyframe(2, -30, 0, 20, 10)))], ["Car"], tmp_path, False)
    files = sorted((tmp_path / "labels").rglob("*.txt"))
    assert files[0].read_text() == "0 0.050000 0.050000 0.100000 0.100000 1\n"
    assert files[1].read_text() == ""


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@given(several)
def test_csv_holds_every_frame_where_it_is_dense_and_else_enough_to_know_them(regions: list[dict]) -> None:
    written = clip(*regions)
    with TemporaryDirectory() as folder:
        for dense in (False, True):
            write_csv([written], [], Path(folder) / "a.csv", dense)
            rows = read(Path(folder) / "a.csv")
            for trace in written.tracks:
                own = [row for row in rows if int(row["track"]) == trace.id]
                assert {row["label"] for row in own} == {trace.label}
                assert [row["frame"] for row in own if row["keyframe"] == "1"] == [*map(str, trace.frames[trace.keys])]
                places, boxes = filled(own)
                assert places == trace.frames.tolist()
                assert np.allclose(boxes, trace.boxes, atol=0.011)


def filled(rows: list[dict[str, str]]) -> tuple[list[int], list[list[float]]]:
    """Frames and boxes as `enabled` tells them: linear up to the next row, hidden after a 0, to the end after a 1."""
    places = [int(row["frame"]) for row in rows]
    boxes = np.array([[float(row[name]) for name in ("x0", "y0", "x1", "y1")] for row in rows])
    frames = []
    for row, place, stop in zip(rows, places, [*places[1:], FRAMES], strict=True):
        frames += range(place, stop) if row["enabled"] == "1" else [place]
    return frames, np.column_stack([np.interp(frames, places, side) for side in boxes.T]).tolist()


def test_csv_is_of_this_form(tmp_path: Path) -> None:
    scored = {**OTHER, "score": 0.875, "value": {**OTHER["value"], "labels": ['a, "b" 5%']}}
    write_csv([clip(CAR, scored, size=(640, 360))], [], tmp_path / "a.csv", False)
    assert (tmp_path / "a.csv").read_text().splitlines() == [
        "task,frame,track,label,x0,y0,x1,y1,score,human,keyframe,enabled",
        '7,19,1,"a, ""b"" 5%",32.00,216.00,108.80,273.60,0.8750,1,1,1',
        '7,89,1,"a, ""b"" 5%",448.00,216.00,524.80,273.60,0.8750,1,1,0',
        "7,0,3,Car,64.00,72.00,140.80,129.60,,1,1,1",
        "7,49,3,Car,384.00,72.00,460.80,129.60,,1,1,0",
        "7,69,3,Car,128.00,72.00,204.80,129.60,,1,1,1",
    ]
