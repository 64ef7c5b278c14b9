from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given

from backend.formats.yolo import write_yolo
from tests.formats.made import FRAMES, clip, several, traced
from tests.labelstudio.bodies import drawn, keyframe


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
