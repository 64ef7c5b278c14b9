"""Changes: what they do, what they refuse, and that no box is lost or shown twice."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from backend.errors import BadRequest
from backend.formats.tasks import ChosenAnnotation
from backend.track_editor.edits import Edit, apply_edit
from backend.track_editor.track_table import TrackTable
from tests.formats.made import FRAMES, regions
from tests.track_editor.rosters import CONFIG, boxes, crossing, drawn, keyframe, roster


def edited(roster: TrackTable, do: str, tracks: object, **more: Any) -> tuple[TrackTable, tuple[str, ...]]:
    made = apply_edit(roster, Edit.parse({"do": do, "tracks": tracks, **more}))
    return made.table, made.description


def listed(roster: TrackTable) -> list[tuple[int, str, tuple]]:
    return [(entry.number, entry.label, entry.spans) for entry in roster.rows]


def test_a_track_gets_another_class() -> None:
    after, told = edited(roster(*crossing(), config=CONFIG), "rename", [3], label="Person")
    assert told == ("track 3: Car → Person",)
    assert after.row(3).result == {**crossing()[1], "value": crossing()[1]["value"] | {"labels": ["Person"]}}


def test_a_part_with_another_class_becomes_a_track() -> None:
    after, told = edited(roster(*crossing()), "rename", [2], label="Car", frames=[20, 30])
    assert told == ("track 2, frames 20 to 30 → track 4, Car",)
    assert listed(after)[1:] == [
        (2, "Person", ((1, 19), (31, 100))),
        (3, "Car", ((60, 90),)),
        (4, "Car", ((20, 30),)),
    ]


def test_a_class_that_the_project_lacks_is_refused() -> None:
    with pytest.raises(BadRequest, match="there is no class Van: the project has Car, Person"):
        edited(roster(*crossing(), config=CONFIG), "rename", [1], label="Van")


def test_all_tracks_of_a_class_are_meant_by_its_name() -> None:
    assert len(apply_edit(roster(*crossing()), Edit("delete", "Car")).table.rows) == 1
    with pytest.raises(BadRequest, match="no track of class Van"):
        apply_edit(roster(*crossing()), Edit("delete", "Van"))


def test_a_number_is_written_where_people_see_it() -> None:
    after, _ = edited(roster(*crossing()), "renumber", [2], to=12)
    meta = next(one for one in after.results() if one["id"] == "c")["meta"]
    assert (meta["track_id"], meta["text"]) == (12, ["mind the hat", "track 12 · sam3 · 0.80"])
    assert (meta["seal"], meta["iou"]) == ("x", 0.96)


def test_all_are_numbered_as_they_appear() -> None:
    after, _ = edited(roster(*crossing()), "renumber", "all", to=11)
    assert [(entry.number, entry.region.id) for entry in after.rows] == [(11, "a"), (12, "c"), (13, "b")]


def test_a_number_that_is_taken_joins_what_shares_no_frame() -> None:
    after, told = edited(roster(*crossing()), "renumber", [3], to=1)
    assert told == ("track 3 → a part of track 1, Car",)
    assert listed(after) == [(1, "Car", ((1, 50), (60, 90))), (2, "Person", ((1, 100),))]


def test_two_of_a_number_on_a_frame_are_refused() -> None:
    with pytest.raises(BadRequest, match="tracks 2 and 1 both show on frames 1 to 50"):
        edited(roster(*crossing()), "renumber", [1], to=2)
    with pytest.raises(BadRequest, match="is taken"):
        edited(roster(*crossing()), "renumber", [1, 3], to=2)
    with pytest.raises(BadRequest, match="both show on frames 1 to 50"):
        edited(roster(*crossing()), "merge", [1, 2])
    with pytest.raises(BadRequest, match="two tracks would have the number 3"):
        edited(roster(*crossing()), "renumber", [2, 3], to=3, frames=[60, 70])


def test_merged_tracks_keep_every_keyframe_and_hide_in_the_gap() -> None:
    before = roster(*crossing())
    after, told = edited(before, "merge", [1, 3])
    assert told == ("track 3, frames 60 to 90 → a part of track 1",)
    merged = after.row(1)
    assert merged.result["value"]["sequence"] == [
        keyframe for number in (1, 3) for keyframe in before.row(number).result["value"]["sequence"]
    ]
    assert merged.region.id == "a"
    assert merged.region.score == pytest.approx((0.9 * 50 + 0.6 * 31) / 81, abs=1e-4)


def test_the_one_that_stays_can_be_said() -> None:
    after, told = edited(roster(*crossing()), "merge", [1, 3], to=3)
    assert (after.row(3).region.id, told) == ("b", ("track 1, frames 1 to 50 → a part of track 3",))
    with pytest.raises(BadRequest, match="none of those"):
        edited(roster(*crossing()), "merge", [1, 3], to=2)


def test_both_parts_of_a_split_keep_what_was_said_of_the_whole() -> None:
    after, told = edited(roster(*crossing()), "split", [2], at=40)
    assert told == ("track 2, frames 40 to 100 → track 4, Person",)
    first, second = after.row(2), after.row(4)
    assert (first.region.id, first.spans, second.spans) == ("c", ((1, 39),), ((40, 100),))
    names = [one["id"] for one in after.results() if one["type"] == "choices"]
    assert sorted(names) == sorted(["c", second.region.id])
    assert (first.region.meta["human"], second.region.meta["human"]) == ([1], [70])
    assert (first.region.meta["ends"], second.region.meta["ends"]) == ([], [70])
    assert "points" in first.region.meta
    assert "points" not in second.region.meta
    for one in (first, second):
        assert not {"score", "iou", "interpolated"} & one.region.meta.keys(), "that was measured of the whole"
    # What a person has cut, no later answer replaces.
    assert not first.region.is_untouched
    assert not second.region.is_untouched
    assert [item.frame for item in second.items if item.is_human] == [40, 70]


def test_what_is_deleted_takes_its_notes_and_relations_along() -> None:
    related = {"type": "relation", "from_id": "a", "to_id": "c", "direction": "right"}
    after, told = edited(roster(*crossing(), related), "delete", [2])
    assert told == ("track 2, Person, frames 1 to 100: deleted", "1 relation to what is deleted goes with it")
    assert {one["id"] for one in after.results()} == {"a", "b"}


def test_relations_go_on_with_what_a_track_became_a_part_of() -> None:
    related = {"type": "relation", "from_id": "b", "to_id": "c"}
    after, _ = edited(roster(*crossing(), related), "merge", [1, 3])
    assert after.others == ({**related, "from_id": "a"},)


def test_every_track_keeps_its_number_from_the_first_change_on() -> None:
    by_hand = [drawn(keyframe(frame), id=name) for frame, name in ((1, "a"), (5, "b"), (9, "c"))]
    after, _ = edited(roster(*by_hand), "delete", [1])
    assert [one["meta"]["track_id"] for one in after.results()] == [2, 3]
    assert after.results()[0]["meta"]["text"] == ["track 2"]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"do": "paint", "tracks": [1]}, "do is one of rename"),
        ({"do": "delete", "tracks": [9]}, "there is no track 9: there are 1, 2, 3"),
        ({"do": "delete", "tracks": [1], "frames": [51, 59]}, "change nothing"),
        ({"do": "split", "tracks": [1], "at": 1}, "both sides of frame 1"),
        ({"do": "split", "tracks": [1], "at": 101}, "both sides"),
        ({"do": "split", "tracks": [1, 2], "at": 9}, "say one track"),
        ({"do": "renumber", "tracks": [1], "to": 1}, "change nothing"),
        ({"do": "merge", "tracks": [1]}, "at least two"),
    ],
)
def test_what_cannot_be_done_says_what_can(edit: dict, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        apply_edit(roster(*crossing()), Edit.parse(edit))


places = st.integers(1, FRAMES)
ranges = st.none() | st.tuples(places, places).map(sorted)
edits = st.one_of(
    st.fixed_dictionaries({"do": st.just("rename"), "label": st.just("Van"), "frames": ranges}),
    st.fixed_dictionaries({"do": st.just("renumber"), "to": st.integers(1, 6), "frames": ranges}),
    st.fixed_dictionaries({"do": st.just("merge")}),
    st.fixed_dictionaries({"do": st.just("split"), "at": places}),
    st.fixed_dictionaries({"do": st.just("delete"), "frames": ranges}),
)


@given(st.lists(regions(), min_size=1, max_size=4), edits, st.data())
def test_no_box_is_lost_but_what_is_deleted(results: list[dict], edit: dict, data: st.DataObject) -> None:
    before = roster(*results)
    numbers = [entry.number for entry in before.rows]
    tracks = data.draw(st.just("all") | st.lists(st.sampled_from(numbers), min_size=1, unique=True))
    try:
        after = apply_edit(before, Edit.parse({**edit, "tracks": tracks})).table
    except BadRequest:
        assume(False)
    chosen = [entry for entry in before.rows if tracks == "all" or entry.number in tracks]
    expected = boxes(before)
    if edit["do"] == "delete":
        first, last = edit["frames"] or (1, FRAMES)
        for frame, rows in boxes(before.with_rows(chosen, ())).items():
            if first <= frame <= last:
                for row in rows:
                    expected[frame].remove(row)
    shown = boxes(after)
    assert {frame: len(rows) for frame, rows in shown.items()} == {
        frame: len(rows) for frame, rows in expected.items() if rows
    }
    for frame, rows in shown.items():
        for row, other in zip(rows, expected[frame], strict=True):
            assert row == pytest.approx(other, abs=2e-3)
    assert len({entry.number for entry in after.rows}) == len({entry.region.id for entry in after.rows})
    # As it is kept it is read again, the same.
    entry = {"id": 1, "result": after.results()}
    again = TrackTable.from_annotation(ChosenAnnotation({"data": {}}, 7, "annotations", entry), before.controls)
    assert listed(again) == listed(after)
