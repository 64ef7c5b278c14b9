"""What is typed into a region's own line."""

import json

import numpy as np
import pytest

from backend.labelstudio.keyframe import mark_as_ours, parse_keyframes
from backend.settings import KeyframeSettings
from tests.fakes import Gate, StubEngine
from tests.labelstudio.bodies import keyframe
from tests.predict.page import Page


@pytest.fixture
def page(make_service) -> Page:
    return Page(make_service(StubEngine()))


def shown(page: Page, name: str) -> tuple[int, int]:
    """First and last LS frame on which the page shows the region."""
    return page.frames(name)[0], page.frames(name)[-1]


@pytest.mark.parametrize(
    ("line", "frames"),
    [
        ("back", (1, 50)),
        ("both", (1, 100)),
        ("to 60", (40, 60)),
        ("from 30 to 60", (40, 60)),
        ("20 frames", (40, 60)),
    ],
)
def test_where_a_new_box_goes(page: Page, line: str, frames: tuple[int, int]) -> None:
    name = page.draw(frame=40)
    assert page.command(name, line) == [name]
    first, last = shown(page, name)
    assert first == frames[0]
    assert last == (41 if line == "back" else frames[1])
    assert page.item(name, 40)["human"] is True
    assert len(page.answered) == 1, "the line is cleared: no text comes back"


def test_back_adds_the_frames_before_and_keeps_those_after(page: Page) -> None:
    name = page.draw(frame=40)
    page.press(name)
    after = [item for item in page.regions[name]["value"]["sequence"] if item["frame"] >= 40]
    page.command(name, "back")
    assert page.frames(name)[0] == 1
    assert [item for item in page.regions[name]["value"]["sequence"] if item["frame"] >= 40] == after


def test_a_range_is_made_anew_and_all_else_stays(page: Page) -> None:
    name = page.draw()
    page.press(name)
    before = page.regions[name]["value"]["sequence"]
    page.service.engine.frames.clear()
    page.command(name, "from 30 to 50")
    sequence = page.regions[name]["value"]["sequence"]
    assert before[0] == sequence[0]
    assert before[-1] == sequence[-1]
    for frame in (2, 29, 51, 99):
        assert page.shown(name, frame)[0] == pytest.approx(10 + (frame - 1) / 6.4, abs=1e-3)
    assert {*page.service.engine.frames} == {*range(28, 51)}, "from the frame before to the frame after, both ways"
    assert page.regions[name]["meta"]["human"] == [1]


def test_a_correction_within_a_range_changes_nothing_outside(page: Page) -> None:
    name = page.draw()
    page.press(name)
    last = page.regions[name]["value"]["sequence"][-1]
    page.drag(name, 50, y=70)
    page.command(name, "from 40 to 60")
    assert page.item(name, 50)["y"] == 70
    assert page.shown(name, 39)[1] == pytest.approx(20)
    assert page.shown(name, 61)[1] == pytest.approx(20)
    assert page.shown(name, 49)[1] == pytest.approx(70, abs=1)
    assert page.regions[name]["value"]["sequence"][-1] == last


def test_a_range_beside_a_gap_is_not_bridged_to_what_it_did_not_ask_for(make_service) -> None:
    page = Page(make_service(StubEngine(answering={"car": {"car 1": [0, 1, *range(20, 60)]}})))
    (name,) = page.type("car")
    assert page.frames(name) == [1, 2, 21, 60]
    page.command(name, "from 4 to 10")
    seen = [frame for frame in range(1, 25) if not np.isnan(page.shown(name, frame)[0])]
    assert seen == [1, 2, *range(4, 11), 21, 22, 23, 24]


def test_what_is_seen_on_the_last_frame_that_may_be_gone_to_stays(make_service) -> None:
    engine = StubEngine(seen=lambda frame: frame not in range(20, 30))
    page = Page(make_service(engine, max_frames=30))
    name = page.draw(1)
    page.press(name)
    assert page.frames(name) == [1, 20, 31]
    page = Page(make_service(engine))
    name = page.draw(1)
    page.command(name, "30 frames")
    assert page.frames(name) == [1, 20, 31]


def test_what_stays_keeps_the_bound_that_it_kept(page: Page) -> None:
    name = page.draw(1)
    page.press(name)
    page.regions[name]["meta"]["iou"] = 0.91
    page.drag(name, 50, x=40)
    page.press(name)
    assert page.regions[name]["meta"]["iou"] == 1.0, "all was made anew"
    page.regions[name]["meta"]["iou"] = 0.91
    page.drag(name, 80, x=60)
    page.press(name)
    assert page.regions[name]["meta"]["iou"] == 0.91, "what is before frame 50 was not"


def test_what_is_still_to_come_keeps_its_keyframes_however_often_it_is_asked_for(make_service) -> None:
    gate, jitter = Gate(0), np.random.default_rng(3).normal(0, 2.5, 1000)
    engine = StubEngine(step=0, gate=gate)
    page = Page(make_service(engine, response_timeout=0.2, keyframes=KeyframeSettings(px=0)))
    name = page.draw(1, x=20)
    rows = [keyframe(frame, x=float(round(20 + jitter[frame], 4))) for frame in range(2, 101, 7)]
    rows[-1]["enabled"] = False
    page.regions[name]["value"]["sequence"] += [mark_as_ours(one).to_json(25) for one in parse_keyframes(rows)]
    page.regions[name] |= {"origin": "prediction", "meta": {}}
    before = page.regions[name]["value"]["sequence"][1:]
    for until in (10, 11, 12):
        gate.open(until)
        page.command(name, "redo") if until == 10 else page.press(name)
        assert page.regions[name]["meta"]["partial"]["done"] <= until
        kept = [(one["frame"], one["fp"]) for one in page.regions[name]["value"]["sequence"] if one["frame"] > 20]
        assert kept == [(one["frame"], one["fp"]) for one in before if one["frame"] > 20]
    gate.open()


def test_stop_keeps_what_is_there(make_service) -> None:
    gate = Gate(30)
    page = Page(make_service(StubEngine(gate=gate), response_timeout=0.2))
    name = page.draw()
    page.press(name)
    assert page.command(name, "stop") == [name]
    gate.open()
    job = page.service.scheduler.newest(("7", "region", name))
    assert job.is_cancelled
    assert page.frames(name)[-1] == 30
    assert page.regions[name]["meta"]["partial"]["done"] == 30
    assert "stopped after 30 of 100 frames, press t to go on" in page.regions[name]["meta"]["text"][-1]
    page.service.scheduler.wait([job], 10)
    page.press(name)
    page.press(name)
    assert page.frames(name)[-1] == 100


def test_redo_tracks_a_finished_one_anew(page: Page) -> None:
    name = page.draw()
    page.press(name)
    count = len(page.service.engine.frames)
    page.press(name)
    assert len(page.service.engine.frames) == count
    page.service.engine.step = 2
    page.command(name, "redo")
    assert page.regions[name]["value"]["sequence"][-1]["x"] == pytest.approx(10 + 2 * 99 / 6.4, abs=1e-3)
    page.service.engine.step = 3
    page.command(name, "redo")
    assert page.regions[name]["value"]["sequence"][-1]["x"] == pytest.approx(10 + 3 * 99 / 6.4, abs=1e-3)


def test_words_that_are_none_are_answered_in_the_region_and_change_nothing(page: Page) -> None:
    name = page.draw()
    page.press(name)
    before = json.dumps(page.regions[name]["value"])
    assert page.command(name, "faster please") == [name]
    assert json.dumps(page.regions[name]["value"]) == before
    assert page.regions[name]["meta"]["text"][-1] == (
        'not tracked: "faster please" is not a command; use one of: '
        "back · both · to B · from A to B · N frames · end N · resume · stop · redo · like · like WORDS · unlike"
    )
    assert page.told == ""
    page.press(name)
    assert page.regions[name]["meta"]["text"] == ["track 1 · stub · 0.90"]


def test_a_found_track_takes_commands_too(make_service) -> None:
    page = Page(make_service(StubEngine(answering={"car": {"car 1": range(30, 1000)}})))
    (name,) = page.type("car")
    assert page.frames(name)[0] == 31
    page.command(name, "back")
    assert page.frames(name)[0] == 1


def test_stop_changes_nothing_of_what_is_finished_or_of_another_backend(page: Page, make_service) -> None:
    name = page.draw()
    page.press(name)
    page.drag(name, 100, y=70)
    before = json.dumps(page.regions[name]["value"]["sequence"])
    page.command(name, "stop")
    assert json.dumps(page.regions[name]["value"]["sequence"]) == before
    page.service = make_service(StubEngine())
    page.drag(name, 50, y=60)
    before = json.dumps(page.regions[name]["value"]["sequence"])
    page.command(name, "stop")
    assert json.dumps(page.regions[name]["value"]["sequence"]) == before
    page.press(name)
    assert page.shown(name, 49)[1] == pytest.approx(60, abs=0.5)


def test_a_box_that_was_stopped_before_it_was_tracked_is_tracked_by_t(page: Page) -> None:
    name = page.draw()
    page.command(name, "stop")
    assert page.frames(name) == [1]
    page.press(name)
    assert page.frames(name)[-1] == 100


@pytest.mark.parametrize(("line", "there", "gone"), [("back", 1, 60), ("to 90", 90, 91), ("from 50 to 90", 90, 91)])
def test_t_brings_the_rest_of_what_a_command_asked_for(make_service, line: str, there: int, gone: int) -> None:
    gate = Gate(45)
    page = Page(make_service(StubEngine(gate=gate), response_timeout=0.2))
    name = page.draw(frame=41)
    gate.until = 45 if line != "back" else 0
    page.command(name, line)
    assert "partial" in page.regions[name]["meta"]
    gate.open()
    page.press(name)
    assert "partial" not in page.regions[name]["meta"]
    assert not np.isnan(page.shown(name, there)[0])
    assert np.isnan(page.shown(name, gone)[0])


def test_a_long_redo_ends(make_service) -> None:
    gate = Gate(1000)
    page = Page(make_service(StubEngine(gate=gate), response_timeout=0.2))
    name = page.draw()
    page.press(name)
    gate.until = 50
    page.command(name, "redo")
    assert page.regions[name]["meta"]["partial"] == {"done": 50, "total": 100}
    sessions = page.service.engine.sessions
    gate.open()
    page.command(name, "redo")
    assert "partial" not in page.regions[name]["meta"]
    assert page.service.engine.sessions == sessions


def test_a_word_that_is_no_command_asks_for_nothing_later(page: Page) -> None:
    first, second = page.draw(), page.draw(x=50)
    page.press(first)
    page.command(first, "sideways")
    page.drag(first, 50, y=70)
    assert page.press(second) == [second]


def test_end_cuts_a_track_and_resume_tracks_on(page: Page) -> None:
    name = page.draw()
    page.press(name)
    before = {frame: page.shown(name, frame) for frame in (1, 30, 62)}
    page.command(name, "end 62")
    assert {frame: page.shown(name, frame) for frame in before} == pytest.approx(
        {frame: pytest.approx(box, abs=1e-4) for frame, box in before.items()}
    )
    assert np.isnan(page.shown(name, 63)[0])
    frames = len(page.service.engine.frames)
    page.press(name)
    assert np.isnan(page.shown(name, 63)[0])
    assert len(page.service.engine.frames) == frames
    page.command(name, "resume")
    assert page.shown(name, 100)[0] == pytest.approx(10 + 99 / 6.4, abs=0.5)
    assert page.shown(name, 30) == pytest.approx(before[30], abs=1e-4)


def test_end_of_a_new_box_tracks_up_to_there(page: Page) -> None:
    name = page.draw()
    page.command(name, "end 20")
    assert shown(page, name) == (1, 20)
    assert np.isnan(page.shown(name, 21)[0])


def test_end_without_a_frame_is_where_a_person_set_a_keyframe(page: Page) -> None:
    name = page.draw()
    page.press(name)
    page.drag(name, 40, x=30)
    page.command(name, "end")
    assert page.shown(name, 40)[0] == pytest.approx(30)
    assert page.shown(name, 39)[0] == pytest.approx(30 - 1 / 6.4, abs=0.5)
    assert np.isnan(page.shown(name, 41)[0])


@pytest.mark.parametrize(("line", "reason"), [("end", "the frame is missing"), ("end 3", "begins on frame 5")])
def test_an_end_that_cannot_be_is_said(page: Page, line: str, reason: str) -> None:
    name = page.draw(frame=5)
    page.press(name)
    page.command(name, line)
    assert reason in page.regions[name]["meta"]["text"][-1]
    assert page.frames(name)[-1] == 100
