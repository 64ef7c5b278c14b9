import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given

from backend.formats.labelstudio_json import format_task, write_labelstudio
from backend.formats.tasks import ExportControls
from backend.labelstudio.keyframe import Keyframe, boxes_at, mark_as_ours, parse_keyframes
from backend.labelstudio.label_config import parse_label_config
from tests.formats.made import FRAMES, chosen, several
from tests.formats.made import task as task_of
from tests.labelstudio.bodies import CONFIG, drawn, keyframe


def exported(*results: dict, dense: bool = False, controls: ExportControls | None = None, **more: object) -> list[dict]:
    """The results that come out, of a file with one task."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "a.json"
        write_labelstudio([format_task(chosen(task_of(*results, **more)), controls or ExportControls(), dense)], out)
        (found,) = json.loads(out.read_text())
    return found["annotations"][0]["result"]


def text(name: str, *lines: str, **more: object) -> dict:
    value = {"text": list(lines)}
    return {"id": name, "type": "textarea", "from_name": name, "to_name": "video", "value": value, **more}


@given(several)
def test_keyframes_come_back_to_the_digit(regions: list[dict]) -> None:
    assert exported(*regions) == regions


def test_what_unlike_has_taken_away_is_no_annotation() -> None:
    taken = {**drawn(keyframe(1), id="taken"), "meta": {"unlike": [1, 2, 3, 4]}}
    assert [each["id"] for each in exported(taken, drawn(keyframe(1), id="kept"))] == ["kept"]


@given(several)
def test_dense_adds_a_keyframe_of_ours_on_every_other_frame_and_moves_no_box(regions: list[dict]) -> None:
    frames = np.arange(1, FRAMES + 1)
    for before, after in zip(regions, exported(*regions, dense=True), strict=True):
        given, filled = before["value"].pop("sequence"), after["value"].pop("sequence")
        assert before == after
        assert [one for one in filled if one in given] == given
        shown = boxes_at(parse_keyframes(given), frames)
        assert np.allclose(boxes_at(parse_keyframes(filled), frames), shown, atol=2e-4, equal_nan=True)
        assert [one["frame"] for one in filled] == frames[~np.isnan(shown[:, 0])].tolist()
        places = {one["frame"] for one in given}
        assert all(not item.is_human for item in parse_keyframes(filled) if item.frame not in places)
        assert all(one["time"] == one["frame"] / 25 for one in filled)


def test_dense_turns_boxes_as_the_page_does() -> None:
    region = drawn(keyframe(1, rotation=0), keyframe(3, rotation=30, enabled=False))
    (filled,) = exported(region, dense=True)
    assert [one["rotation"] for one in filled["value"]["sequence"]] == [0, 15, 30]


def test_a_task_keeps_its_number_its_data_and_the_annotation_that_counts() -> None:
    given = task_of(drawn(keyframe(1)), drafts=[{"id": 5}], total_annotations=2)
    given["annotations"].append({"id": 2, "result": [], "was_cancelled": True})
    found = json.loads(format_task(chosen(given), ExportControls(), False))
    assert set(found) == {"id", "data", "annotations"}
    assert (found["id"], found["data"]) == (7, given["data"])
    assert [one["id"] for one in found["annotations"]] == [1]


def test_commands_and_status_texts_are_dropped_and_notes_kept() -> None:
    line = text("region_prompt", "both")
    note = text("notes", "look here", "▶ 2 tracks")
    told = text("notes2", "▶ 2 tracks")
    empty = text("notes3")
    found = exported(text("text_prompt", "red car", "▶ 1 track"), line, note, told, empty)
    assert found == [text("notes", "look here"), empty]


def test_other_text_areas_of_a_project_are_its_own() -> None:
    other = CONFIG.replace("</View>", '<TextArea name="words" toName="video"/></View>')
    found = exported(
        text("words", "red car", "▶ 1 track"), controls=ExportControls.from_config(parse_label_config(other))
    )
    assert found == [text("words", "red car")]


def test_command_labels_are_dropped() -> None:
    found = exported(
        drawn(keyframe(1), id="a", labels=("track (t)",)),
        drawn(keyframe(1), id="b", labels=("Car", "track (t)")),
        {"id": "c", "type": "labels", "from_name": "cmd", "to_name": "video", "value": {"labels": ["track (t)"]}},
    )
    assert [one["value"].get("labels") for one in found] == [None, ["Car"]]


def test_our_lines_of_the_info_panel_are_dropped_and_a_persons_kept() -> None:
    def meta(*lines: str) -> dict:
        return exported(drawn(keyframe(1), meta={"track_id": 7, "text": [*lines]}))[0]["meta"]

    assert meta("mine", "track 7 · sam3 · 0.93", "track them all") == {
        "track_id": 7,
        "text": ["mine", "track them all"],
    }
    assert meta("not tracked: too small") == {"track_id": 7}
    assert meta("mine") == {"track_id": 7, "text": ["mine"]}
    assert meta() == {"track_id": 7}


def test_our_own_keyframes_stay_ours() -> None:
    item = mark_as_ours(Keyframe(4, True, 1, 2, 3, 4))
    (found,) = exported(drawn(item.to_unchanged_json(25)))
    assert parse_keyframes(found["value"]["sequence"]) == (item,)


def test_a_region_that_cannot_be_filled_is_written_as_it_was() -> None:
    broken = drawn({"frame": 1})
    assert exported(broken, dense=True) == [broken]
