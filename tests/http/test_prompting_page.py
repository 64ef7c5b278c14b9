"""The prompting page's requests over HTTP, over a stub engine: frames, masks of clicks, tracks as they grow, offers."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import pytest

from backend.http.app import create_app
from backend.labelstudio.frame_strip import SignedPage, SignedTask
from backend.labelstudio.media import MediaCache
from backend.video import Video
from tests.clips import read_code, write_clip
from tests.fakes import Gate, StubEngine
from tests.jobs.test_scheduler import until
from tests.labelstudio.bodies import drawn, keyframe
from tests.stub_service import StubService

CONFIG = """<View><Video name="video" value="$video" framerate="25"/><VideoRectangle name="box" toName="video"/>
<Labels name="cls" toName="video"><Label value="Car"/><Label value="Bus"/></Labels>
<Labels name="cmd" toName="video"><Label value="track (t)" hotkey="t"/></Labels>
<TextArea name="text_prompt" toName="video"/></View>"""
POINT = [50.0, 50.0, True]
HEAD = {"X-Sam3-Backend": "1"}


class FakeStudio:
    """A Label Studio with one task of project 3."""

    url = "http://studio.example"

    def __init__(self, config: str = CONFIG, **task: Any) -> None:
        self.content = {"id": 7, "project": 3, "data": {"video": "/clip.mp4"}, **task}
        self.config = config
        self.others_drafts: list[Mapping[str, Any]] = []

    def task(self, number: int) -> Mapping[str, Any]:
        assert number == 7
        return self.content

    def drafts(self, number: int) -> list[Mapping[str, Any]]:
        """Those of all accounts; `task` tells only one's own."""
        assert number == 7
        return [*self.content.get("drafts", ()), *self.others_drafts]

    def set_result(self, kind: str, number: int, result: list[Mapping[str, Any]]) -> None:
        (entry,) = [one for one in self.content[kind] if one["id"] == number]
        entry["result"] = json.loads(json.dumps(result))

    def project(self, number: int) -> Mapping[str, Any]:
        assert number == 3
        return {"label_config": self.config}


class Page:
    def __init__(self, service: StubService, studio: FakeStudio, project: str = "3") -> None:
        for view in (service.prompting, service.track_editor):
            view._client = lambda project: studio  # type: ignore[assignment, return-value]
        self.service, self.client = service, create_app(service).test_client()
        self.base = f"/prompt/{service.signer.key(SignedPage(project, '7'))}/"

    def get(self, path: str, **options: Any) -> Any:
        return self.client.get(self.base + path, **options)

    def post(self, path: str, status: int = 200, **sent: Any) -> Any:
        response = self.client.post(self.base + path, json=sent, headers=HEAD)
        assert response.status_code == status, response.text
        return response.json

    def state(self) -> Any:
        response = self.get("state")
        assert response.status_code == 200, response.text
        return response.json

    def track(self, frame: int = 4, **changes: Any) -> Any:
        known = {"prompts": [{"frame": frame, "points": [POINT]}], "label": "Car", "direction": "both"}
        return self.post("track", **(known | changes))

    def track_refused(self, **sent: Any) -> str:
        return str(self.post("track", 400, label="Car", **sent)["error"])

    def events(self, last_id: str = "") -> "Events":
        return Events(self.get("events", headers={"Last-Event-ID": last_id} if last_id else {}))

    def finish(self) -> None:
        until(lambda: all(job.has_ended for job in self.service.scheduler.jobs(9)))


class Events:
    """Reads an event stream: frames by track, as the page keeps them."""

    def __init__(self, response: Any) -> None:
        assert response.mimetype == "text/event-stream"
        self.parts, self.last_id = iter(response.response), ""
        self.frames: dict[str, dict[int, Any]] = {}
        self.tracks: dict[str, Any] = {}

    def read(self) -> list[dict[str, Any]]:
        text = next(self.parts).decode()
        fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
        if "data" not in fields:
            return []
        self.last_id = fields["id"]
        tracks = json.loads(fields["data"])["tracks"]
        for track in tracks:
            self.tracks[track["id"]] = track
            self.frames.setdefault(track["id"], {}).update({row[0]: row[1:] for row in track["frames"]})
        return tracks

    def read_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.read()


@pytest.fixture
def page(make_interactive) -> Page:
    return Page(make_interactive(), FakeStudio())


def test_the_page_learns_what_it_prompts_on(page: Page) -> None:
    state = page.state()
    assert (state["task"], state["project"], state["frames"], state["rate"]) == (7, "3", 100, 25)
    assert (state["width"], state["height"], state["labels"]) == (640, 360, ["Car", "Bus"])
    assert state["url"] == "http://studio.example/projects/3/data?task=7"
    assert (state["regions"], state["tracks"]) == ([], [])


def test_the_newest_draft_is_shown_with_a_persons_keyframes(make_interactive) -> None:
    box = drawn(keyframe(3), id="own")
    studio = FakeStudio(
        drafts=[{"id": 1, "updated_at": "2026", "result": [box]}], annotations=[{"id": 2, "result": []}]
    )
    (region,) = Page(make_interactive(), studio).state()["regions"]
    assert region["id"] == "own"
    ((frame, enabled, *_, is_human),) = region["keyframes"]
    assert (frame, enabled, is_human) == (3, True, True)


def test_a_signed_address_opens_its_task_alone(make_interactive) -> None:
    service = make_interactive(basic_auth_user="ann", basic_auth_pass="right")
    page = Page(service, FakeStudio())
    assert page.get("").mimetype == "text/html"
    assert page.get("state").status_code == 200
    for key in ("AAAA", service.signer.key(SignedTask("3", "7"))):
        for path in ("", "state", "frames/1.jpg", "events"):
            refused = page.client.get(f"/prompt/{key}/{path}")
            assert (refused.status_code, "no valid signature" in refused.json["error"]) == (400, True)
    assert page.client.get("/tasks/7/prompt").status_code == 401
    link = page.client.get("/tasks/7/prompt?project=3", auth=("ann", "right"))
    assert link.headers["Location"] == f"../..{page.base}"


def test_another_site_changes_nothing(page: Page) -> None:
    for action in ("encode", "preview", "track", "search", "stop", "resume", "remove", "send"):
        assert page.client.post(page.base + action, json={}).status_code == 403


def test_a_frame_is_the_one_that_label_studio_shows(page: Page, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    page.state()
    path = tmp_path / "code.mp4"
    write_clip(path, frames=30, rate=25)
    monkeypatch.setattr(MediaCache, "fetch", lambda *_: path)
    monkeypatch.setattr("backend.labelstudio.videos.Video", Video)
    for number in (9, 1, 30):
        response = page.get(f"frames/{number}.jpg")
        assert response.mimetype == "image/jpeg"
        picture = cv2.imdecode(np.frombuffer(response.data, np.uint8), cv2.IMREAD_COLOR)
        assert read_code(picture) == number - 1
    assert "immutable" in response.headers["Cache-Control"]
    assert page.get("frames/31.jpg").status_code == 400


def test_a_click_is_answered_with_a_mask_and_encodes_its_frame_once(page: Page) -> None:
    page.post("encode", frames=[4, 5])
    until(lambda: page.post("encode", frames=[4, 5])["encoded"] == [4, 5])
    first = page.post("preview", frame=4, points=[POINT])
    assert page.post("preview", frame=4, points=[POINT, [10, 10, False]])["frame"] == 4
    assert page.service.engine.encoded == [3, 4]
    best = first["candidates"][0]
    assert best["box"] == pytest.approx([46.875, 44.4444, 6.25, 11.1111])
    assert sum(best["mask"]["counts"]) == 640 * 360
    assert 0 < best["score"] <= 1


def test_a_track_grows_event_by_event(make_interactive) -> None:
    gate = Gate(20)
    page = Page(make_interactive(StubEngine(gate=gate)), FakeStudio())
    track = page.track()
    assert (track["label"], track["direction"], track["offered"]) == ("Car", "both", False)
    events = page.events()
    events.read_until(lambda: bool(events.frames.get(track["id"])))
    assert events.tracks[track["id"]]["state"] == "running"
    assert not {*events.frames[track["id"]]} & {1, 2, 21}, "the way back comes later"
    gate.open()
    events.read_until(lambda: events.tracks.get(track["id"], {}).get("state") == "done")
    frames = events.frames[track["id"]]
    assert sorted(frames) == list(range(1, 101))
    assert frames[4][:4] == pytest.approx([300 / 6.4, 160 / 3.6, 6.25, 40 / 3.6], abs=0.001)
    assert page.state()["tracks"][0]["prompts"] == [{"frame": 4, "box": None, "points": [POINT]}]


def test_a_page_that_comes_back_goes_on_from_its_last_event(page: Page) -> None:
    track = page.track()
    page.finish()
    first = page.events()
    first.read_until(lambda: track["id"] in first.tracks)
    again = page.events(first.last_id)
    again.read_until(lambda: track["id"] in again.tracks)
    assert again.frames[track["id"]] == {}, "it has all of them"
    edited = json.loads(first.last_id)
    edited[track["id"]][2] = [[1, 60]]
    partly = page.events(json.dumps(edited))
    partly.read_until(lambda: track["id"] in partly.tracks)
    assert sorted(partly.frames[track["id"]]) == list(range(61, 101))
    for nonsense in ("x", "[1]", '{"a": 1}', '{"a": ["b", 1, 2]}'):
        odd = page.events(nonsense)
        odd.read_until(lambda odd=odd: track["id"] in odd.tracks)
        assert len(odd.frames[track["id"]]) == 100


def test_further_prompts_replace_the_track_and_a_removed_one_is_gone(page: Page) -> None:
    track = page.track()
    page.finish()
    again = page.track(id=track["id"], label="Bus", prompts=[{"frame": 9, "box": [10, 10, 20, 20]}])
    assert (again["id"], again["label"]) == (track["id"], "Bus")
    assert again["job"] != track["job"]
    page.finish()
    assert page.post("remove", id=track["id"]) == {"tracks": [], "searches": []}
    assert page.state()["tracks"] == []
    assert "load the page again" in page.post("track", 400, id=track["id"], prompts=[])["error"]


def test_a_region_of_the_annotation_is_corrected_on_any_frame(make_interactive) -> None:
    box = drawn(keyframe(3), keyframe(60), id="own", labels=("Car",))
    page = Page(make_interactive(), FakeStudio(drafts=[{"id": 1, "updated_at": "2026", "result": [box]}]))
    (region,) = page.state()["regions"]
    assert (region["label"], [one["frame"] for one in region["prompts"]]) == ("Car", [3, 60])
    track = page.track(id="own", prompts=[{"frame": 30, "points": [POINT]}])
    assert track["id"] == "own"
    assert track["computed"] == [[4, 59]]
    assert [key[0] for key in track["kept"]] == [3, 60]
    page.finish()
    events = page.events()
    events.read_until(lambda: "own" in events.tracks)
    assert sorted(events.frames["own"]) == list(range(3, 101)), "all that the annotation will show"
    assert [len(events.frames["own"][frame]) for frame in (3, 60, 61)] == [5, 5, 4], "with a score where it was tracked"
    refused = page.track_refused(id="own", prompts=[{"frame": 3, "points": [POINT]}])
    assert "draw a box there" in refused


def test_further_prompts_compute_only_what_lies_between_their_neighbours(page: Page) -> None:
    entries = [{"frame": frame, "points": [POINT]} for frame in (1, 40, 80)]
    track = page.track(prompts=entries)
    page.finish()
    again = page.track(id=track["id"], prompts=[*entries, {"frame": 60, "box": [10, 10, 20, 20]}])
    assert again["computed"] == [[41, 59], [61, 79]]
    page.finish()
    undone = page.track(id=track["id"], prompts=entries)
    assert (undone["job"], undone["computed"]) == (track["job"], [[1, 100000000]]), "it is as it was, and computed"


WORDS = {"car": {"a": range(100), "b": range(20, 60), "ghost": range(7, 8)}, "bus": {"c": range(100)}}


def test_what_words_find_are_tracks_of_the_page(make_interactive) -> None:
    page = Page(make_interactive(StubEngine(answering=WORDS)), FakeStudio())
    assert page.state()["phrases"] == ["all", "car", "bus"]
    search = page.post("search", text="all from 1 to 90")
    page.finish()
    state = page.state()
    assert [(one["text"], one["state"]) for one in state["searches"]] == [("all from 1 to 90", "done")]
    tracks = state["tracks"]
    assert sorted(one["label"] for one in tracks) == ["Bus", "Car", "Car"], "what is seen for a moment is no track"
    events = page.events()
    events.read_until(lambda: all(events.frames.get(one["id"]) for one in tracks))
    seen = [{frame for frame, box in events.frames[one["id"]].items() if box} for one in tracks]
    assert {*range(21, 61)} in seen
    left = page.post("remove", id=tracks[0]["id"])["tracks"]
    assert [one["id"] for one in left] == [one["id"] for one in tracks[1:]]
    assert page.post("remove", id=search["id"]) == {"tracks": [], "searches": []}


def test_what_words_have_found_is_corrected_and_that_is_taken_back(make_interactive) -> None:
    page = Page(make_interactive(StubEngine(answering=WORDS)), FakeStudio())
    page.post("search", text="bus")
    page.finish()
    (found,) = page.state()["tracks"]
    box = {"frame": 50, "box": [10, 10, 20, 20]}
    corrected = page.track(id=found["id"], label="Bus", prompts=[box])
    assert (corrected["id"], corrected["computed"]) == (found["id"], [[1, 49], [51, 100000000]])
    page.finish()
    other = page.track(id=found["id"], label="Bus", prompts=[{**box, "frame": 60}])
    assert [one["frame"] for one in other["prompts"]] == [60]
    assert [key[0] for key in other["kept"]] == [1, 60, 100], "of what words have found, without the first correction"
    assert len(page.state()["tracks"]) == 1


def test_boxes_are_examples_of_what_to_find(make_interactive) -> None:
    page = Page(make_interactive(StubEngine(answering={"like": {"a": range(100)}})), FakeStudio())
    page.post("search", text="", label="Bus", examples=[{"frame": 4, "box": [10, 10, 20, 20]}])
    page.finish()
    assert [one["label"] for one in page.state()["tracks"]] == ["Bus"]
    (job,) = page.service.scheduler.jobs(9)
    (example,) = job.row.spec.exemplars
    assert (example.frame, example.box, example.positive) == (4, (10, 10, 20, 20, 0), True)
    assert job.row.spec.phrases == ("like",)
    for sent in ({"text": " "}, {"text": 3}, {"text": "car from 9 to 3"}, {"text": "car", "label": "Dog"}):
        page.post("search", 400, **sent)


def test_what_is_worth_a_look_is_told_of_tracks_and_of_the_annotation(make_interactive) -> None:
    region = drawn(keyframe(3), keyframe(30, enabled=False), keyframe(60), id="own")
    studio = FakeStudio(drafts=[{"id": 1, "updated_at": "2026", "result": [region]}])
    page = Page(make_interactive(StubEngine(seen=lambda frame: frame not in (20, 21, 22, 50))), studio)
    page.track()
    page.finish()
    entries = page.get("review").json["entries"]
    assert [(one["kind"], one["frame"], one["what"]) for one in entries] == [
        ("gap", 31, "Car: not seen for 29 frames"),
        ("gap", 21, "Car: not seen for 3 frames"),
    ], "a shorter gap is bridged in the annotation"
    assert entries[0]["ids"] == ["own"]


def test_masks_of_the_pages_tracks_are_kept_whatever_the_settings_say(make_interactive) -> None:
    page = Page(make_interactive(StubEngine(masks=True)), FakeStudio())
    track = page.track()
    page.finish()
    mask = page.get(f"masks/{track['id']}/4").json["mask"]
    assert (mask["width"], mask["height"]) == (320, 180)
    assert page.get("masks/unknown/4").json == {"mask": None}
    assert page.get(f"masks/{track['id']}/101").status_code == 400


def test_another_class_computes_nothing(page: Page) -> None:
    track = page.track()
    page.finish()
    again = page.track(id=track["id"], label="Bus")
    assert (again["job"], again["label"]) == (track["job"], "Bus")
    assert page.state()["tracks"][0]["label"] == "Bus"


def test_a_stopped_track_goes_on(make_interactive) -> None:
    gate = Gate(20)
    page = Page(make_interactive(StubEngine(gate=gate)), FakeStudio())
    track = page.track()
    page.post("stop", id=track["id"])
    gate.open()
    until(lambda: page.state()["tracks"][0]["state"] == "cancelled")
    (resumed,) = page.post("resume", id=track["id"])["tracks"]
    assert resumed["state"] in ("queued", "running")
    until(lambda: page.state()["tracks"][0]["state"] == "done")


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        ({"prompts": []}, "nothing to track"),
        ({"prompts": [{"frame": 4}]}, "no prompt on frame 4"),
        ({"prompts": [{"frame": 0, "points": [POINT]}]}, "from 1 on"),
        ({"prompts": [{"frame": 101, "points": [POINT]}]}, "no frame 101"),
        ({"prompts": [{"frame": 4, "points": [[1, "x", True]]}]}, "a point must be"),
        ({"prompts": [{"frame": 4, "box": [1, 2, 3]}]}, "a box must be"),
        ({"prompts": [{"frame": 4, "points": [POINT]}] * 2}, "the same frame"),
        ({"label": "Dog"}, "Car, Bus"),
        ({"direction": "up"}, "forward"),
        ({"first": 9, "last": 3}, "exchange"),
        ({"id": "unknown"}, "load the page again"),
    ],
)
def test_what_is_not_valid_is_refused_with_a_sentence(page: Page, sent: dict, sentence: str) -> None:
    known = {"prompts": [{"frame": 4, "points": [POINT]}], "label": "Car"}
    assert sentence in page.post("track", 400, **(known | sent))["error"]
    assert page.state()["tracks"] == []
