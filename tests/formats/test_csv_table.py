import csv
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given

from backend.formats.csv_table import write_csv
from tests.formats.made import CAR, FRAMES, OTHER, clip, several


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
    frames: list[int] = []
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
