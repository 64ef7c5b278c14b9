"""Clicks on the strip of frames: one object's make one track, which more of them refine."""

import json

import pytest

from backend.tracks.prompts import Point
from tests.fakes import Gate, StubEngine
from tests.predict.page import Page


@pytest.fixture
def engine() -> StubEngine:
    return StubEngine()


@pytest.fixture
def page(make_service, engine: StubEngine) -> Page:
    return Page(make_service(engine))


def test_a_click_becomes_a_track_and_the_next_one_refines_it(page: Page, engine: StubEngine) -> None:
    (name,) = page.click(2, 25, 50)
    region = page.regions[name]
    assert (region["from_name"], region["to_name"], region["origin"]) == ("box", "video", "prediction")
    assert "labels" not in region["value"]
    assert region["meta"]["text"][-1].endswith("no class: select it and press a class key")
    assert (page.frames(name)[0], page.frames(name)[-1]) == (21, 100)
    assert [*engine.prompted[-1].points] == [Point(160, 180)]
    assert engine.prompted[-1].frame == 20
    assert page.click(2, 60, 60, positive=False) == [name]
    assert engine.prompted[-1].points == (Point(160, 180), Point(384, 216, positive=False))
    assert len(page.regions) == 1


FOUND = {"car": {}, "person": {"person 1": [20]}, "ball": {"ball 1": [20]}}


def test_an_object_clicked_without_a_class_gets_that_whose_phrase_finds_it(make_service) -> None:
    page = Page(make_service(StubEngine(answering=FOUND)))
    # The stub finds the person in the left 30 px, the ball 10 px beside it, both 120 px from the top and 30 px high.
    (name,) = page.click(2, 15 / 6.4, 135 / 3.6)
    assert page.regions[name]["value"]["labels"] == ["Person"]
    assert page.regions[name]["meta"]["text"][-1].endswith("no class was set: check its label")
    assert [job.row.spec.kind for job in page.service.scheduler.jobs(9)] == ["clicks", "class"]
    page.regions[name]["value"]["labels"] = ["Ball"]
    page.save()
    page.click(2, 16 / 6.4, 135 / 3.6)
    assert page.regions[name]["value"]["labels"] == ["Ball"], "a person's class stays"
    assert len(page.service.scheduler.jobs(9)) == 3, "and nothing is searched for"


def test_a_class_that_no_phrase_finds_where_it_was_clicked_is_left_to_the_annotator(make_service) -> None:
    page = Page(make_service(StubEngine(answering=FOUND)))
    page.type("unicorn at 1")
    page.save()
    (name,) = page.click(2, 80, 80)
    assert "labels" not in page.regions[name]["value"]
    assert page.told == "object 1 has no class: select its box and press a class key"
    page.regions[name]["value"]["labels"] = ["Ball"]
    assert page.press(name) == [name]
    assert page.told == ""


def test_clicks_on_several_frames_meet_in_between(page: Page) -> None:
    page.click(0, 25, 50)
    (name,) = page.click(5, 75, 50)
    # 20 px round each click; the stub moves a pixel a frame.
    assert page.item(name, 1)["x"] == pytest.approx(25 - 20 / 6.4, abs=1e-4)
    assert page.frames(name)[-1] == 100
    assert page.shown(name, 51)[0] == pytest.approx(75 - 20 / 6.4, abs=0.2)


def test_a_gap_in_which_a_person_has_clicked_stays(make_service) -> None:
    page = Page(make_service(StubEngine(seen=lambda frame: frame not in (50, 51))))
    (name,) = page.click(0, 25, 50)
    assert page.frames(name) == [1, 100], "bridged"
    page.click(5, 60, 60, positive=False)
    assert page.frames(name) == [1, 50, 53, 100]


def test_a_clicked_frame_is_no_ghost(make_service) -> None:
    page = Page(make_service(StubEngine(seen=lambda frame: frame == 50)))
    assert [page.frames(name) for name in page.click(5, 25, 50)] == [[51]]


def test_each_label_is_an_object_and_two_annotators_share_none(page: Page) -> None:
    names = {*page.click(0, 25, 50), *page.click(0, 70, 50, label="object 2")}
    assert len(names) == 2
    assert {page.regions[name]["meta"]["track_id"] for name in names} == {1, 2}
    other = Page(page.service)
    assert not names & {*other.click(0, 25, 50)}
    numbers = {name: page.regions[name]["meta"]["track_id"] for name in names}
    assert {*page.click(0, 72, 50, label="object 2"), *page.click(0, 27, 50)} == names
    assert {name: page.regions[name]["meta"]["track_id"] for name in names} == numbers, "a refined one keeps its number"


def test_what_was_negative_is_remembered_after_the_page_is_loaded_again(page: Page, engine: StubEngine) -> None:
    page.click(0, 25, 50)
    page.click(0, 60, 60, positive=False)
    page.reload()
    page.click(0, 30, 50)
    assert [point.positive for point in engine.prompted[-1].points] == [True, False, True]


def test_what_was_negative_is_known_to_a_backend_that_never_saw_it(page: Page, make_service) -> None:
    page.click(0, 25, 50)
    (name,) = page.click(0, 60, 60, positive=False)
    page.reload()
    engine = StubEngine()
    page.service = make_service(engine)
    assert page.click(0, 30, 50) == [name]
    assert [point.positive for point in engine.prompted[-1].points] == [True, False, True]


def test_the_track_stays_the_same_when_its_first_point_is_deleted(page: Page) -> None:
    (name,) = page.click(0, 25, 50)
    page.click(0, 60, 60, positive=False)
    del page.points[next(iter(page.points))]
    assert page.click(0, 26, 50) == [name]


def test_negative_clicks_of_another_frame_come_after_what_they_are_about(page: Page, engine: StubEngine) -> None:
    page.click(5, 25, 50)
    engine.prompted.clear()
    page.click(0, 60, 60, positive=False)
    assert [(prompt.frame, prompt.is_negative) for prompt in engine.prompted] == [(50, False), (0, True)]


def test_a_persons_keyframe_and_class_come_through_a_further_click(page: Page) -> None:
    (name,) = page.click(0, 25, 50)
    page.drag(name, 60, y=70.125)
    page.regions[name]["value"]["labels"] = ["Person"]
    page.save()
    (again,) = page.click(2, 26, 50)
    assert again == name
    assert page.item(name, 60) | {"y": 70.125, "human": True} == page.item(name, 60)
    assert page.regions[name]["value"]["labels"] == ["Person"]
    assert page.regions[name]["meta"]["human"] == [60]


def test_what_is_not_ready_comes_with_t_or_the_next_click(make_service) -> None:
    gate = Gate(50)
    page = Page(make_service(StubEngine(gate=gate), response_timeout=0.3))
    (name,) = page.click(0, 25, 50)
    assert page.regions[name]["meta"]["partial"] == {"done": 50, "total": 100}
    gate.open()
    assert page.press(name) == [name]
    assert page.frames(name)[-1] == 100
    assert page.regions[name]["meta"]["points"] == {next(iter(page.points)): [1, 25, 50, True]}


def test_of_what_nothing_is_there_yet_the_line_tells(make_service) -> None:
    gate = Gate(0)
    page = Page(make_service(StubEngine(gate=gate), response_timeout=0.1))
    assert page.click(0, 25, 50) == []
    assert page.told == "object 1: 0 of 100 frames so far, click once more for the rest"
    gate.open()
    page.save()
    assert len(page.click(0, 26, 50)) == 1
    assert page.told == "object 1 has no class: select its box and press a class key"


def test_a_later_click_cancels_the_work_of_the_earlier_one(make_service) -> None:
    gate = Gate(5)
    page = Page(make_service(StubEngine(gate=gate), response_timeout=0.3))
    (name,) = page.click(0, 25, 50)
    old = page.service.scheduler.newest(("7", "region", name))
    page.click(0, 60, 60, positive=False)
    assert old.is_cancelled
    gate.open()


def test_a_task_that_lacks_frame_numbers_says_so_in_the_line(page: Page, monkeypatch) -> None:
    monkeypatch.setitem(__import__("tests.predict.page", fromlist=["DATA"]).DATA, "frame_numbers", None)
    assert page.click(0, 25, 50) == []
    assert "run sam3-backend project prepare" in page.told


def test_a_track_of_clicks_is_kept_whole_by_t_and_corrected_by_dragging(page: Page) -> None:
    (name,) = page.click(0, 25, 50)
    before = json.dumps(page.regions[name]["value"]["sequence"])
    page.press(name)
    assert json.dumps(page.regions[name]["value"]["sequence"]) == before
    page.drag(name, 50, y=80)
    page.press(name)
    assert page.item(name, 50)["y"] == 80
    assert page.regions[name]["meta"]["human"] == [50]


def test_a_box_that_corrects_what_clicks_have_made_leaves_the_clicked_frames_where_they_were(page: Page) -> None:
    (name,) = page.click(0, 25, 50)
    page.drag(name, 61, x=60)
    page.press(name)
    assert page.shown(name, 1)[0] == pytest.approx(25 - 20 / 6.4, abs=1e-4)
    assert page.shown(name, 61)[0] == 60


def test_a_further_click_keeps_the_frames_before_that_were_tracked(page: Page) -> None:
    (name,) = page.click(5, 50, 50)
    page.command(name, "back")
    assert page.frames(name)[0] == 1
    page.save()
    page.click(5, 51, 50)
    assert page.frames(name)[0] == 1


def test_a_click_that_cannot_be_done_returns_nothing_that_was_edited(page: Page, engine: StubEngine) -> None:
    (name,) = page.click(0, 25, 50)
    page.save()
    page.drag(name, 50, y=77)
    engine.status = "failed: set model_path"
    assert page.click(0, 26, 50) == []
    assert page.item(name, 50)["y"] == 77
    assert page.told == "not tracked: set model_path"


def test_a_point_that_gets_another_label_is_of_another_object(page: Page) -> None:
    (first,) = page.click(0, 25, 50)
    page.click(0, 26, 50)
    moved = next(iter(page.points.values()))
    moved["value"] |= {"labels": ["object 2"], "keypointlabels": ["object 2"]}
    page.save()
    (second,) = page.ask_points("object 2")
    assert second != first
    assert page.ask_points("object 1") == [first]
