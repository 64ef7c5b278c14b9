import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import BadRequest
from backend.jobs.spec import OBJECT_TRACK, ExemplarBox, FramePrompts, JobSpec
from backend.tracks.frame_range import FrameRange
from backend.tracks.geometry import Box
from backend.tracks.prompts import Exemplar, Phrase, Point
from backend.video import VideoInfo

VIDEO = VideoInfo.evenly_spaced(100, 25, (640, 360))
BOX = (10.0, 20.0, 30.0, 40.0, 0.0)

frames = st.integers(1, 10**8)
percents = st.floats(0, 100)
shown = st.builds(
    FramePrompts,
    frames,
    st.none() | st.tuples(percents, percents, percents, percents, st.floats(-180, 180)),
    st.lists(st.tuples(percents, percents, st.booleans()), max_size=3).map(tuple),
)
specs = st.builds(
    JobSpec,
    task=st.text(),
    project=st.text(),
    url=st.text(),
    framerate=st.floats(0.1, 1000),
    length=st.none() | frames,
    max_frames=st.integers(0, 10**6),
    prompts=st.lists(shown, max_size=3).map(tuple),
    intervals=st.lists(st.tuples(st.none() | frames, st.none() | frames), max_size=3).map(tuple),
    ranges=st.lists(st.builds(FrameRange, frames, frames), max_size=2).map(tuple),
    phrases=st.lists(st.text(), max_size=3).map(tuple),
    exemplars=st.lists(
        st.builds(ExemplarBox, frames, st.tuples(percents, percents, percents, percents, percents), st.booleans()),
        max_size=2,
    ).map(tuple),
)


@given(specs)
def test_a_spec_survives_json(spec: JobSpec) -> None:
    assert JobSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("text", ["", "null", "{}", "[1]", '{"shown": 3}', '{"task": "1"}'])
def test_invalid_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        JobSpec.from_json(text)


def test_exemplars_become_a_phrase_on_each_of_their_frames_in_the_direction_of_the_box() -> None:
    shown = (FramePrompts(21, BOX),)
    exemplars = (ExemplarBox(21, BOX), ExemplarBox(31, BOX), ExemplarBox(21, (50.0, 50.0, 10.0, 10.0, 0.0), False))
    asked = spec(prompts=shown, intervals=((None, 21),), phrases=("like red car",), exemplars=exemplars)
    schedule = asked.resolve(VIDEO).propagation.schedule
    example, wrong = Exemplar(Box(64, 72, 256, 216)), Exemplar(Box(320, 180, 384, 216), positive=False)
    assert schedule.prompts[1:] == [
        [Phrase("red car", 20, (example, wrong), "like red car")],
        [Phrase("red car", 30, (example,), "like red car")],
    ]
    assert schedule.passes == [(range(31), True)]
    assert (asked.kind, spec(phrases=("like",)).kind) == ("like", "words")


@pytest.mark.parametrize(("exemplar", "sentence"), [((400, BOX), "frame 400"), ((1, (200.0, *BOX[1:])), "outside")])
def test_an_exemplar_outside_the_video_is_refused(exemplar, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        spec(phrases=("like",), exemplars=(ExemplarBox(*exemplar),)).resolve(VIDEO)


def spec(**asked) -> JobSpec:
    return JobSpec(task="7", project="3", url="/clip.mp4", framerate=25, **asked)


def test_boxes_and_clicks_become_prompts_in_pixels_and_intervals_in_source_frames() -> None:
    shown = (FramePrompts(51, None, ((50.0, 50.0, True),)), FramePrompts(1, BOX, ((10.0, 10.0, False),)))
    schedule = spec(prompts=shown, intervals=((1, 51), (51, None))).resolve(VIDEO).propagation.schedule
    ((first,), (second,)) = schedule.prompts
    assert (first.track, first.frame, first.box) == (OBJECT_TRACK, 0, Box(64, 72, 256, 216))
    assert first.points == (Point(64, 36, positive=False),)
    assert (second.frame, second.points) == (50, (Point(320, 180),))
    assert schedule.passes == [(range(100), False), (range(51), True)]


def test_two_ls_frames_of_one_picture_are_one_prompt() -> None:
    shown = (FramePrompts(1, BOX), FramePrompts(2, None, ((50.0, 50.0, True),)))
    resolved = JobSpec("7", "3", "/clip.mp4", 50.0, prompts=shown, intervals=((1, 2),)).resolve(VIDEO)
    ((prompt,),) = resolved.propagation.schedule.prompts
    assert (prompt.frame, prompt.box is not None, len(prompt.points)) == (0, True, 1)


def test_a_range_is_processed_with_the_frames_that_lead_to_it() -> None:
    asked = spec(prompts=(FramePrompts(1, BOX),), intervals=((1, None),), ranges=(FrameRange(20, 40),))
    assert asked.resolve(VIDEO).propagation.schedule.passes == [(range(40), False)]
    phrases = spec(phrases=("car", "dog"), ranges=(FrameRange(20, 40),)).resolve(VIDEO).propagation.schedule
    assert phrases.prompts == [[Phrase("car", 19), Phrase("dog", 19)]]
    assert phrases.passes == [(range(19, 40), False)]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prompts": (FramePrompts(500, BOX),), "intervals": ((500, None),)}, "there is no frame 500"),
        ({"prompts": (FramePrompts(1, (120, 20, 5, 5, 0)),), "intervals": ((1, None),)}, "outside the picture"),
        ({"phrases": ("car",), "ranges": (FrameRange(500, 500),)}, "there is no frame 500"),
    ],
)
def test_prompts_outside_the_video_are_refused(asked: dict, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        spec(**asked).resolve(VIDEO)


def test_a_prompt_after_the_last_picture_is_on_the_last_picture() -> None:
    resolved = spec(length=101, prompts=(FramePrompts(101, BOX),), intervals=((101, None),)).resolve(VIDEO)
    assert resolved.propagation.schedule.passes == [(range(99, 100), False)]
