import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from backend.errors import BadRequest, SettingsError
from backend.formats.tasks import ExportControls, choose_annotation, load_tasks, read_video_tracks, used_labels
from backend.formats.video_tracks import folder_name
from backend.labelstudio.keyframe import Keyframe, mark_as_ours
from backend.labelstudio.label_config import parse_label_config
from backend.video import VideoInfo
from tests.formats.made import SIZE, chosen, clip, regions, shown, task, traced
from tests.labelstudio.bodies import CONFIG, drawn, keyframe


@given(regions())
def test_a_track_is_where_the_page_shows_it_and_nowhere_else(region: dict) -> None:
    (trace,), expected = traced(clip(region)), shown(region)
    assert list(trace) == list(expected)
    assert np.allclose([*trace.values()], [*expected.values()], atol=1e-3)


@given(regions())
def test_keyframes_are_told_from_what_lies_between(region: dict) -> None:
    (trace,) = clip(region).tracks
    keyframes = region["value"]["sequence"]
    assert trace.frames[trace.keys].tolist() == [one["frame"] - 1 for one in keyframes]
    assert trace.enabled.tolist() == [one["enabled"] for one in keyframes]
    assert trace.human.all()


def test_spans_and_gaps() -> None:
    region = drawn(keyframe(3), keyframe(5, enabled=False), keyframe(9), keyframe(10, enabled=False))
    assert clip(region).tracks[0].frames.tolist() == [2, 3, 4, 8, 9]


def test_a_track_without_end_goes_on_to_the_last_frame_that_is_known_of() -> None:
    assert clip(drawn(keyframe(98))).tracks[0].frames.tolist() == [97, 98, 99]
    short = drawn(keyframe(4))
    del short["value"]["framesCount"]
    assert clip(short, drawn(keyframe(6), id="b") | {"value": {"sequence": [keyframe(6)]}}).length == 6


def test_ids_are_kept_where_they_are_told_once_and_else_numbered_by_first_frame() -> None:
    regions = [
        drawn(keyframe(9), id="a"),
        drawn(keyframe(5), id="b", meta={"track_id": 1}),
        drawn(keyframe(3), id="c"),
        drawn(keyframe(2), id="d", meta={"track_id": 7}),
        drawn(keyframe(1), id="e", meta={"track_id": 7}),
    ]
    told = {trace.id: int(trace.frames[0]) + 1 for trace in clip(*regions).tracks}
    assert told == {1: 5, 2: 1, 3: 2, 4: 3, 5: 9}


def test_command_labels_are_no_classes() -> None:
    found = clip(
        drawn(keyframe(1), id="a", labels=("track (t)", "Car")),
        drawn(keyframe(2), id="b", labels=("track (t)",)),
        drawn(keyframe(3), id="c", labels=()),
    )
    assert [trace.label for trace in found.tracks] == ["Car", "object", "object"]


def test_labels_come_in_the_configs_order_and_then_by_name() -> None:
    found = [chosen(task(drawn(keyframe(1), labels=(label,)))) for label in ("Zebra", "Ape", "Person")]
    assert used_labels(found, ExportControls()) == ["Ape", "Person", "Zebra"]
    assert used_labels(found, ExportControls.from_config(parse_label_config(CONFIG))) == [
        "Car",
        "Person",
        "Ape",
        "Zebra",
    ]


def test_a_rotated_box_gives_its_upright_hull_and_turns_on_the_way() -> None:
    region = drawn(keyframe(1, 50, 50, 10, 20, rotation=0), keyframe(3, 50, 50, 10, 20, rotation=90))
    (trace,) = traced(clip(region, size=(1000, 500)))
    assert trace[0] == pytest.approx([500, 250, 600, 350])
    assert trace[2] == pytest.approx([400, 250, 500, 350])
    assert trace[1] == pytest.approx([500 - 100 / 2**0.5, 250, 500 + 100 / 2**0.5, 250 + 200 / 2**0.5], abs=1e-3)
    with pytest.raises(SettingsError, match="--size"):
        clip(region, size=None)


def test_boxes_of_unknown_pictures_are_parts_of_them() -> None:
    assert traced(clip(drawn(keyframe(1)), size=None))[0][0] == pytest.approx([0.1, 0.2, 0.22, 0.36])


@pytest.mark.parametrize("where", ["region", "data"])
def test_the_size_is_known_where_label_studio_or_the_task_tell_it(where: str) -> None:
    told = {"original_width": 640, "original_height": 360} if where == "region" else {}
    known = task(drawn(keyframe(1), **told))
    known["data"] |= {"width": 640, "height": 360} if where == "data" else {}
    assert read_video_tracks(chosen(known), ExportControls(), None, None).size == SIZE


@pytest.mark.parametrize(("page", "video"), [(25, 25), (50, 25), (12.5, 25), (29.97, 30000 / 1001)])
def test_frames_are_the_videos_own_where_it_is_at_hand(page: float, video: float) -> None:
    video_info = VideoInfo.evenly_spaced(50, video, SIZE)
    step = page / video
    first, last = round(10 * step) + 1, round(20 * step) + 1
    sequence = [keyframe(first, 10), keyframe(last, 30, enabled=False)]
    sequence = [{**one, "time": one["frame"] / page} for one in sequence]
    (trace,) = clip(drawn(*sequence), video_info=video_info, data={"fps": page}).tracks
    assert trace.frames.tolist() == list(range(10, 21))
    assert trace.boxes[:, 0] / 6.4 == pytest.approx(np.linspace(10, 30, 11), abs=0.01)
    assert trace.frames[trace.keys].tolist() == [10, 20]


def test_a_keyframe_on_the_second_page_of_a_picture_begins_the_track_there() -> None:
    sequence = [{**keyframe(frame, enabled=frame < 30), "time": frame / 50} for frame in (22, 30)]
    (trace,) = clip(drawn(*sequence), video_info=VideoInfo.evenly_spaced(50, 25, SIZE), data={"fps": 50}).tracks
    assert trace.frames.tolist() == [10, 11, 12, 13, 14]
    assert trace.frames[trace.keys].tolist() == [10, 14]


def test_keyframes_after_the_videos_end_are_gone_to_and_not_reached() -> None:
    region = drawn(keyframe(1, 0), keyframe(101, 50))
    (trace,) = clip(region, video_info=VideoInfo.evenly_spaced(51, 25, SIZE)).tracks
    assert trace.boxes[-1, 0] == pytest.approx(160)
    assert trace.frames[trace.keys].tolist() == [0, 50]


def test_who_set_a_keyframe_is_told() -> None:
    sequence = [mark_as_ours(Keyframe(1, True, 1, 1, 9, 9)).to_unchanged_json(25), keyframe(5)]
    assert clip(drawn(*sequence)).tracks[0].human.tolist() == [False, True]


def test_the_ground_truth_counts_and_else_what_was_submitted_last() -> None:
    def entry(number: int, when: str, **more: object) -> dict:
        return {"id": number, "updated_at": when, "result": [], **more}

    listed = [entry(1, "2026-02-01"), entry(2, "2026-03-01"), entry(3, "2026-04-01", was_cancelled=True)]
    found = chosen({"data": {}, "annotations": listed, "predictions": [entry(9, "2027")]})
    assert (found.kind, found.entry["id"], found.number) == ("annotations", 2, 1)
    listed[0]["ground_truth"] = True
    assert chosen({"data": {}, "annotations": listed}).entry["id"] == 1
    predicted = {"id": 4, "data": {}, "annotations": listed[2:], "predictions": [entry(8, "2026"), entry(9, "2027"), 5]}
    assert chosen(predicted).entry["id"] == 9
    assert choose_annotation(predicted, 1, predictions=False) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "no JSON"), ("[1]", "no tasks"), ("3", "no tasks"), ('[{"video": "a", "box": []}]', "JSON-MIN")],
)
def test_a_file_that_holds_something_else_is_told(tmp_path, text: str, says: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(BadRequest, match=says):
        load_tasks(tmp_path / "a.json")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_tasks(tmp_path / "b.json")


def test_a_region_that_cannot_be_read_is_told() -> None:
    with pytest.raises(BadRequest, match="no keyframe"):
        clip(drawn())


def test_other_results_are_no_tracks() -> None:
    text = {"id": "t", "type": "textarea", "from_name": "text_prompt", "to_name": "video", "value": {"text": ["▶ 1"]}}
    line = {**json.loads(json.dumps(drawn(keyframe(1)))), "type": "textarea", "from_name": "region_prompt"}
    assert len(clip(drawn(keyframe(1)), text, line).tracks) == 1


@pytest.mark.parametrize(
    ("video", "name"),
    [
        ("/data/upload/1/0a1b2c3d-clip.mp4", "7-0a1b2c3d-clip"),
        ("s3://bucket/my clip.final.mp4?x=/a.b", "7-my_clip.final"),
        ("../../etc", "7-etc"),
        ("", "7"),
        ("..", "7"),
    ],
)
def test_names_of_folders_are_safe_and_tell_the_task(video: str, name: str) -> None:
    assert folder_name(7, video) == name


def test_a_region_or_keyframe_that_cannot_be_read_costs_no_other_and_is_named() -> None:
    nothing = drawn(id="nothing")
    half = drawn(keyframe(2), {"frame": 5}, keyframe(8, enabled=False), id="half")
    found = clip(nothing, half, {**drawn(keyframe(1)), "value": None}, drawn(keyframe(1), id="whole"))
    assert [len(track.frames) for track in found.tracks] == [100, 7]
    assert [reason.partition(":")[0] for reason in found.skipped] == [
        "region nothing is skipped",
        "region half",
        "region fDqJ3pfXOd is skipped",
    ]
    with pytest.raises(BadRequest, match="region nothing is skipped: the region has no keyframe"):
        clip(nothing)


def test_what_unlike_has_taken_away_is_no_track() -> None:
    taken = {**drawn(keyframe(1, enabled=False), id="taken"), "meta": {"unlike": [1, 2, 3, 4]}}
    found = clip(taken, drawn(keyframe(1), id="kept"))
    assert (len(found.tracks), list(found.skipped)) == (1, [])


def test_a_class_in_a_result_of_its_own_is_exported() -> None:
    box = {**drawn(keyframe(1)), "value": {"sequence": [keyframe(1)]}}
    named = {**box, "type": "labels", "from_name": "kind", "value": {"labels": ["Person"]}}
    assert [track.label for track in clip(box, named).tracks] == ["Person"]
    assert used_labels([chosen(task(box, named))], ExportControls()) == ["Person"]


def test_a_keyframe_without_enabled_is_shown_on_its_frame_alone() -> None:
    bare = [{key: value for key, value in keyframe(frame).items() if key != "enabled"} for frame in (4, 9)]
    assert clip(drawn(*bare)).tracks[0].frames.tolist() == [3, 8]


def test_times_that_disagree_with_the_rate_do_not_bend_a_track() -> None:
    video = VideoInfo.evenly_spaced(50, 25, SIZE)
    sequence = [keyframe(frame, x=frame, time=(frame - 1) / 25) for frame in range(1, 51)]
    (track,) = clip(drawn(*sequence), video_info=video).tracks
    assert track.boxes[:, 0] / 6.4 == pytest.approx(np.arange(1, 51))
    (track,) = clip(drawn(*sequence), video_info=video, data={"video": "clip.mp4"}).tracks
    assert track.boxes[:, 0] / 6.4 == pytest.approx(np.arange(1, 51))


def test_a_box_turns_the_shorter_way() -> None:
    sequence = [keyframe(1, 50, 50, 10, 10, rotation=170), keyframe(21, 50, 50, 10, 10, rotation=-170)]
    (track,) = clip(drawn(*sequence)).tracks
    # Upside down half-way: the corner that it turns about is now the lower right one.
    assert track.boxes[10] == pytest.approx([320 - 64, 180 - 36, 320, 180])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tasks_may_be_saved_in_another_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps([task(id=3, note="größe")], ensure_ascii=False), encoding=encoding)
    (found,) = load_tasks(path)
    assert (found["id"], found["note"]) == (3, "größe")
