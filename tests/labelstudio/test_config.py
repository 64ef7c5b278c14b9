import pytest

from backend.errors import BadRequest
from backend.labelstudio.config import parse
from tests.labelstudio.bodies import CONFIG


def test_the_shipped_form_is_understood() -> None:
    config = parse(CONFIG)
    assert config.rectangles == {"box": "video"}
    assert config.labels == {"video": ("Car", "Person")}
    assert config.commands == {"track (t)"}
    assert config.videos["video"].url({"video": "/data/upload/1/a.mp4"}) == "/data/upload/1/a.mp4"


def test_other_names_work_too() -> None:
    config = parse(
        '<View><Video name="film" value="$clip"/><VideoRectangle name="rect" toName="film"/>'
        '<Labels name="kind" toName="film"><Label value="Ball"/></Labels></View>'
    )
    assert config.rectangles == {"rect": "film"}
    assert config.classes((), "film") == ("Ball",)


def test_a_command_is_no_class_and_an_unknown_label_is_named() -> None:
    config = parse(CONFIG)
    assert config.classes(("Car", "track (t)"), "video") == ("Car",)
    assert config.classes(("track (t)",), "video") == ("Car",)
    with pytest.raises(BadRequest, match='"Truck" is not in the label config, which has: Car, Person'):
        config.classes(("Truck",), "video")


def test_a_label_is_known_by_its_alias_and_one_from_the_task_is_not_refused() -> None:
    tags = '<Video name="v" value="$v"/><VideoRectangle name="b" toName="v"/>'
    alias = parse(f'<View>{tags}<Labels name="l" toName="v"><Label value="Brand" alias="B"/></Labels></View>')
    assert alias.classes(("B",), "v") == ("B",)
    dynamic = parse(f'<View>{tags}<Labels name="l" toName="v" value="$classes"/></View>')
    assert dynamic.classes(("whatever",), "v") == ("whatever",)


@pytest.mark.parametrize(
    ("framerate", "data", "rate"),
    [
        ('framerate="29.97"', {}, 29.97),
        ('framerate="$fps"', {"fps": 59.94}, 59.94),
        ('framerate="$fps"', {"fps": "25"}, 25),
        ('framerate="$fps"', {}, 24),
        ('framerate="fast"', {}, 24),
        ("", {"fps": 25}, 24),
    ],
)
def test_the_framerate_is_the_one_the_page_counts_with(framerate: str, data: dict, rate: float) -> None:
    config = parse(f'<View><Video name="v" value="$video" {framerate}/><VideoRectangle name="b" toName="v"/></View>')
    assert config.videos["v"].rate(data) == rate


@pytest.mark.parametrize(
    ("xml", "sentence"),
    [
        ("<View><Video", "not valid XML"),
        ("", "not valid XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><View>&a;</View>', "not valid XML"),
        ("<View/>", "no Video tag"),
        ('<View><Image name="i" value="$i"/><RectangleLabels name="r" toName="i"/></View>', "no Video tag"),
        ('<View><Video name="v" value="$v"/></View>', "cannot draw boxes"),
        ('<View><Video name="v" value="$v"/><VideoRectangle name="b" toName="w"/></View>', "cannot draw boxes"),
    ],
)
def test_a_config_that_cannot_be_prompted_says_what_to_add(xml: str, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        parse(xml)


def test_a_task_without_the_video_says_which_field_is_missing() -> None:
    with pytest.raises(BadRequest, match='needs the field "video"'):
        parse(CONFIG).videos["video"].url({"image": "x"})
