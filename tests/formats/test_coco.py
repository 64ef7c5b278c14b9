import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from pycocotools import mask as pycoco
from pycocotools.coco import COCO

from backend.formats.coco import write_coco_vid, write_youtube_vis
from backend.formats.coco_reader import read_coco_vid
from backend.tracks.masks import Rle
from tests.formats.judged import hota
from tests.formats.made import CAR, FRAMES, OTHER, SIZE, clip, several

# pycocotools 2.0.11 decodes with what numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
RING = np.zeros((360, 640), bool)
RING[100:200, 50:90] = True
RING[120:180, 60:80] = False
MASKS = {3: {0: Rle.from_mask(RING), 30: Rle.from_mask(RING[::-1])}, 1: {25: Rle.from_mask(~RING)}}


@given(several)
def test_coco_vid_comes_back_as_it_was(regions: list[dict]) -> None:
    written = [clip(*regions), clip(*regions[:1], id=8)]
    labels = sorted({trace.label for one in written for trace in one.tracks})
    with TemporaryDirectory() as folder:
        write_coco_vid(written, labels, Path(folder) / "a.json", False)
        back = read_coco_vid(Path(folder) / "a.json")
    assert [(one.name, one.length, one.rate, one.size) for one in back] == [
        (one.name, FRAMES, 25, SIZE) for one in written
    ]
    for video, one in zip(back, written, strict=True):
        assert [(track.id, track.label) for track in video.tracks] == [(trace.id, trace.label) for trace in one.tracks]
        for track, trace in zip(video.tracks, one.tracks, strict=True):
            assert track.frames.tolist() == trace.frames.tolist()
            assert np.allclose(track.boxes, trace.boxes, atol=0.011)


def test_the_coco_library_reads_it_with_its_masks(tmp_path: Path) -> None:
    write_coco_vid([clip(id=8), clip(CAR, OTHER, masks=MASKS)], ["Car"], tmp_path / "a.json", False)
    read = COCO(tmp_path / "a.json")
    assert len(read.imgs) == 1 + FRAMES  # nobody told how long the empty one is
    assert len(read.anns) == 81 + 71
    (image,) = (one for one in read.imgs.values() if one["frame_id"] == 30)
    assert image["file_name"] == "7-0a1b2c3d-clip/000030.jpg"
    own = [one for one in read.imgToAnns[image["id"]] if one["instance_id"] == 3]
    assert (read.annToMask(own[0]) == RING[::-1]).all()
    assert own[0]["area"] == RING.sum()
    without = [one for one in read.anns.values() if "segmentation" not in one]
    assert len(without) == 81 + 71 - 3
    assert without[0]["bbox"][2:] == [76.8, 57.6]
    assert len({one["track_id"] for one in read.anns.values()}) == 2 == len(read.dataset["tracks"])


def test_trackeval_finds_coco_vid_equal_to_itself(tmp_path: Path) -> None:
    data = tmp_path / "trackers" / "ours" / "data"
    for folder in (data, tmp_path / "truth"):
        folder.mkdir(parents=True)
    person = {**OTHER, "value": {**OTHER["value"], "labels": ["Person"]}}
    written = [clip(CAR, person), clip(OTHER, id=8)]
    write_coco_vid(written, ["Car", "Person", "Ball"], tmp_path / "truth" / "a.json", False)
    found = json.loads((tmp_path / "truth" / "a.json").read_text())["annotations"]
    (data / "a.json").write_text(json.dumps([one | {"score": 1.0} for one in found]))
    scores = hota("coco-vid", tmp_path / "truth", tmp_path / "trackers")
    assert (scores["Car"], scores["Person"]) == (pytest.approx(1), pytest.approx(1))


def test_an_export_of_nothing_is_a_file_too(tmp_path: Path) -> None:
    for write in (write_coco_vid, write_youtube_vis):
        write([clip()], [], tmp_path / "a.json", False)
        assert json.loads((tmp_path / "a.json").read_text())["annotations"] == []


@given(several)
def test_youtube_vis_has_a_place_for_every_frame(regions: list[dict]) -> None:
    written = clip(*regions)
    labels = sorted({trace.label for trace in written.tracks})
    with TemporaryDirectory() as folder:
        write_youtube_vis([written], labels, Path(folder) / "a.json", False)
        found = json.loads((Path(folder) / "a.json").read_text())
    assert len(found["videos"][0]["file_names"]) == FRAMES
    for one, trace in zip(found["annotations"], written.tracks, strict=True):
        assert (one["track_id"], labels[one["category_id"] - 1]) == (trace.id, trace.label)
        assert [len(one[key]) for key in ("bboxes", "areas", "segmentations")] == [FRAMES] * 3
        assert [frame for frame, box in enumerate(one["bboxes"]) if box] == trace.frames.tolist()
        boxes = np.array([box for box in one["bboxes"] if box])
        boxes[:, 2:] += boxes[:, :2]
        assert np.allclose(boxes, trace.boxes, atol=0.011)


def test_trackeval_finds_youtube_vis_equal_to_itself(tmp_path: Path) -> None:
    # trackeval puts `youtube_vis_` and the split behind both paths.
    data = tmp_path / "results_youtube_vis_all" / "ours" / "data"
    data.mkdir(parents=True)
    file = tmp_path / "truth_youtube_vis_all" / "a.json"
    file.parent.mkdir()
    write_youtube_vis([clip(CAR, OTHER, masks=MASKS)], ["Car"], file, False)
    found = json.loads(file.read_text())["annotations"]
    for one in found:  # as a tracker's results are: compressed, and scored
        one["segmentations"] = [mask and pycoco.frPyObjects(mask, *mask["size"]) for mask in one["segmentations"]]
        for mask in filter(None, one["segmentations"]):
            mask["counts"] = mask["counts"].decode()
        one["score"] = 1.0
    (data / "a.json").write_text(json.dumps(found))
    scores = hota("youtube-vis", tmp_path / "truth_", tmp_path / "results_", SPLIT_TO_EVAL="all")
    assert scores["Car"] == pytest.approx(1)
