"""Corrected regions of an annotation that was submitted are written there; nothing that changed meanwhile is."""

from typing import Any

import pytest

from tests.fakes import Gate, StubEngine
from tests.http.test_prompting_page import POINT, FakeStudio, Page
from tests.labelstudio.bodies import drawn, keyframe


@pytest.fixture
def studio() -> FakeStudio:
    """A task whose annotation, that was submitted, has two cars, and words about the first one."""
    note = {"id": "own", "type": "choices", "from_name": "who", "to_name": "video", "value": {"choices": ["red"]}}
    own = drawn(keyframe(3, human=True), keyframe(60, human=True), id="own", labels=("Car",), meta={"track_id": 5})
    other = drawn(keyframe(1, x=70), id="other", labels=("Car",), meta={"track_id": 2})
    return FakeStudio(annotations=[{"id": 12, "result": [own, note, other]}])


@pytest.fixture
def page(make_interactive, studio: FakeStudio) -> Page:
    return Page(make_interactive(), studio)


def results(studio: FakeStudio) -> dict[str, dict[str, Any]]:
    """The regions of the annotation."""
    return {one["id"]: one for one in studio.content["annotations"][0]["result"] if one["type"] == "videorectangle"}


def correct(page: Page, *names: str, **changes: Any) -> None:
    """Correct regions by a click on frame 30, between a person's keyframes."""
    page.state()
    for name in names:
        page.track(**{"id": name, "prompts": [{"frame": 30, "points": [POINT]}], **changes})
    page.finish()


def test_a_correction_is_written_and_everything_else_stays(page: Page, studio: FakeStudio) -> None:
    before = {name: dict(one) for name, one in results(studio).items()}
    keys = {key["frame"]: key for key in before["own"]["value"]["sequence"]}
    correct(page, "own")
    new = page.track(prompts=[{"frame": 4, "points": [POINT]}])
    page.finish()
    sent = page.post("send", ids=["own", new["id"]])
    assert sent["written"] == [5]
    assert [(one["id"], one["offered"]) for one in sent["tracks"]] == [(new["id"], True)], "new tracks are offered"
    assert [one["id"] for one in sent["regions"]] == ["other", "own"]
    written = results(studio)
    assert {*written} == {"own", "other"}
    sequence = {key["frame"]: key for key in written["own"]["value"]["sequence"]}
    assert any(3 < frame < 60 for frame in sequence)
    assert [frame for frame, key in sequence.items() if key.get("human")] == [3, 60]
    for frame, key in keys.items():  # a person's keyframes, to the digit
        assert {name: sequence[frame][name] for name in ("x", "y", "width", "height", "rotation", "enabled")} == {
            name: key[name] for name in ("x", "y", "width", "height", "rotation", "enabled")
        }
    assert written["own"]["meta"]["track_id"] == 5
    assert written["own"]["meta"]["text"][-1].startswith("track 5 · ")
    assert written["other"] == before["other"]
    assert [one["value"] for one in studio.content["annotations"][0]["result"] if one["type"] == "choices"] == [
        {"choices": ["red"]}
    ]
    assert page.service.track_editor.overview(7, "3")["undo"] == "correct 5 on the video"


@pytest.mark.parametrize("whose", ["own", "another's"])
def test_while_it_is_open_somewhere_it_is_offered_as_a_new_track_is(page: Page, studio: FakeStudio, whose: str) -> None:
    correct(page, "own")
    draft = {"id": 1, "annotation": 12, "updated_at": "2026", "result": [*results(studio).values()]}
    if whose == "own":
        studio.content["drafts"] = [draft]
    else:
        studio.others_drafts = [draft]
    before = results(studio)
    sent = page.post("send", ids=["own"])
    assert (sent["written"], [one["offered"] for one in sent["tracks"]]) == ([], [True])
    assert results(studio) == before


def test_what_changed_meanwhile_is_refused_and_costs_no_other(page: Page, studio: FakeStudio) -> None:
    correct(page, "own", "other")
    moved = results(studio)["own"]
    moved["value"]["sequence"][1]["x"] += 5
    refused = page.post("send", 409, ids=["own", "other"])["error"]
    assert refused.startswith("track 5 was changed in Label Studio meanwhile")
    written = results(studio)
    assert written["own"]["value"] == moved["value"]
    assert written["other"]["meta"]["page_job"]
    # As the sentence says: it is corrected as it is now, and sent again.
    correct(page, "own")
    assert page.post("send", ids=["own"])["written"] == [5]
    last = next(key for key in results(studio)["own"]["value"]["sequence"] if key["frame"] == 60)
    assert last["x"] == moved["value"]["sequence"][1]["x"]


def test_a_region_that_is_gone_is_not_made_again(page: Page, studio: FakeStudio) -> None:
    correct(page, "own")
    del studio.content["annotations"][0]["result"][0]
    assert "no region of Car any more" in page.post("send", 409, ids=["own"])["error"]
    assert {*results(studio)} == {"other"}


@pytest.mark.parametrize(
    ("there", "here", "then"), [("Bus", "Car", "Bus"), ("Car", "Bus", "Bus"), ("Van", "Bus", None)]
)
def test_the_class_is_the_one_that_was_changed(
    page: Page, studio: FakeStudio, there: str, here: str, then: str | None
) -> None:
    correct(page, "own", label=here)
    results(studio)["own"]["value"]["labels"] = [there]
    page.post("send", 200 if then else 409, ids=["own"])
    assert results(studio)["own"]["value"]["labels"] == [then or there]


def test_a_correction_that_is_still_computed_is_offered(make_interactive, studio: FakeStudio) -> None:
    gate = Gate(0)
    page = Page(make_interactive(StubEngine(gate=gate)), studio)
    page.state()
    page.track(id="own", prompts=[{"frame": 30, "points": [POINT]}])
    before = results(studio)
    sent = page.post("send", ids=["own"])
    gate.open()
    assert (sent["written"], [one["offered"] for one in sent["tracks"]], results(studio)) == ([], [True], before)
