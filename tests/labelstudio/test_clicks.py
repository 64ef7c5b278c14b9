"""Clicks on the strip of frames, in the form that Label Studio 1.23.2 sends them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import BadRequest
from backend.labelstudio.clicks import Click, ClickPrompt, parse_click_prompts
from backend.labelstudio.label_config import PointsControl
from backend.tracks.frame_range import LAST_FRAME

CONTROLS = {"points": PointsControl("$frames", {})}
DATA = {"video": "/data/a.mp4", "frames": ["/1.jpg", "/26.jpg", "/51.jpg", "/76.jpg"], "frame_numbers": [1, 26, 51, 76]}
PREPARE = "run sam3-backend project prepare"


def clicked(index: Any = 0, x: Any = 50, y: Any = 25, label: str = "object 1", **more: Any) -> dict[str, Any]:
    """A click on the object, as the page sends it while it is open."""
    value = {"x": x, "y": y, "width": 0.37, "labels": [label], "keypointlabels": [label]}
    size = {"original_width": 640, "original_height": 360, "image_rotation": 0, "item_index": index}
    names = {"from_name": "points", "to_name": "frames", "type": "keypointlabels", "origin": "manual"}
    return {**size, "value": value, "is_positive": True, "id": "mdSQW30PZR", **names, **more}


def without(result: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in names}


def test_a_click_says_where_it_lies_and_what_it_means() -> None:
    results = [clicked(x=8.06, y=29.97), clicked(x=50.2, y=50.16, id="g-ihGvOR5_", is_positive=False)]
    assert parse_click_prompts(results, CONTROLS, DATA) == [
        ClickPrompt(
            "points",
            "object 1",
            (Click("mdSQW30PZR", 1, 8.06, 29.97, True), Click("g-ihGvOR5_", 1, 50.2, 50.16, False)),
        )
    ]


def test_points_of_one_label_are_one_object() -> None:
    results = [
        clicked(id="a"),
        clicked(id="b", label="object 2"),
        clicked(2, id="c"),
        clicked(1, id="d", from_name="others"),
    ]
    objects = parse_click_prompts(results, CONTROLS | {"others": PointsControl("$frames", {})}, DATA)
    assert [(one.control, one.label, [click.id for click in one.clicks]) for one in objects] == [
        ("points", "object 1", ["a", "c"]),
        ("points", "object 2", ["b"]),
        ("others", "object 1", ["d"]),
    ]


@pytest.mark.parametrize(("index", "frame"), [(0, 1), (1, 26), (3, 76)])
def test_the_picture_that_was_clicked_says_which_frame(index: int, frame: int) -> None:
    ((click,),) = (one.clicks for one in parse_click_prompts([clicked(index)], CONTROLS, DATA))
    assert click.frame == frame


def test_of_a_single_picture_there_is_no_index() -> None:
    (one,) = parse_click_prompts(
        [without(clicked(), "item_index")], CONTROLS, {"frames": "/7.jpg", "frame_numbers": [7]}
    )
    assert one.clicks[0].frame == 7


@pytest.mark.parametrize("said", [None, "true", 1])
def test_after_a_reload_nobody_says_whether_a_click_is_on_the_object(said: object) -> None:
    absent, strange = parse_click_prompts(
        [without(clicked(), "is_positive"), clicked(label="object 2", is_positive=said)], CONTROLS, DATA
    )
    assert absent.clicks[0].positive is None
    assert strange.clicks[0].positive is None


def test_the_label_is_found_under_either_name_and_may_be_missing() -> None:
    plain, bare = clicked(), clicked()
    plain["value"] = without(plain["value"], "keypointlabels")
    bare["value"] = without(bare["value"], "keypointlabels", "labels")
    assert [one.label for one in parse_click_prompts([plain, bare], CONTROLS, DATA)] == ["object 1", ""]


def test_other_regions_are_no_clicks() -> None:
    assert parse_click_prompts([{"type": "videorectangle", "id": "x"}, {}], CONTROLS, DATA) == []


def test_points_of_a_control_that_is_on_no_strip_are_named() -> None:
    with pytest.raises(BadRequest, match='the control "dots", which is on no strip of frames'):
        parse_click_prompts([clicked(from_name="dots")], CONTROLS, DATA)


@pytest.mark.parametrize(
    "data",
    [
        {"frames": DATA["frames"]},
        {"frames": DATA["frames"], "frame_numbers": "1,26,51,76"},
        {"frames": DATA["frames"], "frame_numbers": [1, 26, 51]},
        {"frames": DATA["frames"][:2], "frame_numbers": [1, 26, 51]},
        {},
    ],
)
def test_a_task_that_does_not_say_which_frames_its_pictures_are_names_the_mend(data: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=rf"does not say .* \(frame_numbers\): {PREPARE}"):
        parse_click_prompts([clicked()], CONTROLS, data)


@pytest.mark.parametrize(
    ("index", "numbers"),
    [
        (4, [1, 26, 51, 76]),
        (-1, [1, 26, 51, 76]),
        ("0", [1, 26, 51, 76]),
        (None, [1, 26, 51, 76]),
        (0, [0, 26, 51, 76]),
        (0, [LAST_FRAME + 1, 26, 51, 76]),
        (0, ["1", 26, 51, 76]),
        (0, [None, 26, 51, 76]),
        (0, [True, 26, 51, 76]),
        (0, [1.5, 26, 51, 76]),
    ],
)
def test_a_picture_without_a_frame_is_named(index: object, numbers: list[object]) -> None:
    with pytest.raises(BadRequest, match=f"names no frame for picture {index}: {PREPARE}"):
        parse_click_prompts([clicked(index)], CONTROLS, DATA | {"frame_numbers": numbers})


@pytest.mark.parametrize(("x", "y"), [(-0.1, 50), (100.1, 50), (50, -1), (50, 101), (float("nan"), 5), (10**400, 5)])
def test_a_point_outside_the_picture_is_to_be_deleted(x: float, y: float) -> None:
    with pytest.raises(BadRequest, match="lies outside the picture: delete it"):
        parse_click_prompts([clicked(x=x, y=y)], CONTROLS, DATA)


@pytest.mark.parametrize(("x", "y"), [(None, 5), (5, None), ("5", 5), (True, 5), (5, False), ([5], 5)])
def test_a_point_without_a_place_is_to_be_deleted(x: object, y: object) -> None:
    with pytest.raises(BadRequest, match="a point has no position: delete it"):
        parse_click_prompts([clicked(x=x, y=y)], CONTROLS, DATA)


@pytest.mark.parametrize("value", [None, [], "x"])
def test_a_point_without_a_value_has_no_place(value: object) -> None:
    with pytest.raises(BadRequest, match="has no position"):
        parse_click_prompts([clicked(value=value)], CONTROLS, DATA)


@given(
    x=st.floats(0, 100),
    y=st.floats(0, 100),
    index=st.integers(0, 3),
    numbers=st.lists(st.integers(1, 10**6), min_size=4),
)
def test_every_place_in_the_picture_is_one(x: float, y: float, index: int, numbers: list[int]) -> None:
    data = {"frames": [f"/{number}.jpg" for number in numbers], "frame_numbers": numbers}
    (one,) = parse_click_prompts([clicked(index, x, y)], CONTROLS, data)
    assert one.clicks == (Click("mdSQW30PZR", numbers[index], x, y, True),)
