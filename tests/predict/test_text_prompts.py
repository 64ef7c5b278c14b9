"""Words typed into Label Studio: what is found, what it is called, and what asking again does."""

import json
import threading
import time

import numpy as np
import pytest

from backend.labelstudio import keyframes
from backend.tracks.keyframe_selection import MAX_CHECKS, MAX_CHECKS_UNFINISHED, select_keyframes
from tests.fakes import FakeVideo, Gate, StubEngine, StubSession
from tests.predict.page import DATA, Page

ALWAYS = range(1000)
CARS = {"car": {"car 1": ALWAYS, "car 2": ALWAYS}}


@pytest.fixture
def page(make_service) -> Page:
    return Page(make_service(StubEngine(answering={**CARS, "person": {"person 1": range(20, 40)}})))


def test_every_object_becomes_a_region_of_its_phrases_class(page: Page) -> None:
    names = page.type("car, person")
    found = [page.regions[name] for name in names]
    assert [region["value"]["labels"] for region in found] == [["Car"], ["Car"], ["Person"]]
    assert [region["meta"]["track_id"] for region in found] == [1, 2, 3]
    assert {region["origin"] for region in found} == {"prediction"}
    assert page.frames(names[2]) == [21, 40]
    assert page.item(names[2], 40)["enabled"] is False
    assert page.told == "car: 2, person: 1"
    assert page.lines[0] == "car, person", "a person's own line is kept"


def test_all_looks_for_the_phrase_of_every_class(page: Page) -> None:
    assert len(page.type("all")) == 3
    assert page.told.startswith("car: 2, person: 1, ball: none")


def test_more_words_than_a_class_has_still_name_it(make_service) -> None:
    page = Page(make_service(StubEngine(answering={"red car": {"red car 1": ALWAYS}, "dog": {"dog 1": ALWAYS}})))
    (car,) = page.type("red car")
    assert page.regions[car]["value"]["labels"] == ["Car"]
    (dog,) = page.type("dog")
    assert "labels" not in page.regions[dog]["value"]
    assert "no class is called dog" in page.told


@pytest.mark.parametrize("is_saved", [True, False])
def test_asking_again_never_doubles(page: Page, is_saved: bool) -> None:
    first = page.type("car")
    before = json.dumps(page.regions)
    if is_saved:
        page.save()
    assert page.type("car") == []
    assert page.type("car, person") == page.type("car, person") + [name for name in page.regions if name not in first]
    assert json.dumps({name: page.regions[name] for name in first}) == before
    assert len(page.regions) == 3


def test_a_backend_that_knows_nothing_of_it_does_not_double_either(page: Page, make_service) -> None:
    page.type("car")
    page.save()
    page.service = make_service(StubEngine(answering=CARS))
    assert page.type("car") == []
    assert page.told == "car: 2 · 2 there already"


def test_what_a_person_deleted_stays_away_until_it_is_asked_for_anew(page: Page, monkeypatch) -> None:
    monkeypatch.setattr("backend.predict.response_cache._SAVE_SECONDS", 0.0)
    first, second = page.type("car")
    page.delete(first)
    page.save()
    assert page.type("car") == []
    assert page.type("car from 1 to 90") == []
    (again,) = page.type("car redo")
    assert again not in (first, second)


@pytest.mark.parametrize("is_submitted", [False, True])
def test_what_a_box_has_tracked_and_a_person_deleted_stays_away_from_words(
    make_service, monkeypatch, is_submitted: bool
) -> None:
    monkeypatch.setattr("backend.predict.response_cache._SAVE_SECONDS", 0.0)
    page = Page(make_service(StubEngine(step=0, answering=CARS)))
    # The stub finds the first car at 40 px: in percent of 640 x 360.
    (name,) = page.press(page.draw(x=40 / 6.4, y=120 / 3.6, width=30 / 6.4, height=30 / 3.6))
    page.save()
    page.type("unicorn at 1")
    page.delete(name)
    page.save()
    if is_submitted:
        page.draft += 1000
    assert len(page.type("car")) == 1
    assert page.told == "car: 2 · 1 deleted before: redo brings them back"
    page.save()
    assert len(page.type("car redo")) == 1


def test_a_human_region_survives_and_is_not_doubled(page: Page) -> None:
    # The stub finds the first car at 40 + 0 px: in percent of 640 x 360.
    human = page.draw(x=0, y=120 / 3.6, width=30 / 6.4, height=30 / 3.6)
    page.save()
    before = json.dumps(page.regions[human])
    assert len(page.type("car")) == 1
    assert page.told.startswith("car: 2 · 1 there already")
    assert json.dumps(page.regions[human]) == before


def test_an_edit_made_just_before_a_phrase_survives(page: Page) -> None:
    first, _ = page.type("car")
    page.save()
    page.drag(first, 50, y=70)  # not saved yet
    before = json.dumps(page.regions[first])
    page.type("car")
    page.type("car from 1 to 60")
    assert json.dumps(page.regions[first]) == before


def test_one_frame_first_then_the_run_goes_on_with_its_boxes(page: Page) -> None:
    looked = page.type("car at 30")
    assert [page.frames(name) for name in looked] == [[30], [30]]
    assert "on frame 30 only" in page.told
    assert page.type("car") == [], "they may have been edited since"
    assert "not saved by the page yet: ask again in five seconds" in page.told
    page.save()
    assert page.type("car") == looked
    assert all(page.frames(name)[0] == 1 and page.frames(name)[-1] == 100 for name in looked)
    assert all("at" not in page.regions[name]["meta"] for name in looked)
    assert page.type("car") == []


def test_a_box_of_one_frame_that_was_moved_is_not_replaced(page: Page) -> None:
    first, second = page.type("car at 30")
    page.drag(first, 30, x=1.5)
    page.save()
    assert page.type("car") == [second]
    assert page.told.startswith("car: 2 · 1 there already")


def test_t_tracks_a_box_of_one_frame(page: Page) -> None:
    first, _ = page.type("car at 30")
    assert page.press(first) == [first]
    assert page.frames(first)[-1] == 100
    assert "at" not in page.regions[first]["meta"]
    assert "partial" not in page.regions[first]["meta"]


def test_what_is_seen_for_a_moment_only_is_no_object(make_service) -> None:
    glimpsed = {"car": {"car 1": range(30, 32), "car 2": range(60, 63), "car 3": range(98, 100)}}
    page = Page(make_service(StubEngine(answering=glimpsed)))
    assert [page.frames(name) for name in page.type("car")] == [[61, 63], [99, 100]], "the last one may go on"
    assert page.told.startswith("car: 2")
    assert len(page.type("car at 31")) == 1, "nobody looked beside it"
    page = Page(make_service(StubEngine(answering=glimpsed), min_track_frames=1))
    assert len(page.type("car")) == 3


def test_a_moment_that_may_go_on_is_held_back_until_it_does(make_service) -> None:
    gate = Gate(31)
    engine = StubEngine(answering={"car": {"car 1": [30], "car 2": range(30, 90)}}, gate=gate)
    page = Page(make_service(engine, response_timeout=0.3))
    assert page.type("car") == []
    gate.open()
    page.service.scheduler.wait(page.service.scheduler.jobs(9), 30)
    assert [page.frames(name) for name in page.type("car")] == [[31, 90]]


def test_a_track_that_was_shown_and_came_to_nothing_says_so(make_service) -> None:
    gate = Gate(31)
    engine = StubEngine(answering={"car": {"car 1": [10, 20, 30]}}, gate=gate)
    page = Page(make_service(engine, response_timeout=0.3))
    (name,) = page.type("car")
    before = page.regions[name]["value"]
    assert page.frames(name) == [31], "it may go on"
    gate.open()
    page.service.scheduler.wait(page.service.scheduler.jobs(9), 30)
    assert page.press(name) == [name]
    assert page.regions[name]["value"] == before
    assert "partial" not in page.regions[name]["meta"]
    assert "not tracked: it was seen for a moment only" in page.regions[name]["meta"]["text"][-1]


@pytest.mark.slow
@pytest.mark.parametrize("rate", [25, 30, 50])
def test_a_frame_is_looked_at_whatever_rate_the_page_counts_with(make_service, monkeypatch, rate: float) -> None:
    monkeypatch.setitem(DATA, "fps", rate)
    for frame in (1, 2, 8, 9):
        page = Page(make_service(StubEngine(answering=CARS)))
        names = page.type(f"car at {frame}")
        assert len(names) == 2
        assert not np.isnan(page.shown(names[0], frame)[0])
    page = Page(make_service(StubEngine(answering=CARS)))
    assert {page.frames(name)[-1] for name in page.type("car")} == {4 * rate}


def test_a_last_picture_that_stays_is_tracked_to_its_end(make_service) -> None:
    video = FakeVideo(60)
    video.times = np.array([*np.arange(50) / 25, *(2 + 0.4 * np.arange(10))])
    video.end = video.duration = 6.0
    page = Page(make_service(StubEngine(answering=CARS), video))
    assert [page.frames(name)[-1] for name in page.type("car")] == [150, 150]


def test_a_range_is_all_that_is_looked_at(page: Page) -> None:
    names = page.type("car, person from 31 to 60")
    assert [page.frames(name) for name in names] == [[31, 60], [31, 60], [31, 40]]


def test_what_is_not_ready_comes_by_asking_again_under_the_same_ids(make_service) -> None:
    gate = Gate(50)
    page = Page(make_service(StubEngine(answering=CARS, gate=gate), response_timeout=0.3))
    first = page.type("car")
    assert len(first) == 2
    assert page.regions[first[0]]["meta"]["partial"] == {"done": 50, "total": 100}
    assert page.frames(first[0])[-1] == 50
    assert page.told == "car: 2 · still looking, 50 of 100 frames: ask again for more"
    gate.open()
    page.service.scheduler.wait(page.service.scheduler.jobs(9), 30)
    assert page.press(first[1]) == [first[1], first[0]], "one press brings everything"
    for name in first:
        assert page.frames(name)[-1] == 100
        assert "partial" not in page.regions[name]["meta"]
    page.save()
    assert page.type("car") == []


def test_the_fewest_keyframes_are_sought_when_nothing_is_missing_any_more(make_service, monkeypatch) -> None:
    efforts = []
    monkeypatch.setattr(
        keyframes, "select_keyframes", lambda *given: efforts.append(given[-1]) or select_keyframes(*given)
    )
    gate = Gate(50)
    page = Page(make_service(StubEngine(answering=CARS, gate=gate), response_timeout=0.3))
    page.type("car")
    page.press(page.draw(1))
    assert {*efforts} == {MAX_CHECKS_UNFINISHED}
    efforts.clear()
    gate.open()
    page.service.scheduler.wait(page.service.scheduler.jobs(9), 30)
    page.save()
    page.type("car")
    assert {*efforts} == {MAX_CHECKS}


def test_a_shorter_look_takes_nothing_away(make_service) -> None:
    gate = Gate(50)
    page = Page(make_service(StubEngine(answering=CARS, gate=gate), response_timeout=0.3))
    first = page.type("car")
    gate.until = 20
    page.type("car from 1 to 90")
    assert [page.frames(name)[-1] for name in first] == [50, 50]
    gate.open()


def test_a_later_question_cancels_none_and_brings_what_the_earlier_one_has_found_meanwhile(make_service) -> None:
    gate = Gate(5)
    engine = StubEngine(answering={**CARS, "person": {"person 1": ALWAYS}}, gate=gate)
    page = Page(make_service(engine, response_timeout=0.2))
    cars = page.type("car")
    page.save()
    assert page.type("person") == [], "the job of the cars is at work"
    gate.open()
    page.service.scheduler.wait(page.service.scheduler.jobs(9), 30)
    page.save()
    assert {*page.type("car at 30")} > {*cars}
    assert len(page.regions) == 3
    assert page.told.startswith("car: 2 · 2 there already")
    assert not any("partial" in region["meta"] for region in page.regions.values())


def test_the_answer_to_a_later_question_brings_what_the_one_that_it_overtakes_would_have(make_service) -> None:
    gate = Gate(5)
    page = Page(make_service(StubEngine(answering=CARS, gate=gate), response_timeout=10))
    page.type("unicorn at 1")
    box = page.draw(label="Car", x=70)
    page.save()
    apply, page.apply = page.apply, lambda predictions: answers.append(predictions) or []
    answers: list = []
    threads = [threading.Thread(target=page.type, args=("car",)), threading.Thread(target=page.press, args=(box,))]
    for count, thread in enumerate(threads, 2):
        thread.start()
        while len(page.service.scheduler.jobs(9)) < count:
            time.sleep(0.01)
    gate.open()
    for thread in threads:
        thread.join()
    (later,) = (answer for answer in answers if box in {one["id"] for one in answer[0]["result"]})
    assert len(apply(later)) == 3
    assert [page.frames(name)[-1] for name in page.regions] == [100, 100, 100]
    page.apply = apply
    assert page.type("car at 30") == []
    assert [page.frames(name)[-1] for name in page.regions] == [100, 100, 100]


def test_two_annotators_share_no_track(page: Page) -> None:
    other = Page(page.service)
    mine, theirs = page.type("car"), other.type("car")
    assert len(mine) == len(theirs) == 2
    assert not set(mine) & set(theirs)


def test_untouched_tracks_may_be_replaced_where_preserve_is_off(make_service) -> None:
    page = Page(make_service(StubEngine(answering=CARS), preserve=False))
    first, second = page.type("car")
    page.drag(first, 50, y=70)
    page.save()
    edited = json.dumps(page.regions[first])
    assert page.type("car redo") == [second]
    assert json.dumps(page.regions[first]) == edited


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("car,", "not done: a phrase is empty"),
        ("car from 9 to 3", "not done: from 9 to 3 contains no frame"),
        ("car at 400", "not done: there is no frame 400: the video has 100"),
        ("unicorn", "unicorn: none"),
    ],
)
def test_what_cannot_be_done_or_found_is_said_in_the_line(page: Page, line: str, sentence: str) -> None:
    assert page.type(line) == []
    assert page.told.startswith(sentence)
    page.type("person")
    assert page.told.startswith("person: 1"), "the next answer clears it"


def test_an_engine_without_words_says_so_in_the_line(make_service) -> None:
    page = Page(make_service(StubEngine(answering=None)))
    assert page.type("car") == []
    assert page.told == "not done: the stub knows no words"


def test_an_error_of_a_box_is_said_in_the_line_and_cleared_by_the_next_answer(page: Page) -> None:
    page.lines = ["my note"]
    page.save()
    name = page.draw(frame=200)
    page.press(name)
    assert page.told == "not tracked: there is no frame 200: the video has 100"
    page.save()
    page.delete(name)
    page.press(page.draw())
    assert page.lines == ["my note"]


def test_requests_of_many_threads_number_all_tracks_differently(make_service) -> None:
    service = make_service(StubEngine(answering=CARS))
    pages = [Page(service) for _ in range(8)]
    threads = [threading.Thread(target=page.type, args=("car",)) for page in pages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [region["meta"]["track_id"] for page in pages for region in page.regions.values()]
    assert sorted(numbers) == list(range(1, 17))


def test_an_answer_that_never_reached_the_page_is_given_again(page: Page, monkeypatch) -> None:
    monkeypatch.setattr("backend.predict.response_cache._SAVE_SECONDS", 0.0)
    apply, page.apply = page.apply, lambda predictions: []  # overtaken by another request, or the page was loaded again
    page.type("car")
    page.apply = apply
    assert len(page.type("car")) == 2
    page.save()
    assert page.type("car") == []


def test_of_two_requests_at_once_the_later_one_holds_everything(make_service) -> None:
    gate = Gate(20)
    page = Page(make_service(StubEngine(answering=CARS, gate=gate), response_timeout=10))
    apply, page.apply = page.apply, lambda predictions: answers.append(predictions) or []
    answers: list = []
    threads = [threading.Thread(target=page.type, args=("car",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    gate.open()
    for thread in threads:
        thread.join()
    # Label Studio drops the answer to the earlier request.
    assert len(apply(answers[0])) == len(apply(answers[1])) == 2
    assert len(page.regions) == 2


def test_a_shorter_look_that_has_ended_takes_nothing_away(make_service) -> None:
    gate = Gate(50)
    page = Page(make_service(StubEngine(answering=CARS, gate=gate), response_timeout=0.3))
    first = page.type("car")
    page.save()
    gate.open()
    page.type("car from 1 to 20")
    assert min(page.frames(name)[-1] for name in first) >= 50
    page.service.scheduler.wait(page.service.scheduler.jobs(9), 30)
    page.save()
    page.type("car")
    assert [page.frames(name)[-1] for name in first] == [100, 100]


def test_words_without_their_range_extend_what_they_found_in_it(page: Page) -> None:
    first = page.type("car from 5 to 20")
    page.save()
    assert page.type("car from 5 to 20") == []
    assert page.type("car from 10 to 60") == [], "frames 5 to 9 would be gone"
    assert [page.frames(name)[-1] for name in first] == [20, 20]
    page.save()
    assert sorted(page.type("car from 1 to 60")) == sorted(first)
    assert [page.frames(name)[-1] for name in first] == [60, 60]
    page.save()
    page.drag(first[0], 10, x=70)
    page.save()
    assert page.type("car") == first[1:], "a person has changed the other"
    assert page.frames(first[1])[-1] == 100
    page.save()
    assert page.type("car") == []


def test_a_persons_lines_outlive_a_box_that_is_asked_for_before_the_page_is_saved(page: Page) -> None:
    page.type("unicorn")
    page.save()
    page.type("person")
    page.press(page.draw(frame=200))
    assert [line for line in page.lines if not line.startswith("▶")] == ["person"]


def test_of_a_persons_questions_the_last_one_stays_and_notes_stay(page: Page) -> None:
    page.lines = ["my note"]
    for line in ("unicorn", "person", "person", "car at 500", "car"):
        page.type(line)
        assert page.lines[:-1] == ["my note", line]
        assert page.lines[-1].startswith("▶ ")
    page.save()
    page.press(page.draw(frame=200))
    assert page.lines[:-1] == ["my note", "car"]


def test_all_and_another_phrase_go_together(make_service) -> None:
    page = Page(make_service(StubEngine(answering={**CARS, "dog": {"dog 1": ALWAYS}})))
    assert len(page.type("all, dog")) == 3


def test_a_class_that_was_active_does_not_end_what_goes_on(make_service) -> None:
    gate = Gate(50)
    page = Page(make_service(StubEngine(answering=CARS, gate=gate), response_timeout=0.3))
    first = page.type("car")
    for name in first:
        page.regions[name]["value"]["labels"] = ["Person"]
    page.save()
    gate.open()
    assert page.type("car") == first
    assert [page.regions[name]["value"]["labels"] for name in first] == [["Person"], ["Person"]]


def identity(page: Page) -> dict[str, int]:
    """The number of each region."""
    return {name: region["meta"]["track_id"] for name, region in page.regions.items()}


@pytest.mark.parametrize("is_restarted", [True, False])
def test_a_phrase_that_is_added_leaves_ids_and_numbers_as_they_were(
    page: Page, make_service, is_restarted: bool
) -> None:
    page.type("car")
    page.save()
    first = identity(page)
    if is_restarted:
        page.service = make_service(StubEngine(answering={"person": {"person 1": range(20, 40)}, **CARS}))
        # The stub's boxes lie in the order of its words.
        page.service = make_service(StubEngine(answering={**CARS, "person": {"person 1": range(20, 40)}}))
    for line in ("person, car", "car", "car, person", "all"):
        page.type(line)
        page.save()
    assert first.items() <= identity(page).items()
    assert [number for name, number in identity(page).items() if name not in first] == [3]


def test_after_a_restart_unfinished_tracks_go_on_under_their_ids_and_numbers(make_service) -> None:
    gate = Gate(50)
    page = Page(make_service(StubEngine(answering=CARS, gate=gate), response_timeout=0.3))
    page.type("car")
    page.save()
    first = identity(page)
    gate.open()
    page.service = make_service(StubEngine(answering={**CARS, "person": {"person 1": range(20, 40)}}))
    page.type("person, car")
    assert all(page.frames(name)[-1] == 100 for name in first)
    assert first.items() <= identity(page).items()
    assert len(page.regions) == 3


def test_what_no_saved_page_has_shown_keeps_its_identity_when_a_phrase_is_added(page: Page, monkeypatch) -> None:
    monkeypatch.setattr("backend.predict.response_cache._SAVE_SECONDS", 0.0)
    page.type("car")
    first = identity(page)
    page.type("person, car")
    assert first.items() <= identity(page).items()
    assert len(page.regions) == 3


def test_an_object_that_another_phrase_names_too_is_not_doubled(make_service) -> None:
    page = Page(make_service(StubEngine(answering=CARS)))
    page.type("car at 30")
    page.save()
    twice = StubEngine(answering={"car": {"car 1": ALWAYS}})
    twice.open = lambda video, state=None: Twice(twice, state)
    page.service = make_service(twice)
    page.type("car")
    assert len(page.regions) == 2


class Twice(StubSession):
    """Finds each object a second time."""

    def _found(self, frame: int, reverse: bool) -> dict:
        found = super()._found(frame, reverse)
        return found | {f"{name} again": one for name, one in found.items()}
