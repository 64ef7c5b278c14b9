"""The story of a request, told with a stub engine: what is asked for, what comes back, and what is left alone."""

import itertools
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.errors import BadRequest, BadVideo, Busy, SettingsError
from backend.jobs.worker_pool import WorkerPool
from backend.labelstudio.keyframe import Keyframe, parse_keyframes
from backend.labelstudio.media import MediaCache
from backend.service import Service
from backend.settings import KeyframeSettings, Limits, Settings
from backend.tracks.track import Observation
from backend.video import Video
from backend.worker_settings import RaySettings
from tests.fakes import FakeVideo, Gate, StubEngine, StubSession, fake_path, thread_worker
from tests.labelstudio.bodies import asked_again, body, drawn, keyframe, moved
from tests.labelstudio.test_keyframes import shown
from tests.stub_service import StubService


def predict(service: Service, request: dict[str, Any]) -> list[dict[str, Any]]:
    """The regions of the answer, after both bodies went through JSON."""
    request = json.loads(json.dumps(request))
    context = request["params"]["context"]
    predictions = service.predict(request["tasks"], context, request["label_config"], request["project"])
    return json.loads(json.dumps(predictions))[0]["result"] if predictions else []


def parse_items(region: dict[str, Any]) -> tuple[Keyframe, ...]:
    return parse_keyframes(region["value"]["sequence"])


def frames(region: dict[str, Any]) -> list[int]:
    return [item["frame"] for item in region["value"]["sequence"]]


def item(region: dict[str, Any], frame: int) -> dict[str, Any]:
    return next(item for item in region["value"]["sequence"] if item["frame"] == frame)


def test_a_box_comes_back_as_a_track_under_its_own_id(make_service) -> None:
    prompt = drawn(keyframe(1))
    (region,) = predict(make_service(), body(prompt))
    assert (region["id"], region["type"], region["origin"]) == (prompt["id"], "videorectangle", "prediction")
    assert region["value"]["labels"] == ["Car"]
    assert (region["value"]["framesCount"], region["value"]["duration"]) == (100, 4)
    assert {key: item(region, 1)[key] for key in prompt["value"]["sequence"][0]} == prompt["value"]["sequence"][0]
    # The stub moves one pixel of 640 a frame: 99 pixels until the last of 100 frames.
    last = region["value"]["sequence"][-1]
    assert (last["frame"], last["enabled"]) == (100, False)
    assert last["x"] == pytest.approx(10 + 99 / 6.40, abs=1e-4)
    assert region["meta"]["track_id"] == 1
    assert region["score"] == pytest.approx(0.9)


def test_a_model_that_failed_fetches_no_video_and_what_is_finished_is_answered(make_service, monkeypatch) -> None:
    (first,) = predict(make_service(), body(drawn(keyframe(1))))
    service = make_service(StubEngine(status="failed: set model_path"))
    while not service.status.startswith("failed"):
        time.sleep(0.01)
    monkeypatch.setattr("backend.labelstudio.media.MediaCache.fetch", lambda *_: pytest.fail("a video was fetched"))
    with pytest.raises(SettingsError, match=r"^set model_path$"):
        predict(service, body(drawn(keyframe(1))))
    (again,) = predict(service, body(asked_again(first)))
    assert again["value"]["sequence"] == first["value"]["sequence"]


def test_a_model_that_fails_while_a_request_waits_answers_with_its_error(make_service, monkeypatch) -> None:
    engine = StubEngine()
    service = make_service(engine)

    def failing(*_: object) -> None:
        raise SettingsError("set model_path")

    monkeypatch.setattr(engine, "open", failing)
    with pytest.raises(SettingsError, match="set model_path"):
        predict(service, body(drawn(keyframe(1))))


def test_nothing_else_of_the_request_is_returned(make_service) -> None:
    service = make_service()
    (first,) = predict(service, body(drawn(keyframe(1), id="first")))
    draft = {"result": [drawn(keyframe(5), id="draft")]}
    answered = predict(service, body(first, drawn(keyframe(3), id="second"), drafts=[draft]))
    assert [region["id"] for region in answered] == ["second"]
    assert answered[0]["meta"]["track_id"] == 2


def test_several_boxes_come_back_as_several_tracks(make_service) -> None:
    answered = predict(make_service(), body(*(drawn(keyframe(1, x=at), id=f"r{at}") for at in (5, 30, 60))))
    assert [(region["id"], region["meta"]["track_id"]) for region in answered] == [("r5", 1), ("r30", 2), ("r60", 3)]


def test_a_finished_track_is_answered_as_it_is_by_any_backend(make_service) -> None:
    engine = StubEngine()
    (first,) = predict(make_service(), body(drawn(keyframe(1))))
    (again,) = predict(make_service(engine), body(asked_again(first)))
    assert again["value"]["sequence"] == first["value"]["sequence"]
    assert again["meta"] == first["meta"]
    assert engine.frames == []


def test_a_correction_is_followed_on_both_sides_and_nothing_beyond_changes(make_service) -> None:
    service = make_service()
    (first,) = predict(service, body(drawn(keyframe(1), keyframe(60, x=40))))
    (second,) = predict(service, body(asked_again(moved(first, 30, y=50))))
    beyond = [item for item in first["value"]["sequence"] if item["frame"] >= 60]
    assert [item for item in second["value"]["sequence"] if item["frame"] >= 60] == beyond
    assert item(second, 30)["human"] is True
    assert item(second, 30)["y"] == 50
    items = list(parse_keyframes(second["value"]["sequence"]))
    assert shown(items, 31)[1] == pytest.approx(50, abs=0.5)
    assert shown(items, 29)[1] == pytest.approx(50, abs=0.5)
    assert shown(items, 2)[1] == pytest.approx(20, abs=0.5)
    assert second["meta"]["human"] == [1, 30, 60]


def test_switching_a_finished_track_off_ends_it_there_without_tracking(make_service) -> None:
    engine = StubEngine(step=0, seen=lambda frame: not 39 <= frame < 60)
    service = make_service(engine)
    (region,) = predict(service, body(drawn(keyframe(1), keyframe(20))))
    count = len(engine.frames)
    switched = json.loads(json.dumps(region))
    item(switched, 20)["enabled"] = False
    (region,) = predict(service, body(asked_again(switched)))
    assert [(one["frame"], one["enabled"]) for one in region["value"]["sequence"]][-1] == (20, False)
    assert len(engine.frames) == count
    (again,) = predict(service, body(asked_again(region)))
    assert again["value"]["sequence"] == region["value"]["sequence"]


def test_a_deleted_correction_is_tracked_over_and_a_deleted_keyframe_of_ours_stays_away(make_service) -> None:
    service = make_service(StubEngine(step=3))
    (region,) = predict(service, body(drawn(keyframe(1), keyframe(40, y=60), keyframe(80))))
    sequence = region["value"]["sequence"]
    region["value"]["sequence"] = [one for one in sequence if one["frame"] != 40]
    (mended,) = predict(service, body(asked_again(region)))
    assert mended["meta"]["human"] == [1, 80]
    assert shown(list(parse_items(mended)), 40)[1] == pytest.approx(20, abs=0.5)
    gone = next(one["frame"] for one in mended["value"]["sequence"] if one["frame"] > 81)
    mended["value"]["sequence"] = [one for one in mended["value"]["sequence"] if one["frame"] != gone]
    (still,) = predict(make_service(), body(asked_again(mended)))
    assert gone not in frames(still)


def test_a_lost_object_is_hidden_and_shown_again(make_service) -> None:
    engine = StubEngine(step=0, seen=lambda frame: not 39 <= frame < 60)
    (region,) = predict(make_service(engine), body(drawn(keyframe(1))))
    assert [(item["frame"], item["enabled"]) for item in region["value"]["sequence"]] == [
        (1, True),
        (39, False),
        (61, True),
        (100, False),
    ]


def test_an_unlabelled_box_gets_the_first_class_and_never_the_commands(make_service) -> None:
    (region,) = predict(make_service(), body(drawn(keyframe(1), labels=("track (t)",))))
    assert region["value"]["labels"] == ["Car"]


def test_at_another_framerate_every_shown_frame_has_the_box_of_its_picture(make_service) -> None:
    service = make_service(StubEngine(step=2), FakeVideo(count=100, rate=25))
    prompt = drawn(keyframe(1, time=1 / 50))
    prompt["value"]["framesCount"] = 200
    (region,) = predict(service, body(prompt, data={"video": "/data/upload/1/clip.mp4", "fps": 50}))
    items = list(parse_keyframes(region["value"]["sequence"]))
    assert items[-1].frame == 200
    for frame in range(2, 201):
        want = 10 + (frame - 1) // 2 * 2 / 6.4
        assert abs(shown(items, frame)[0] - want) < 12 * 0.06  # IoU 0.95 of a box 12 % wide


# --- waiting --------------------------------------------------------------------------------------------------------


def test_what_is_not_ready_is_answered_in_part_and_the_rest_by_asking_again(make_service) -> None:
    gate = Gate(until=30)
    engine = StubEngine(gate=gate)
    service = make_service(engine, response_timeout=0.5)
    (part,) = predict(service, body(drawn(keyframe(1))))
    assert part["meta"]["partial"] == {"done": 30, "total": 100}
    assert (part["value"]["sequence"][-1]["frame"], part["value"]["sequence"][-1]["enabled"]) == (30, False)
    gate.open()
    (whole,) = predict(service, body(asked_again(part)))
    assert whole["id"] == part["id"]
    assert "partial" not in whole["meta"]
    assert whole["value"]["sequence"][-1]["frame"] == 100
    assert engine.frames == list(range(100))  # joined, not begun again


def test_an_unfinished_track_is_finished_by_a_backend_that_never_saw_it(make_service) -> None:
    gate = Gate(until=30)
    (part,) = predict(make_service(StubEngine(gate=gate), response_timeout=0.3), body(drawn(keyframe(1))))
    gate.open()
    (whole,) = predict(make_service(), body(asked_again(part)))
    (undisturbed,) = predict(make_service(), body(drawn(keyframe(1))))
    assert whole["value"]["sequence"] == undisturbed["value"]["sequence"]


def test_a_changed_prompt_replaces_the_running_job(make_service) -> None:
    gate = Gate(until=30)
    service = make_service(StubEngine(gate=gate), response_timeout=0.3)
    (part,) = predict(service, body(drawn(keyframe(1))))
    changed = threading.Thread(target=gate.open)
    changed.start()
    (whole,) = predict(service, body(asked_again(moved(part, 1, y=60))))
    changed.join()
    while "partial" in whole["meta"]:
        (whole,) = predict(service, body(asked_again(whole)))
    assert shown(list(parse_keyframes(whole["value"]["sequence"])), 80)[1] == pytest.approx(60, abs=0.5)


def test_a_track_that_waits_for_its_turn_is_not_answered_as_whole(make_service) -> None:
    gate = Gate(until=0)
    service = make_service(StubEngine(gate=gate), response_timeout=0.2)
    predict(service, body(drawn(keyframe(1), id="runs")))
    (waits,) = predict(service, body(drawn(keyframe(1), id="waits")))
    assert waits["meta"]["partial"] == {"done": 0, "total": 100}
    gate.open()


def test_a_model_that_is_loading_is_named_as_what_is_waited_for(make_service) -> None:
    gate, engine = Gate(until=0), StubEngine(status="loading")
    engine.gate = gate
    service = make_service(engine, response_timeout=0.2)
    (waits,) = predict(service, body(drawn(keyframe(1))))
    assert waits["meta"]["text"][0].endswith("press t for the rest · stub is loading")
    engine.status = "ready"
    gate.open()


@pytest.mark.parametrize("kept", [False, True])
def test_show_masks_is_whether_jobs_keep_them(make_service, kept: bool) -> None:
    service = make_service(StubEngine(masks=True), show_masks=kept)
    predict(service, body(drawn(keyframe(1))))
    (job,) = service.scheduler.jobs(9)
    assert len(job.resolved.propagation.tracks()["object"].masks) == (100 if kept else 0)


def test_boxes_for_which_there_is_no_room_say_so_and_the_others_are_tracked(make_service, monkeypatch) -> None:
    monkeypatch.setattr("backend.jobs.slots._MAX_RUNNING", 1)
    gate = Gate(until=30)
    service = make_service(StubEngine(gate=gate), response_timeout=0.3, limits=Limits(queue=2))
    answered = predict(service, body(*(drawn(keyframe(1), id=f"r{number}") for number in range(4))))
    assert [region["id"] for region in answered] == ["r0", "r1", "r2", "r3"]
    assert answered[0]["meta"]["partial"]["total"] == 100
    assert "waiting for the device" in answered[3]["meta"]["text"][0]
    assert answered[3]["origin"] == "manual"
    gate.open()


def test_the_same_region_id_on_another_task_is_another_track(make_service) -> None:
    engine = StubEngine()
    service = make_service(engine)
    for task in (7, 8):
        predict(service, body(drawn(keyframe(1)), id=task))
    assert len(engine.frames) == 200


def test_another_video_in_the_same_task_is_tracked_anew(make_service) -> None:
    engine = StubEngine()
    service = make_service(engine)
    for name in ("a.mp4", "b.mp4"):
        predict(service, body(drawn(keyframe(1)), data={"video": f"/data/{name}", "fps": 25}))
    assert len(engine.frames) == 200


def test_copies_of_a_track_get_numbers_of_their_own(make_service) -> None:
    meta = {"track_id": 5}
    answered = predict(make_service(), body(*(drawn(keyframe(1), id=name, meta=meta) for name in "ab")))
    assert [region["meta"]["track_id"] for region in answered] == [5, 6]


def test_a_drawn_box_after_the_last_picture_is_on_the_last_one(make_service) -> None:
    # The file's sound lasts longer: Label Studio counts 125 frames and shows the last picture on those after 100.
    prompt = drawn(keyframe(110))
    prompt["value"]["framesCount"] = 125
    (region,) = predict(make_service(direction="both"), body(prompt))
    assert frames(region)[0] == 1
    assert item(region, 110)["human"] is True


def test_going_backward_the_box_is_hidden_after_where_it_was_drawn(make_service) -> None:
    (region,) = predict(make_service(direction="backward"), body(drawn(keyframe(50))))
    assert [(item["frame"], item["enabled"]) for item in region["value"]["sequence"]][-2:] == [(50, True), (51, False)]


@pytest.mark.slow
def test_a_thousand_human_keyframes_take_no_longer_than_their_number(make_service) -> None:
    many = drawn(*(keyframe(frame, x=frame / 20) for frame in range(1, 1001)))
    (region,) = predict(make_service(video=FakeVideo(count=1000), response_timeout=20), body(many))
    assert sum(item.get("human", False) for item in region["value"]["sequence"]) == 1000


def test_a_correction_makes_nothing_vanish_while_it_is_on_its_way(make_service) -> None:
    (whole,) = predict(make_service(), body(drawn(keyframe(1))))
    gate = Gate(until=30)
    service = make_service(StubEngine(gate=gate), response_timeout=0.3)
    (part,) = predict(service, body(asked_again(moved(whole, 10, y=50))))
    assert part["meta"]["partial"]["total"] == 100, "frames of the video, not both ways"
    was, now = parse_items(moved(whole, 10, y=50)), parse_items(part)
    for frame in range(31, 101):
        assert shown(list(now), frame) == pytest.approx(shown(list(was), frame), abs=0.7), frame
    assert shown(list(now), 20)[1] == pytest.approx(50, abs=0.5)
    assert sum(one.frame == 10 for one in now) == 1
    gate.open()
    (done,) = predict(service, body(asked_again(part)))
    assert shown(list(parse_items(done)), 90)[1] == pytest.approx(50, abs=0.5)


def test_a_box_whose_turn_has_not_come_is_not_shown_to_the_end(make_service) -> None:
    gate = Gate(until=0)
    service = make_service(StubEngine(gate=gate), response_timeout=0.2)
    predict(service, body(drawn(keyframe(1), id="runs")))
    (waits,) = predict(service, body(drawn(keyframe(1), id="waits")))
    assert shown(list(parse_items(waits)), 50) is None
    gate.open()


def test_a_full_queue_says_when_to_come_back(make_service, monkeypatch) -> None:
    monkeypatch.setattr("backend.jobs.slots._MAX_RUNNING", 1)
    gate = Gate(until=0)
    service = make_service(StubEngine(gate=gate), response_timeout=0.2, limits=Limits(queue=1))
    predict(service, body(drawn(keyframe(1), id="runs")))
    predict(service, body(drawn(keyframe(1), id="waits")))
    with pytest.raises(Busy, match="try again"):
        predict(service, body(drawn(keyframe(1), id="too many")))
    gate.open()


# --- what cannot be done --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        (drawn(keyframe(101)), "no frame 101: the video has 100"),
        (drawn(keyframe(1, x=150)), "outside the picture"),
    ],
)
def test_a_prompt_outside_the_video_is_refused(make_service, prompt: dict, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        predict(make_service(), body(prompt))


def test_a_video_that_will_not_decode_is_said(make_service, monkeypatch) -> None:
    service = make_service()

    def broken(*_: object) -> None:
        raise BadVideo("this file holds no video that can be decoded")

    monkeypatch.setattr("backend.jobs.worker.Video", broken)
    with pytest.raises(BadVideo, match="no video"):
        predict(service, body(drawn(keyframe(1))))


def test_one_bad_box_does_not_cost_the_others_their_tracks(make_service) -> None:
    service = make_service()
    good, bad = predict(service, body(drawn(keyframe(1), id="good"), drawn(keyframe(500), id="bad")))
    assert good["value"]["sequence"][-1]["frame"] == 100
    assert bad["value"]["sequence"] == drawn(keyframe(500))["value"]["sequence"]
    assert "no frame 500" in bad["meta"]["text"][0]
    bad["value"]["sequence"] = [keyframe(50)]
    (retried,) = predict(service, body(asked_again(bad)))
    assert retried["value"]["sequence"][-1]["frame"] == 100


def test_batches_and_empty_contexts_have_nothing_to_say(make_service) -> None:
    service = make_service()
    request = body()
    for context in (None, {}, {"result": list[Any]()}):
        request["params"]["context"] = context
        assert predict(service, request) == []


# --- the law of answers ---------------------------------------------------------------------------------------------

boxes = st.fixed_dictionaries(
    {"x": st.floats(0, 80), "y": st.floats(0, 80), "width": st.floats(0.5, 19), "height": st.floats(0.5, 19)}
)
prompts = st.lists(st.dictionaries(st.integers(1, 40), boxes, min_size=1, max_size=4), min_size=1, max_size=3)
edits = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 40), boxes), max_size=3)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompts, edits, st.sampled_from(["forward", "backward", "both"]), st.floats(-3, 3))
def test_ids_labels_and_human_keyframes_come_through_every_request(
    make_service_once, prompts: list, edits: list, direction: str, step: float
) -> None:
    service = make_service_once(direction, step)
    page = [
        drawn(*(keyframe(frame, **box) for frame, box in sorted(one.items())), id=f"r{number}-{next(serial)}")
        for number, one in enumerate(prompts)
    ]
    human = [{frame: dict(box) for frame, box in one.items()} for one in prompts]
    answered = predict(service, body(*page))
    for which, frame, box in edits:
        which %= len(page)
        check(page, answered, human)
        page = answered
        edited = moved(page[which], frame, **box)
        if not parse_keyframes([item(edited, frame)])[0].is_corrected:
            continue  # put where it was already, to 4 decimals
        human[which][frame] = dict(box)
        page[which] = asked_again(edited)
        (again,) = predict(service, body(*page))
        assert again["id"] == page[which]["id"]
        answered = [*page[:which], again, *page[which + 1 :]]
    check(page, answered, human)


serial = itertools.count()


def check(page: list[dict], answered: list[dict], human: list[dict]) -> None:
    assert [region["id"] for region in answered] == [region["id"] for region in page]
    assert len({region["meta"]["track_id"] for region in answered}) == len(answered)
    for region, boxes in zip(answered, human, strict=True):
        assert region["value"]["labels"] == ["Car"]
        items = {item.frame: item for item in parse_keyframes(region["value"]["sequence"])}
        assert {frame for frame, item in items.items() if item.is_human} == set(boxes)
        assert not any(item.is_corrected for item in items.values())
        for frame, box in boxes.items():
            assert {name: getattr(items[frame], name) for name in box} == box
        assert frames(region) == sorted(set(frames(region)))
        assert np.isfinite([item.x for item in items.values()]).all()


@pytest.fixture
def make_service_once(make_service):
    """One service for each direction; its stub's step changes from example to example."""
    made: dict[str, StubService] = {}

    def make(direction: str, step: float) -> StubService:
        if direction not in made:
            made[direction] = make_service(StubEngine(), FakeVideo(count=40), direction=direction)
        service = made[direction]
        service.engine.step = step
        return service

    return make


# --- every setting has an effect ------------------------------------------------------------------------------------


def test_max_frames_is_how_far_it_goes(make_service) -> None:
    (region,) = predict(make_service(max_frames=20), body(drawn(keyframe(11))))
    assert frames(region)[-1] == 31


def test_direction_is_where_it_goes(make_service) -> None:
    (region,) = predict(make_service(direction="backward"), body(drawn(keyframe(60))))
    assert (frames(region)[0], frames(region)[-1]) == (1, 61)
    (region,) = predict(make_service(direction="both"), body(drawn(keyframe(60), id="both")))
    assert (frames(region)[0], frames(region)[-1]) == (1, 100)


class Trembling(StubEngine):
    """Ten pixels to and fro on every other frame."""

    def open(self, video: Video, state: bytes | None = None) -> StubSession:
        session = StubSession(self, state)
        still = session._look

        def look(track: str, frame: int, reverse: bool) -> Observation:
            box, shift = still(track, 0, reverse).box, 10 * (frame % 2)
            return Observation(box._replace(x0=box.x0 + shift, x1=box.x1 + shift), 0.9)

        session._look = look
        return session


def test_keyframes_say_how_few_there_are(make_service) -> None:
    def meta(**rule: Any) -> tuple[int, dict]:
        service = make_service(Trembling(), keyframes=KeyframeSettings(**rule))
        (region,) = predict(service, body(drawn(keyframe(1))))
        return len(frames(region)), region["meta"]

    assert meta(iou=0.5)[0] == 2
    assert meta(iou=0.99)[0] == meta(mode="exact")[0] == 100
    assert meta(iou=0.99, px=11)[0] == 2
    count, told = meta(mode="budget", budget=7)
    assert 2 <= count <= 7
    assert 0.7 < told["iou"] < 0.8  # 10 pixels of 76
    assert meta(iou=0.85, smooth=1)[0] < meta(iou=0.85)[0]


def test_the_answer_tells_score_bound_and_how_much_is_interpolated(make_service) -> None:
    (region,) = predict(make_service(), body(drawn(keyframe(11))))
    assert region["meta"].items() >= {"iou": 1.0, "interpolated": round(1 - 2 / 90, 4)}.items()
    assert region["meta"]["score"] == region["score"]


def visible(region: dict) -> list[int]:
    items = parse_keyframes(region["value"]["sequence"])
    return [frame for frame in range(1, 101) if shown(items, frame) is not None]


@pytest.mark.parametrize(("count", "hidden"), [(0, {21, 22, 41}), (1, {21, 22}), (2, set())])
def test_bridge_frames_is_how_long_a_drop_out_may_be(make_service, count: int, hidden: set[int]) -> None:
    service = make_service(StubEngine(seen=lambda frame: frame not in (20, 21, 40)), bridge_frames=count)
    (region,) = predict(service, body(drawn(keyframe(1))))
    assert {*range(1, 101)} - {*visible(region)} == hidden


@pytest.mark.parametrize(("count", "seen"), [(1, [*range(1, 21), 41]), (2, [*range(1, 21)])])
def test_above_one_min_track_frames_drops_what_stands_alone(make_service, count: int, seen: list[int]) -> None:
    service = make_service(StubEngine(seen=lambda frame: frame < 20 or frame == 40), min_track_frames=count)
    (region,) = predict(service, body(drawn(keyframe(1))))
    assert visible(region) == seen


def test_the_settings_label_studio_counts_for_more_than_setups(make_service, monkeypatch) -> None:
    seen = []
    service = make_service(label_studio_url="http://ours:8080", label_studio_api_key="key")
    monkeypatch.setattr(
        "backend.labelstudio.media.MediaCache.fetch",
        lambda _self, url, client, _: seen.append(client.url) or fake_path(),
    )
    service.connections.connect("3", "http://theirs:8080", "other")
    predict(service, body(drawn(keyframe(1))))
    assert seen == ["http://ours:8080"]


def test_limits_reach_the_download_and_the_video(tmp_path, monkeypatch) -> None:
    made: dict[str, Any] = {}

    class SpyMedia(MediaCache):
        def __init__(self, folder, max_bytes, max_seconds, **options: Any) -> None:
            made["media"] = (folder, max_bytes, max_seconds)

        def fetch(self, url, client, cancelled=lambda: False) -> Path:
            return Path(url)

    def spy_video(path, limits) -> FakeVideo:
        made["video"] = (limits.pixels, limits.frames)
        return FakeVideo()

    monkeypatch.setattr("backend.labelstudio.videos.MediaCache", SpyMedia)
    monkeypatch.setattr("backend.jobs.worker.Video", spy_video)
    monkeypatch.setattr("backend.labelstudio.videos.probe_video", lambda *_: None)
    service = Service(
        Settings(data_dir=tmp_path, limits=Limits(bytes=1, seconds=2, pixels=3, frames=4)),
        WorkerPool([thread_worker(StubEngine())]),
    )
    predict(service, body(drawn(keyframe(1))))
    service.close()
    assert made == {"media": (tmp_path / "media", 1, 2), "video": (3, 4)}


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "backend.jobs.ray_link", raising=False)
    monkeypatch.delattr("backend.jobs.ray_link", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"pip install 'sam3-backend\[ray\]', or set workers: local"):
        Service(Settings(data_dir=tmp_path, engine="opencv", workers="ray"))


def test_what_ray_is_given_is_not_shown() -> None:
    settings = Settings(ray=RaySettings(runtime_env={"env_vars": {"HF_TOKEN": "hf_1"}}))
    assert settings.shown()["ray"]["runtime_env"] == "***"
    assert Settings().shown()["ray"]["runtime_env"] == {}
