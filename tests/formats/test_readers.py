import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from backend.errors import BackendError, BadRequest
from backend.formats.coco_reader import read_coco_vid
from backend.formats.imported_tracks import ImportedTrack, ImportedVideo, renumber_tracks
from backend.formats.mot_reader import read_mot
from backend.formats.to_predictions import build_prediction, scale_tracks
from backend.labelstudio.keyframe import boxes_at, parse_keyframes
from backend.labelstudio.label_config import parse_label_config
from backend.settings import KeyframeSettings, Settings
from backend.tracks.geometry import box_iou
from backend.video import VideoInfo
from tests.formats.made import FRAMES, SIZE, clip, several, traced
from tests.labelstudio.bodies import CONFIG

LINE = "1,4,10,20,30,40,1,1,1\n"


STRICT = Settings(keyframes=KeyframeSettings(px=0))


def recording(**changes: object) -> ImportedVideo:
    boxes = np.array([[0, 0, 64, 36], [64, 0, 128, 36]], float)
    found = ImportedTrack(4, "Car", np.array([2, 3]), boxes, 0.5)
    told = {"name": "a", "length": 10, "rate": 25.0, "size": SIZE, "tracks": (found,)}
    return ImportedVideo(**told | changes)


def regions_of(
    found: ImportedVideo, frames: int = FRAMES, rate: float = 25, page: float = 25, **more: object
) -> list[dict]:
    told = {"settings": STRICT, "label": None} | more
    return build_prediction(
        found, VideoInfo.evenly_spaced(frames, rate, SIZE), page, parse_label_config(CONFIG), **told
    )


def sequence(folder: Path, text: str) -> Path:
    file = folder / "seq" / "gt" / "gt.txt"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return file


def test_mot_is_read_as_a_file_a_sequence_and_a_folder_of_them(tmp_path: Path) -> None:
    file = sequence(tmp_path, "2,4,10,20,30,40,1,2,1\n1,4,10,20,30,40,1,2,1\n\n3,4,1,1,1,1,0,2,1\n")
    (tmp_path / "labels.txt").write_text("Car\nPerson\n")
    (file.parent.parent / "seqinfo.ini").write_text("[Sequence]\nname=seq\nseqLength=9\nimWidth=640\nimHeight=360\n")
    for path in (file, file.parent.parent, tmp_path):
        (found,) = read_mot(path)
        assert (found.name, found.length, found.rate, found.size) == ("seq", 9, None, SIZE)
        (track,) = found.tracks
        assert (track.id, track.label, track.frames.tolist()) == (4, "Person", [0, 1])
        assert track.boxes[0].tolist() == [10, 20, 40, 60]


def test_a_trackers_file_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "MOT17-02.txt").write_text("1, 4, 10, 20, 30, 40, -1, -1, -1, -1\n")
    (found,) = read_mot(tmp_path / "MOT17-02.txt")
    assert (found.name, found.length, found.size, found.tracks[0].label) == ("MOT17-02", 1, None, "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n", "no MOT file"),
        ("1,2,3\n", "no MOT file"),
        ("1,1,nan,1,1,1,1,1,1\n", "no MOT file"),
    ],
)
def test_what_is_no_mot_is_told(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        read_mot(sequence(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,2\n", "seq: 1 lines of gt.txt are skipped, such as line 2"),
        ("2,4,10,20,x,40\n", "seq: 1 lines of gt.txt are skipped, such as line 2"),
        (LINE, "track 4 of seq: 1 boxes are skipped: it is twice on frame 0"),
        (LINE.replace("1,4", "-3,4"), "track 4 of seq: 1 boxes are skipped, with a frame before the first"),
        ("2,4,10,20,0,40,1,1,1\n", "track 4 of seq: 1 boxes are skipped, with an empty box, as on frame 1"),
        ("1,5,10,20,0,40,1,1,1\n", "track 5 of seq is skipped: it has no box"),
        ("1,-1,10,20,9,40,1,1,1\n", "track -1 of seq is skipped: .* detections"),
    ],
)
def test_what_cannot_be_read_costs_no_other_and_is_named(tmp_path: Path, text: str, reason: str) -> None:
    skipped: list[str] = []
    (found,) = read_mot(sequence(tmp_path, LINE + text), skipped.append)
    assert [(track.id, track.frames.tolist()) for track in found.tracks] == [(4, [0])]
    assert re.match(reason, skipped[-1])


def test_a_sequence_that_cannot_be_read_costs_no_other_and_is_named(tmp_path: Path) -> None:
    for name, text in (("good", LINE), ("bad", "no numbers\n")):
        (tmp_path / "train" / name / "gt").mkdir(parents=True)
        (tmp_path / "train" / name / "gt" / "gt.txt").write_text(text)
    (tmp_path / "train" / "good" / "seqinfo.ini").write_text("seqLength=9\n")
    skipped: list[str] = []
    assert [video.name for video in read_mot(tmp_path, skipped.append)] == ["good"]
    assert [reason.partition(" is skipped")[0] for reason in skipped] == ["bad", "good: seqinfo.ini"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ", ", ";", "\t", " "])
def test_mot_of_other_programs_is_read(tmp_path: Path, encoding: str, separator: str) -> None:
    lines = ["7,2,1.5,2,3,4,1,2,1.0", "8,2,1.5,2,3,4,1,2,1.0"]
    file = sequence(tmp_path, "")
    file.write_text("\r\n".join(line.replace(",", separator) for line in lines), encoding=encoding)
    (file.parent / "labels.txt").write_text("Auto\nMädchen\n", encoding=encoding)
    (file.parent.parent / "seqinfo.ini").write_text("[sequence]\nseqlength=20\nframerate=12.5\n", encoding=encoding)
    (found,) = read_mot(tmp_path)
    assert [(track.label, track.frames.tolist()) for track in found.tracks] == [("Mädchen", [6, 7])]
    assert (found.length, found.rate) == (20, 12.5)


def test_a_header_and_short_lines_are_read(tmp_path: Path) -> None:
    skipped: list[str] = []
    text = "frame_id,track_id,x,y,w,h\n1,3,1,2,3,4\n2,3,1,2,3,4,1,1,0.5,0\n"
    (found,) = read_mot(sequence(tmp_path, text), skipped.append)
    assert (found.tracks[0].frames.tolist(), skipped) == ([0, 1], [])


def test_a_trackers_results_from_frame_0_with_scores(tmp_path: Path) -> None:
    (tmp_path / "walk.txt").write_text("0,1,5,5,9,9,0.50,-1,-1,-1\n1,1,6,5,9,9,0.90,-1,-1,-1\n")
    (tmp_path / "ride.txt").write_text("1,1,5,5,9,9,1,-1,-1,-1\n")
    ride, walk = read_mot(tmp_path)
    assert (walk.name, walk.tracks[0].frames.tolist(), walk.tracks[0].score) == ("walk", [0, 1], pytest.approx(0.7))
    assert (ride.name, ride.tracks[0].frames.tolist(), ride.tracks[0].score) == ("ride", [0], None)


@pytest.mark.parametrize("reader", [read_mot, read_coco_vid])
def test_a_place_without_such_a_file_is_told(tmp_path: Path, reader) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(BackendError, match="give"):
            reader(path)


@pytest.mark.parametrize("found", ["{", "[]", "{}", '{"images": [], "annotations": [{}], "videos": []}'])
def test_what_is_no_coco_vid_is_told(tmp_path: Path, found: str) -> None:
    (tmp_path / "a.json").write_text(found)
    with pytest.raises(BadRequest, match="no COCO-VID"):
        read_coco_vid(tmp_path / "a.json")


def test_coco_vid_of_others_is_read(tmp_path: Path) -> None:
    images = [{"id": 10 + frame, "video_id": 1, "frame_id": frame, "width": 640, "height": 360} for frame in range(5)]
    row = {"bbox": [1, 2, 3, 4], "category_id": 9, "track_id": 0, "score": 0.5}
    found = {
        "videos": [{"id": 1, "name": "v"}, {"id": 2, "name": "empty"}],
        "images": images,
        "annotations": [row | {"id": 1, "image_id": 13}, row | {"id": 2, "image_id": 11, "score": 1.0}],
        "categories": [{"id": 9, "name": "Car"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(found))
    video, empty = read_coco_vid(tmp_path / "a.json")
    assert (video.length, video.size, empty.length, empty.tracks) == (5, SIZE, 0, ())
    (track,) = video.tracks
    assert (track.id, track.label, track.frames.tolist(), track.score) == (0, "Car", [1, 3], 0.75)
    assert renumber_tracks(video.tracks) == {0: 1}


def test_a_track_becomes_a_region_of_the_configs() -> None:
    (region,) = regions_of(recording())
    assert (region["type"], region["from_name"], region["to_name"]) == ("videorectangle", "box", "video")
    assert (region["value"]["labels"], region["meta"]["track_id"], region["score"]) == (["Car"], 4, 0.5)
    assert (region["value"]["framesCount"], region["value"]["duration"]) == (100, 4)
    assert [(one["frame"], one["enabled"], one["x"]) for one in region["value"]["sequence"]] == [
        (3, True, 0),
        (4, False, 10),
    ]
    assert not any(item.is_human for item in parse_keyframes(region["value"]["sequence"]))


def test_what_a_file_says_is_so() -> None:
    boxes = np.tile([0.0, 0, 64, 36], (9, 1))
    boxes[4] += [9, 0, 9, 0]
    found = ImportedTrack(1, "Car", np.array([0, 1, 2, 3, 4, 5, 7, 8, 9]), boxes, 0.5)
    ours = Settings(keyframes=KeyframeSettings(px=10, smooth=5))
    (region,) = regions_of(recording(tracks=(found,)), settings=ours)
    items = parse_keyframes(region["value"]["sequence"])
    assert boxes_at(items, np.array([5]))[0, 0] == round(900 / SIZE[0], 4), "neither smoothed nor near enough"
    assert np.isnan(boxes_at(items, np.array([7]))[0, 0]), "a gap is one"


def test_frames_are_the_pages_where_it_counts_others() -> None:
    (region,) = regions_of(recording(), page=50)
    assert [one["frame"] for one in region["value"]["sequence"]][::3] == [5, 8]


def test_boxes_count_in_the_files_own_picture_size() -> None:
    video_info = scale_tracks(VideoInfo.evenly_spaced(10, 25, (1280, 720)), SIZE)
    (region,) = build_prediction(recording(), video_info, 25, parse_label_config(CONFIG), STRICT, None)
    assert region["value"]["sequence"][1]["x"] == 10


def test_classes_that_the_config_lacks_are_told_and_can_be_given() -> None:
    dog = recording(tracks=(ImportedTrack(1, "Dog", np.array([0]), np.array([[0, 0, 9, 9.0]])),))
    with pytest.raises(BadRequest, match='"Dog" is not in the label config'):
        regions_of(dog)
    assert regions_of(dog, label="Person")[0]["value"]["labels"] == ["Person"]


@pytest.mark.parametrize("label", ["", "object"])
def test_a_track_without_a_class_is_one_without(label: str) -> None:
    (region,) = regions_of(recording(tracks=(ImportedTrack(1, label, np.array([0]), np.array([[0, 0, 9, 9.0]])),)))
    assert "labels" not in region["value"]


def test_a_recording_of_a_longer_video_is_told() -> None:
    with pytest.raises(BadRequest, match="another one"):
        regions_of(recording(length=11), frames=10)


@given(several)
def test_what_was_exported_is_shown_again_within_the_bound(regions: list[dict]) -> None:
    written = clip(*regions)
    tracks = tuple(ImportedTrack(trace.id, "Car", trace.frames, trace.boxes) for trace in written.tracks)
    back = regions_of(recording(length=FRAMES, tracks=tracks))
    assert [one["meta"]["track_id"] for one in back] == [trace.id for trace in written.tracks]
    for region, shown in zip(back, traced(written), strict=True):
        rows = (
            boxes_at(parse_keyframes(region["value"]["sequence"]), np.arange(1, FRAMES + 1))
            * np.array([*SIZE] * 2)
            / 100
        )
        rows[:, 2:] += rows[:, :2]
        assert np.flatnonzero(~np.isnan(rows[:, 0])).tolist() == list(shown)
        assert (box_iou(rows[list(shown)], np.array([*shown.values()])) >= 0.949).all()


def coco(folder: Path, images: list[dict], annotations: list[dict], **more: object) -> Path:
    path = folder / "clip.json"
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "Dog"}], **more}
    path.write_text(json.dumps(content), encoding="utf-8-sig")
    return path


BOX = {"bbox": [1, 2, 3, 4], "category_id": 1}


def test_coco_of_one_video_counts_by_its_pictures_names(tmp_path: Path) -> None:
    images = [{"id": 5 - n, "file_name": f"frame_{n:06d}.PNG", "width": 64, "height": 36} for n in range(4)]
    rows = [{**BOX, "image_id": 5 - n, "attributes": {"track_id": 7, "keyframe": True}} for n in (3, 1)]
    skipped: list[str] = []
    (video,) = read_coco_vid(coco(tmp_path, images, [*rows, {**BOX, "image_id": 5}]), skipped.append)
    assert (video.name, video.length, video.size) == ("clip", 4, (64, 36))
    assert [(track.id, track.label, track.frames.tolist()) for track in video.tracks] == [(7, "Dog", [1, 3])]
    assert [(one.frame, one.label, one.box) for one in video.detections] == [(0, "Dog", (1, 2, 4, 6))]
    assert not skipped


@pytest.mark.parametrize("first", [0, 1])
def test_coco_may_count_frames_from_0_or_1_and_call_a_video_by_its_file(tmp_path: Path, first: int) -> None:
    images = [{"id": n, "video_id": "1", "frame_id": n + first, "file_name": f"{n}.jpg"} for n in range(3)]
    rows = [{**BOX, "id": n, "image_id": str(n), "track_id": "4"} for n in range(3)]
    (video,) = read_coco_vid(coco(tmp_path, images, rows, videos=[{"id": 1, "file_name": "walk"}]))
    assert (video.name, video.length) == ("walk", 3)
    assert [(track.id, track.frames.tolist()) for track in video.tracks] == [(4, [0, 1, 2])]


def test_a_coco_box_or_track_that_cannot_be_read_costs_no_other(tmp_path: Path) -> None:
    images = [{"id": n, "video_id": 1, "frame_id": n} for n in range(3)]
    rows = [
        {**BOX, "image_id": 0, "track_id": 1},
        {**BOX, "image_id": 1, "track_id": 1, "bbox": None},
        {**BOX, "image_id": 2, "track_id": 1, "bbox": [1, 1, 0, 5]},
        {**BOX, "image_id": 0, "track_id": 2, "bbox": []},
        {**BOX, "image_id": 99, "track_id": 1},
    ]
    skipped: list[str] = []
    (video,) = read_coco_vid(coco(tmp_path, images, rows, videos=[{"id": 1, "name": "v"}]), skipped.append)
    assert [(track.id, track.frames.tolist()) for track in video.tracks] == [(1, [0])]
    assert [reason.partition(":")[0] for reason in skipped] == [
        "1 boxes are skipped",
        "track 1 of v",
        "track 2 of v",
        "track 2 of v is skipped",
    ]
