import re
from pathlib import Path

import pytest

from backend.errors import BadRequest
from backend.labelstudio.label_config import LabelConfig, parse_label_config
from tests.labelstudio.bodies import CONFIG

SHIPPED = (Path(__file__).parents[2] / "label_config.xml").read_text(encoding="utf-8")
FRAMED = '<Video name="video" value="$video" framerate="$fps"/><VideoRectangle name="box" toName="video"/>'
STRIP = '<Image name="frames" valueList="$frames"/>'


def config(*tags: str) -> LabelConfig:
    """One of a video with boxes and these tags."""
    return parse_label_config(f"<View>{FRAMED}{''.join(tags)}</View>")


def labelled(*labels: str) -> LabelConfig:
    return config('<Labels name="kind" toName="video">', *labels, "</Labels>")


def test_the_shipped_form_is_understood() -> None:
    config = parse_label_config(CONFIG)
    assert config.rectangles == {"box": "video"}
    assert config.labels == {"video": ("Car", "Person")}
    assert config.commands == {"track (t)"}
    assert config.videos["video"].url({"data": {"video": "/data/upload/1/a.mp4"}}) == "/data/upload/1/a.mp4"


def test_other_names_work_too() -> None:
    config = parse_label_config(
        '<View><Video name="film" value="$clip"/><VideoRectangle name="rect" toName="film"/>'
        '<Labels name="kind" toName="film"><Label value="Ball"/></Labels></View>'
    )
    assert config.rectangles == {"rect": "film"}
    assert config.classes((), "film") == ("Ball",)


def test_a_command_is_no_class_and_an_unknown_label_is_named() -> None:
    config = parse_label_config(CONFIG)
    assert config.classes(("Car", "track (t)"), "video") == ("Car",)
    assert config.classes(("track (t)",), "video") == ("Car",)
    with pytest.raises(BadRequest, match='"Truck" is not in the label config, which has: Car, Person'):
        config.classes(("Truck",), "video")


def test_a_label_is_known_by_its_alias_and_one_from_the_task_is_not_refused() -> None:
    tags = '<Video name="v" value="$v"/><VideoRectangle name="b" toName="v"/>'
    alias = parse_label_config(
        f'<View>{tags}<Labels name="l" toName="v"><Label value="Brand" alias="B"/></Labels></View>'
    )
    assert alias.classes(("B",), "v") == ("B",)
    dynamic = parse_label_config(f'<View>{tags}<Labels name="l" toName="v" value="$classes"/></View>')
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
        ('frameRate="$fps"', {"fps": 30}, 30),
        ('FRAMERATE="12"', {}, 12),
        ('framerate="$meta.fps"', {"meta": {"fps": 50}}, 50),
        ('framerate="$meta.fps"', {"meta.fps": 15, "meta": {"fps": 50}}, 15),
        ('framerate="$rates[1]"', {"rates": [10, 12.5]}, 12.5),
        ('framerate="$rates[9]"', {"rates": [10, 12.5]}, 24),
        ('framerate="0.04"', {}, 25),
        ('framerate="$fps"', {"fps": 0}, 24),
        ('framerate="$fps"', {"fps": None}, 24),
        ('framerate="$fps"', {"fps": " 25 "}, 25),
        ('framerate="nan"', {}, 24),
    ],
)
def test_the_framerate_is_the_one_the_page_counts_with(framerate: str, data: dict, rate: float) -> None:
    config = parse_label_config(
        f'<View><Video name="v" value="$video" {framerate}/><VideoRectangle name="b" toName="v"/></View>'
    )
    assert config.videos["v"].rate(data) == rate


def test_tags_and_attributes_may_be_written_in_any_case() -> None:
    mine = parse_label_config(
        '<View><LABELS NAME="kind" TONAME="clip"><label Value="Cat"/></LABELS>'
        '<video Name="clip" Value="$media.files[0].url"/><videoRectangle name="rect" toname="clip"/>'
        '<textarea name="text_prompt" toname="clip"/><keypointlabels name="dots" toname="stills"/>'
        '<image name="stills" valuelist="$stills"/></View>'
    )
    assert (mine.rectangles, mine.labels, mine.words) == ({"rect": "clip"}, {"clip": ("Cat",)}, {"text_prompt": "clip"})
    assert mine.points["dots"].pictures == "$stills"
    assert mine.video.url({"data": {"media": {"files": [{"url": "/data/cat.mp4"}]}}}) == "/data/cat.mp4"
    assert mine.video.address({"media": {"files": []}}) == ""


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
        parse_label_config(xml)


def test_a_task_without_the_video_says_which_field_is_missing() -> None:
    with pytest.raises(BadRequest, match='needs the field "video"'):
        parse_label_config(CONFIG).videos["video"].url({"data": {"image": "x"}})


def test_the_shipped_config_is_understood_whole() -> None:
    shipped = parse_label_config(SHIPPED)
    assert shipped.rectangles == {"box": "video"}
    assert shipped.labels == {"video": ("Car", "Person", "Ball")}
    assert shipped.commands == {"▶ t"}
    assert shipped.words == {"text_prompt": "video"}
    assert shipped.lines == {"region_prompt"}
    assert {name: control.pictures for name, control in shipped.points.items()} == {"points": "$frames"}
    assert shipped.phrases == {"Car": "car", "Person": "person", "Ball": "ball"}
    assert shipped.notes == ()
    assert shipped.describe() == [
        "boxes: box",
        "words: text_prompt",
        "commands of a region: region_prompt",
        "clicks: points",
        "track key: ▶ t",
    ]


def test_everything_may_have_other_names() -> None:
    mine = parse_label_config(
        '<View><Video name="film" value="$clip" framerate="$rate"/><VideoRectangle name="rect" toName="film"/>'
        '<TextArea name="find" toName="film" smartOnly="true"/>'
        '<TextArea name="order" toName="film" perRegion="true" smartOnly="true"/>'
        '<KeyPointLabels name="dots" toName="stills"><Label value="this"/></KeyPointLabels>'
        '<Image name="stills" valueList="$stills"/></View>'
    )
    assert (mine.words, mine.lines) == ({"find": "film"}, {"order"})
    assert (mine.points["dots"].pictures, mine.points["dots"].classes) == ("$stills", {})
    assert mine.notes == ()
    assert mine.describe() == ["boxes: rect", "words: find", "commands of a region: order", "clicks: dots"]


def test_a_text_is_ours_by_name_or_purpose_and_all_others_are_the_annotators() -> None:
    notes = '<TextArea name="remarks" toName="video"/><TextArea name="look" toName="video" perRegion="true"/>'
    ours = (
        '<TextArea name="text_prompt" toName="video"/><TextArea name="region_prompt" toName="video" perRegion="true"/>'
    )
    both = config(notes, ours)
    assert (both.words, both.lines) == ({"text_prompt": "video"}, {"region_prompt"})
    alone = config(notes, '<TextArea name="more" toName="video"/>')
    assert (alone.words, alone.lines) == ({}, frozenset())
    named = config(notes, '<TextArea name="Prompt" toName="video"/>')
    assert (named.words, named.lines) == ({"Prompt": "video"}, frozenset())
    made = config(notes, '<TextArea name="ask" toName="video" smartOnly="true" perRegion="true"/>')
    assert (made.words, made.lines) == ({}, {"ask"})


def test_a_text_of_a_video_that_has_no_boxes_is_no_line() -> None:
    other = config(
        '<Video name="film" value="$film" framerate="$fps"/><TextArea name="text_prompt" toName="film"/>', STRIP
    )
    assert (other.words, other.lines) == ({}, frozenset())
    assert config(STRIP, '<TextArea name="text_prompt" toName="frames"/>').words == {}


@pytest.mark.parametrize("picture", ['valueList="$frames"', 'value="$frames"'])
def test_points_are_clicks_where_they_lie_on_pictures(picture: str) -> None:
    dots = '<KeyPointLabels name="dots" toName="{}"><Label value="object 1"/></KeyPointLabels>'
    there = config(dots.format("frames"), f'<Image name="frames" {picture}/>')
    assert there.points["dots"].pictures == "$frames"
    assert config(dots.format("nowhere"), STRIP).points == {}


def test_what_is_clicked_gets_the_class_that_its_label_says_or_is_or_the_only_one() -> None:
    mine = config(
        '<Labels name="kind" toName="video"><Label value="Car"/><Label value="Ball"/></Labels>',
        STRIP,
        '<KeyPointLabels name="dots" toName="frames">',
        '<Label value="object 1" class="Ball"/><Label value="object 2"/><Label value="Ball"/>',
        '<Label value="object 3" alias="3" class="Ball"/><Label value="object 4" class="Bus"/></KeyPointLabels>',
    )
    given = ("object 1", "object 2", "Ball", "3", "object 4", "unknown")
    assert [mine.click_classes("dots", label, "video") for label in given] == [
        ("Ball",),
        (),
        ("Ball",),
        ("Ball",),
        (),
        (),
    ]
    one = config(
        '<Labels name="kind" toName="video"><Label value="Car"/></Labels>',
        STRIP,
        '<KeyPointLabels name="dots" toName="frames"><Label value="object 1"/></KeyPointLabels>',
    )
    assert one.click_classes("dots", "object 1", "video") == ("Car",)
    bare = config(STRIP, '<KeyPointLabels name="dots" toName="frames"><Label value="object 1"/></KeyPointLabels>')
    assert bare.click_classes("dots", "object 1", "video") == ()


def test_the_words_of_a_label_are_those_that_it_gives_or_its_name() -> None:
    mine = labelled(
        '<Label value="Car" phrase="red car"/>',
        '<Label value="Person" predicted_values="pedestrian"/>',
        '<Label value="Ball" phrase=" " predicted_values=""/>',
        '<Label value="Hund" alias="Dog"/>',
        '<Label value="Bus" phrase="coach" predicted_values="bus"/>',
    )
    assert mine.phrases == {"Car": "red car", "Person": "pedestrian", "Ball": "ball", "Dog": "dog", "Bus": "coach"}


def test_keys_to_press_stand_for_no_words() -> None:
    assert "track (t)" not in parse_label_config(CONFIG).phrases


@pytest.mark.parametrize(
    ("phrase", "named"),
    [
        ("car", ("Car",)),
        ("Car", ("Car",)),
        ("red  CAR", ("Car",)),
        ("fire truck", ("Engine",)),
        ("big fire truck", ("Engine",)),
        ("truck", ()),
        ("old truck", ("Lorry",)),
        ("lorry", ("Lorry",)),
        ("engine", ("Engine",)),
        ("car park", ()),
        ("scar", ()),
        ("dog", ()),
        ("", ()),
    ],
)
def test_a_phrase_means_the_class_whose_words_it_ends_with(phrase: str, named: tuple[str, ...]) -> None:
    mine = labelled(
        '<Label value="Car"/><Label value="Lorry" phrase="old truck"/><Label value="Engine" phrase="fire truck"/>'
    )
    assert mine.classes_of_phrase(phrase, "video") == named


def test_a_phrase_that_could_mean_two_classes_means_none_unless_it_is_ones_own_words() -> None:
    mine = labelled('<Label value="Car"/><Label value="Race Car"/>')
    assert mine.classes_of_phrase("fast race car", "video") == ()
    assert mine.classes_of_phrase("race car", "video") == ("Race Car",)
    assert mine.classes_of_phrase("fast car", "video") == ("Car",)
    assert mine.classes_of_phrase("car", "film") == ()


@pytest.mark.parametrize(
    ("tags", "sentence"),
    [
        ('<KeyPointLabels name="dots" toName="video"/>', '"dots" breaks the page: .* toName at <Image name="frames"'),
        ('<KeyPointLabels name="dots" toName="video" smart="false"/>', '"dots" breaks the page'),
        (
            STRIP + '<KeyPointLabels name="dots" toName="frames" smart="false"/>',
            'clicks of "dots" send no requests: remove its smart="false"',
        ),
        (
            '<TextArea name="prompt" toName="video" smart="false"/>',
            '"prompt" sends no requests: replace its smart="false" by smartOnly="true"',
        ),
        ('<VideoRectangle name="rect" toName="video" smart="false"/>', '"rect" sends no requests'),
        ('<View><VideoVector name="v" toName="video"/></View>', "VideoVector exists only in Label Studio Enterprise"),
        ('<ReactCode name="r" toName="video"/>', "ReactCode exists only in Label Studio Enterprise"),
        (
            '<Video name="film" value="$film"/>',
            'counted at 24 a second: add framerate="\\$fps" to the Video "film", and fps to the tasks',
        ),
        ('<Video name="film" value="$film" framerate=""/>', "counted at 24 a second"),
    ],
)
def test_what_cannot_be_prompted_is_noted_last(tags: str, sentence: str) -> None:
    noted = config(tags)
    assert len(noted.notes) == 1
    assert re.match(f"^.*{sentence}", noted.notes[0])
    assert noted.describe()[-1] == noted.notes[0]


@pytest.mark.parametrize(
    "tags",
    [
        '<TextArea name="text_prompt" toName="video" smart="true"/>',
        '<TextArea name="remarks" toName="video" smart="false"/>',
        '<TextArea name="remarks" toName="frames" smart="false"/>' + STRIP,
        STRIP + '<KeyPointLabels name="dots" toName="frames" smart="true"/>',
        '<Labels name="kind" toName="video" smart="false"/>',
    ],
)
def test_nothing_is_noted_of_what_works(tags: str) -> None:
    assert config(tags).notes == ()


def test_what_is_missing_is_said() -> None:
    assert config().describe() == [
        "boxes: box",
        'no words: no TextArea of the video is named "text_prompt"',
        "no clicks: there is no strip of frames",
    ]
