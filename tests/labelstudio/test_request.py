import pytest

from backend.errors import BackendError, BadRequest
from backend.labelstudio.label_config import parse_label_config as parse_config
from backend.labelstudio.request import PredictRequest, parse_prompt_field, parse_request
from tests.labelstudio.bodies import asked_again, body, drawn, keyframe


def read(request: dict) -> PredictRequest:
    parts = request["tasks"], request["params"]["context"], parse_config(request["label_config"])
    return parse_request(*parts, parse_prompt_field(*parts))


def test_a_drawn_box_asks_for_itself() -> None:
    interaction = read(body(drawn(keyframe(1))))
    assert [one.region.id for one in interaction.region_prompts] == ["fDqJ3pfXOd"]
    assert (interaction.task, interaction.url, interaction.framerate) == ("7", "/data/upload/1/clip.mp4", 25)
    assert [one.classes for one in interaction.region_prompts] == [("Car",)]


def test_only_what_is_marked_or_new_is_asked_for() -> None:
    tracked = drawn(keyframe(1, fp="00000000"), id="quiet", origin="prediction", meta={"track_id": 4})
    interaction = read(body(tracked, drawn(keyframe(1), id="new"), asked_again(drawn(keyframe(9), id="marked"))))
    assert [one.region.id for one in interaction.region_prompts] == ["new", "marked"]
    assert interaction.track_ids == {4}


def test_the_framerate_is_the_tasks_then_what_the_keyframes_agree_on_then_the_pages() -> None:
    timed, nothing = drawn(keyframe(30, time=1.0)), {"video": "x"}
    assert read(body(timed)).framerate == 25
    assert read(body(timed, data=nothing)).framerate == 30
    still = drawn(keyframe(1, time=None))
    assert read(body(still)).framerate == 25
    assert read(body(still, data=nothing)).framerate == 24
    assert read(body(still, data={"video": "x", "fps": 0})).framerate == 24


def test_track_numbers_are_seen_wherever_the_request_shows_them() -> None:
    def other(number: int) -> dict:
        return {"result": [drawn(keyframe(1), id=f"o{number}", meta={"track_id": number})]}

    interaction = read(body(drawn(keyframe(1)), drafts=[other(3)], annotations=[other(8)], predictions=[other(5)]))
    assert interaction.track_ids == {3, 5, 8}


def test_a_pressed_command_is_no_class() -> None:
    assert [one.classes for one in read(body(drawn(keyframe(1), labels=("track (t)",)))).region_prompts] == [("Car",)]


def test_a_text_beside_a_region_belongs_to_it() -> None:
    text = drawn(keyframe(1)) | {"type": "textarea", "from_name": "region_prompt", "value": {"text": ["x"]}}
    assert len(read(body(drawn(keyframe(1)), text)).region_prompts) == 1


@pytest.mark.parametrize(
    ("request_body", "kind", "sentence"),
    [
        (body(drawn(keyframe(1), labels=("Truck",))), BadRequest, '"Truck" is not in the label config'),
        (body(drawn(keyframe(1), from_name="other")), BadRequest, 'control "other", but the boxes .* are "box"'),
        (body(drawn(keyframe(1), type="rectanglelabels")), BadRequest, "type rectanglelabels cannot be tracked"),
        (body(drawn(keyframe(1), type="keypointlabels")), BadRequest, "on no strip of frames"),
        (body(drawn(keyframe(1)), data={"image": "x"}), BadRequest, 'needs the field "video"'),
        (body(drawn(keyframe(1)), data=None), BadRequest, "holds no data"),
        (body(drawn(keyframe(1)) | {"value": None}), BadRequest, "lacks its tag names or value"),
        (body(drawn()), BadRequest, "no keyframe"),
        (body(drawn(keyframe(1, width=0))), BadRequest, "the box on frame 1 is empty"),
        ({**body(drawn(keyframe(1))), "tasks": []}, BadRequest, "holds no task"),
    ],
)
def test_what_cannot_be_done_is_said(request_body: dict, kind: type[BackendError], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        read(request_body)


def test_a_region_that_cannot_be_read_costs_no_other_its_track() -> None:
    imported = drawn(id="imported", origin="prediction")
    truck = drawn(keyframe(1), id="truck", labels=("Truck",))
    flat = drawn(keyframe(1, width=0), id="flat")
    assert [one.region.id for one in read(body(imported, truck, drawn(keyframe(1)), flat)).region_prompts] == [
        "fDqJ3pfXOd"
    ]
    assert read(body(imported)).region_prompts == ()


@pytest.mark.parametrize("fps", [-5, 1e9, "inf"])
def test_an_impossible_framerate_is_refused(fps: object) -> None:
    still = keyframe(1, time=None)
    with pytest.raises(BadRequest, match="set fps"):
        read(body(drawn(still), data={"video": "x", "fps": fps}))


def test_boxes_on_two_videos_at_once_are_refused() -> None:
    config = (
        '<View><Video name="a" value="$a"/><Video name="b" value="$b"/>'
        '<VideoRectangle name="boxa" toName="a"/><VideoRectangle name="boxb" toName="b"/></View>'
    )
    both = [drawn(keyframe(1), from_name=f"box{v}", to_name=v, labels=()) for v in "ab"]
    with pytest.raises(BadRequest, match="boxes on 2 videos"):
        read({**body(*both), "label_config": config})


def test_a_video_in_cloud_storage_is_fetched_through_its_task() -> None:
    url = read(body(drawn(keyframe(1)), data={"video": "s3://clips/a.mp4", "fps": 25})).url
    assert url == "/tasks/7/resolve/?fileuri=czM6Ly9jbGlwcy9hLm1wNA=="
