from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.labelstudio.keyframe import parse_keyframes as parse_sequence
from backend.labelstudio.keyframes import KeyframeSet
from backend.labelstudio.region import Region, agreed_framerate, find_linked, parse_region
from backend.labelstudio.region import fingerprint_keyframes as region_seal
from backend.labelstudio.region_results import build_refusal, build_region, format_region
from backend.labelstudio.segments import cut_segments
from tests.labelstudio.bodies import asked_again, drawn, keyframe, moved


def ours(frame: int, enabled: bool = True, **box: float) -> dict:
    """A keyframe as an answer of ours has it."""
    item = parse_sequence([keyframe(frame, **box) | {"enabled": enabled}])[0]
    return {**item.to_json(25), "fp": item.fingerprint} | {"human": False}


def human(frame: int, **box: float) -> dict:
    return parse_sequence([keyframe(frame, **box)])[0].to_json(25)


def cuts(region: Region, direction: str = "forward") -> list[tuple]:
    """(frame before, frame after, frames kept or None where it is tracked) of every segment."""
    return [
        (
            segment.before and segment.before.frame,
            segment.after and segment.after.frame,
            "hidden"
            if not segment.has_object
            else None
            if segment.kept is None
            else [item.frame for item in segment.kept],
        )
        for segment in cut_segments(region, direction)
    ]


def region(*keyframes: dict, **more) -> Region:
    return parse_region(drawn(*keyframes, origin="prediction-changed", **more))


def test_a_drawn_box_is_tracked_forward_and_on_request_backward() -> None:
    box = parse_region(drawn(keyframe(30)))
    assert box.is_asked
    assert cuts(box) == [(None, 30, []), (30, None, None)]
    assert cuts(box, "backward") == [(None, 30, None), (30, None, "hidden")]
    assert cuts(box, "both") == [(None, 30, None), (30, None, None)]


def test_between_two_drawn_keyframes_it_is_tracked_whatever_the_direction() -> None:
    box = parse_region(drawn(keyframe(10), keyframe(40)))
    assert cuts(box) == [(None, 10, []), (10, 40, None), (40, None, None)]


def test_a_finished_track_is_kept_whole() -> None:
    assert cuts(region(human(1), ours(20), ours(100, enabled=False))) == [(None, 1, []), (1, None, [20, 100])]


def test_a_correction_reaches_to_the_next_human_keyframes_and_no_further() -> None:
    track = region(human(1), ours(10), human(20), ours(30), keyframe(40), ours(50), human(60), ours(80))
    assert cuts(track) == [(None, 1, []), (1, 20, [10]), (20, 40, None), (40, 60, None), (60, None, [80])]


def test_a_correction_after_the_last_human_keyframe_goes_to_the_end() -> None:
    assert cuts(region(human(1), ours(20), keyframe(40), ours(100))) == [(None, 1, []), (1, 40, None), (40, None, None)]


def test_a_correction_before_the_first_goes_back_where_the_track_did() -> None:
    assert cuts(region(keyframe(20), human(40), ours(60)))[0] == (None, 20, [])
    assert cuts(region(ours(1), keyframe(20), human(40), ours(60)))[0] == (None, 20, None)


def test_a_moved_copy_of_the_next_keyframes_fingerprint_is_a_correction() -> None:
    # Label Studio copies the extra keys of the next keyframe into one that is inserted before it.
    copied = keyframe(15, x=50) | {"fp": ours(20)["fp"]}
    assert cuts(region(human(1), copied, ours(20))) == [(None, 1, []), (1, 15, None), (15, None, None)]


def test_switching_the_box_off_ends_the_track_there_and_changes_nothing_before() -> None:
    off = ours(30) | {"enabled": False}
    assert cuts(region(human(1), ours(10), off, ours(60))) == [(None, 1, []), (1, 30, [10]), (30, None, [])]


def test_switching_the_box_on_again_tracks_on_from_there() -> None:
    on = ours(30, enabled=False) | {"enabled": True}
    assert cuts(region(human(1), ours(10), on)) == [(None, 1, []), (1, 30, [10]), (30, None, None)]


def test_what_was_switched_off_stays_off() -> None:
    off = parse_sequence([ours(30) | {"enabled": False}])[0].to_json(25)
    assert cuts(region(human(1), ours(10), off)) == [(None, 1, []), (1, 30, [10]), (30, None, [])]
    assert cuts(region(human(1), keyframe(20), off)) == [(None, 1, []), (1, 20, None), (20, 30, None), (30, None, [])]


def test_dragging_the_end_of_a_track_is_a_correction_and_tracks_on() -> None:
    dragged = ours(30, enabled=False) | {"x": 50}
    assert cuts(region(human(1), ours(10), dragged, meta={"ends": [30]})) == [
        (None, 1, []),
        (1, 30, None),
        (30, None, None),
    ]


def test_a_keyframe_added_after_the_end_inherits_its_switch_and_still_tracks() -> None:
    added = keyframe(70) | {"enabled": False}
    assert cuts(region(human(1), ours(30, enabled=False), added)) == [(None, 1, []), (1, 70, None), (70, None, None)]


def test_a_drawn_keyframe_that_was_switched_off_hides_the_object() -> None:
    assert cuts(region(keyframe(1), keyframe(30) | {"enabled": False})) == [
        (None, 1, []),
        (1, 30, None),
        (30, None, []),
    ]


def test_a_deleted_correction_is_tracked_over() -> None:
    track = region(human(1), ours(20), ours(60), human(80), ours(90), meta={"human": [1, 40, 80]})
    assert cuts(track) == [(None, 1, []), (1, 80, None), (80, None, [90])]


def test_an_unfinished_track_is_tracked_whole() -> None:
    track = region(human(1), ours(20, enabled=False), meta={"partial": {"done": 20, "total": 100}})
    assert cuts(track) == [(None, 1, []), (1, None, None)]


def test_an_unfinished_track_without_its_prompt_goes_on_from_its_first_keyframe() -> None:
    track = region(ours(5), ours(20), meta={"partial": {"done": 20, "total": 100}})
    assert cuts(track) == [(None, 5, []), (5, None, None)]


@pytest.mark.parametrize(
    ("origin", "keyframes", "asked"),
    [
        ("manual", [keyframe(1)], True),
        ("manual", [human(1), ours(9)], False),
        ("prediction", [human(1), ours(9)], False),
        ("prediction", [human(1), keyframe(9)], False),
        ("prediction-changed", [human(1), ours(9)], True),
    ],
)
def test_who_is_asked_for(origin: str, keyframes: list, asked: bool) -> None:
    assert parse_region(drawn(*keyframes, origin=origin)).is_asked is asked


# --- answers --------------------------------------------------------------------------------------------------------


def test_how_much_is_interpolated_counts_to_the_end_where_nothing_ends_it() -> None:
    asked = parse_region(drawn(keyframe(1)))
    (result,) = format_region(
        build_region(asked, KeyframeSet(asked.keyframes), labels=["Car"], track_id=1, engine="stub", score=None), 25
    )
    assert result["meta"]["interpolated"] == 0.99
    assert not {"iou", "score"} & result["meta"].keys()


@pytest.mark.parametrize(("told", "known"), [(0.9, 0.9), (1, 1.0), (1.5, None), ("x", None), (float("nan"), None)])
def test_only_an_iou_is_believed(told: object, known: float | None) -> None:
    assert region(keyframe(1), meta={"iou": told}).iou == known


def test_which_ends_were_ours_is_known_the_next_time() -> None:
    off = keyframe(30) | {"enabled": False}
    asked = region(keyframe(1), off)
    items = [*asked.keyframes, *parse_sequence([ours(20, enabled=False)])]
    (result,) = format_region(
        build_region(asked, KeyframeSet(items), labels=["Car"], track_id=1, engine="stub", score=None), 25
    )
    assert result["meta"]["ends"] == [20]
    assert cuts(parse_region(asked_again(result)))[-1] == (30, None, [])
    dragged = region(human(1), ours(30, enabled=False) | {"x": 50}, meta={"ends": [30]})
    (result,) = format_region(
        build_region(dragged, KeyframeSet(dragged.keyframes), labels=["Car"], track_id=1, engine="stub", score=None), 25
    )
    assert result["meta"]["ends"] == [30]
    again = parse_region(asked_again(result))
    assert not again.hides(again.keyframes[-1])


def test_an_answer_keeps_id_tags_labels_and_human_values_and_gives_marks() -> None:
    asked = parse_region(drawn(keyframe(1, x=3.046875, width=18.055555555555554)))
    items = [*asked.keyframes, *parse_sequence([ours(20), ours(100, enabled=False)])]
    (result,) = format_region(
        build_region(asked, KeyframeSet(items, 0.95129), labels=["Car"], track_id=7, engine="opencv", score=0.934), 25
    )
    assert {key: result[key] for key in ("id", "from_name", "to_name", "type", "origin", "score")} == {
        "id": "fDqJ3pfXOd",
        "from_name": "box",
        "to_name": "video",
        "type": "videorectangle",
        "origin": "prediction",
        "score": 0.934,
    }
    seal = result["meta"].pop("seal")
    assert result["meta"] == {
        "track_id": 7,
        "human": [1],
        "ends": [100],
        "text": ["track 7 · opencv · 0.93"],
        "score": 0.934,
        "iou": 0.9512,
        "interpolated": 0.97,
    }
    assert seal == region_seal(items)
    value = result["value"]
    assert (value["framesCount"], value["duration"], value["labels"]) == (100, 4, ["Car"])
    first = value["sequence"][0]
    assert (first["x"], first["width"], first["human"], first["time"]) == (3.046875, 18.055555555555554, True, 0.04)
    assert "human" not in value["sequence"][1]


def test_a_partial_answer_says_so() -> None:
    asked = parse_region(drawn(keyframe(1)))
    (result,) = format_region(
        build_region(
            asked, KeyframeSet(asked.keyframes), labels=[], track_id=1, engine="stub", score=None, partial=(30, 100)
        ),
        25,
    )
    assert result["meta"]["partial"] == {"done": 30, "total": 100}
    assert "30 of 100" in result["meta"]["text"][0]
    assert "labels" not in result["value"]
    assert "score" not in result


def test_a_class_that_was_assumed_is_said_to_be() -> None:
    asked = parse_region(drawn(keyframe(1), labels=("track (t)",)))
    (result,) = format_region(
        build_region(asked, KeyframeSet(asked.keyframes), labels=["Car"], track_id=1, engine="stub", score=None), 25
    )
    assert "no class was set: check its label" in result["meta"]["text"][0]


keyframes = st.builds(
    lambda frame, *rest: (frame, *rest), st.integers(1, 50), st.sampled_from([ours, human, keyframe]), st.floats(0, 50)
)


@given(
    st.lists(keyframes, min_size=1, unique_by=lambda item: item[0]),
    st.none() | st.floats(0, 1),
    st.none() | st.tuples(st.integers(0, 9), st.just(10)),
)
def test_a_region_that_is_answered_is_what_the_page_will_send_back(
    items: list[tuple], score: float | None, partial: tuple[int, int] | None
) -> None:
    asked = region(*(make(frame, x=x) for frame, make, x in items), meta={"phrase": "car"}, parentID="other")
    track = KeyframeSet(asked.keyframes[::-1], 0.9)
    built = build_region(asked, track, track_id=3, engine="stub", score=score, labels=["Bus"], partial=partial)
    (result,) = format_region(built, 25)
    back = parse_region(result)
    assert replace(back, framerate=built.framerate, score=built.score) == built
    assert back.score == (None if score is None else round(score, 4))
    assert not any(item.is_corrected for item in built.keyframes), "only a person changes what was answered"


def test_a_refused_region_is_still_to_be_answered() -> None:
    corrected = region(human(1), keyframe(40), ours(60))
    (refused,) = format_region(build_refusal(corrected, ["Car"], "no luck"), 25)
    assert (refused["origin"], refused["meta"]["text"]) == ("prediction-changed", ["not tracked: no luck"])
    back = parse_region(asked_again(refused))
    assert back.keyframes == corrected.keyframes
    assert cuts(back) == cuts(corrected)
    assert back.is_asked


def test_what_a_person_keeps_with_a_region_comes_back_with_it() -> None:
    value = {"choices": ["sitting"], "sequence": [keyframe(1)], "framesCount": 100, "duration": 4}
    names = {"id": "fDqJ3pfXOd", "type": "choices", "from_name": "pose", "to_name": "video", "origin": "manual"}
    note: dict[str, Any] = {**names, "value": value}
    line = {**note, "type": "textarea", "from_name": "region_prompt", "value": {"text": ["both"]}}
    meta = {"text": ["looks odd", "track 3 · stub"], "imported": 7, "partial": {"done": 1, "total": 2}}
    asked = parse_region(drawn(keyframe(1), meta=meta, parentID="other", locked=True), [note, line], {"region_prompt"})
    assert asked.line == "both"
    result, beside = format_region(
        build_region(asked, KeyframeSet(asked.keyframes), labels=["Car"], track_id=3, engine="stub", score=None), 25
    )
    assert (result["parentID"], result["locked"]) == ("other", True)
    assert result["meta"]["text"] == ["looks odd", "track 3 · stub"]
    assert result["meta"]["imported"] == 7
    assert "partial" not in result["meta"]
    assert beside == {**note, "value": {"choices": ["sitting"]}}


@pytest.mark.parametrize(
    ("first", "rounded", "more", "rate"),
    [
        (0, 9, {}, 12.5),
        (1, 9, {"framesCount": 50, "duration": 4.0}, 12.5),
        (0, 2, {"framesCount": 50, "duration": 4.0}, 12.5),
        (0, 9, {"framesCount": 500, "duration": 4.0}, 12.5),
    ],
)
def test_the_framerate_is_what_all_keyframes_agree_on(first: int, rounded: int, more: dict, rate: float) -> None:
    items = [keyframe(frame, time=round((frame - first) / 12.5, rounded)) for frame in (1, 7, 30, 45)]
    box = drawn(*items)
    box["value"] |= {"framesCount": None, "duration": None, **more}
    assert parse_region(box).framerate == pytest.approx(rate, rel=1e-3)


def test_times_that_contradict_each_other_tell_no_framerate() -> None:
    assert parse_region(drawn(keyframe(10, time=1.0), keyframe(20, time=1.1), keyframe(30, time=9.0))).framerate is None
    assert agreed_framerate([]) is None
    odd, even = parse_region(drawn(keyframe(10, time=1.0))), parse_region(drawn(keyframe(9)))
    assert agreed_framerate([odd, even, even]) == 25


def test_a_keyframe_that_cannot_be_read_costs_no_other() -> None:
    items = [keyframe(1), keyframe(2, width=0), {"frame": 3}, "no keyframe", keyframe(-1), keyframe(9)]
    box = parse_region(drawn(*items))
    assert [item.frame for item in box.keyframes] == [1, 9]
    assert [reason.partition(":")[0] for reason in box.skipped] == [
        "the box on frame 2 is empty",
        "the keyframe on frame 3 has no number for x",
        "a keyframe of the region is not an object",
        "there is no frame -1",
    ]


def test_a_class_may_stand_in_a_result_of_its_own() -> None:
    box = {**drawn(keyframe(1)), "value": {"sequence": [keyframe(1)]}}
    named = {**box, "type": "labels", "from_name": "kind", "value": {"labels": ["Person"]}}
    colour = {**named, "from_name": "colour", "value": {"labels": ["red"]}}
    found = parse_region(box, [named, colour])
    assert (found.labels, found.linked_results) == (("Person",), (colour,))
    both = parse_region(drawn(keyframe(1)), [colour])
    assert (both.labels, both.linked_results) == (("Car",), (colour,))


def test_a_region_without_an_id_gets_one_and_is_linked_to_nothing() -> None:
    nameless = {key: value for key, value in drawn(keyframe(1)).items() if key != "id"}
    text = {"type": "textarea", "from_name": "note", "value": {"text": ["x"]}}
    assert find_linked(nameless, [nameless, text]) == []
    assert parse_region(nameless).id != parse_region(nameless).id


def test_a_box_without_enabled_is_shown_on_its_frame_alone_and_can_be_tracked() -> None:
    bare = {key: value for key, value in keyframe(10).items() if key != "enabled"}
    box = parse_region(drawn(bare))
    assert [item.enabled for item in box.keyframes] == [False]
    assert cuts(box) == [(None, 10, []), (10, None, None)]
    assert cuts(parse_region(drawn(keyframe(10, enabled=False)))) == [(None, 10, []), (10, None, [])]


def answered(*more: dict, **meta: object) -> dict:
    """A track of one human keyframe on frame 1, and others as they came."""
    human, ours = (parse_region(drawn(keyframe(frame))).keyframes[0].to_json(25) for frame in (1, 90))
    return drawn(human, {**ours, "human": False}, *more, origin="prediction", meta=meta)


def corrections(region: dict) -> set[int]:
    return set(parse_region(region).corrections)


def test_only_what_was_set_on_a_track_that_was_there_is_a_correction() -> None:
    assert corrections(drawn(keyframe(1), keyframe(50))) == set()
    assert corrections(answered()) == set()
    assert corrections(moved(answered(), 50, x=12)) == {50}
    assert corrections(moved(answered(), 1, x=12)) == {1}


def test_a_switch_is_no_correction() -> None:
    region = answered()
    region["value"]["sequence"][1]["enabled"] = False
    assert corrections(region) == set()


def test_a_correction_is_one_until_its_keyframe_is_deleted() -> None:
    assert corrections(answered(corrected=[1, 50])) == {1}
    assert corrections(moved(answered(corrected=[1, 50]), 1, x=12)) == {1}
    assert corrections(answered(corrected={"1": [0.1, 0.2]})) == set()
