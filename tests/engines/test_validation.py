"""What every engine refuses, and what it makes of several prompts of one track."""

import numpy as np
import pytest

from backend.engines.validation import merge_prompts, validate_frame, validate_span
from backend.errors import BadRequest
from backend.tracks.geometry import Box
from backend.tracks.prompts import Phrase, Point, Prompt
from tests.engines.contract import FakeVideo

VIDEO = FakeVideo([np.zeros((20, 30, 3), np.uint8)] * 5)
HERE = Point(3, 4)


def test_prompts_lie_on_one_frame():
    assert validate_frame([Prompt("a", 2, points=(HERE,)), Phrase("car", 2)], VIDEO) == 2


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ([], "on 0 frames"),
        ([Prompt("a", 0, points=(HERE,)), Phrase("car", 1)], "on 2 frames"),
        ([Phrase("car", 5)], "frames 0 to 4"),
    ],
)
def test_no_prompts_prompts_on_several_frames_and_outside_the_video_are_refused(prompts, said):
    with pytest.raises(BadRequest, match=said):
        validate_frame(prompts, VIDEO)


@pytest.mark.parametrize("span", [range(5), range(4, 5), range(3, 3), range(9, 9)])
def test_spans_in_the_video_and_empty_ones_are_taken(span):
    assert validate_span(span, VIDEO) == span


@pytest.mark.parametrize("span", [range(6), range(-1, 3), range(5, 7)])
def test_spans_that_reach_outside_are_refused(span):
    with pytest.raises(BadRequest, match=r"its frames are 0\.\.5"):
        validate_span(span, VIDEO)


def test_a_span_has_steps_of_one():
    with pytest.raises(ValueError, match="not 2"):
        validate_span(range(0, 5, 2), VIDEO)


def test_points_of_a_track_add_up_and_its_last_box_holds():
    first, second = Box(1, 1, 5, 5), Box(2, 2, 6, 6)
    shown = merge_prompts(
        [
            Prompt("a", 0, box=first, points=(HERE,)),
            Prompt("b", 0, points=(HERE,)),
            Prompt("a", 0, points=(Point(5, 6, positive=False),)),
            Prompt("a", 0, box=second),
        ],
        VIDEO,
    )
    assert list(shown) == ["a", "b"]
    assert shown["a"].box == second
    assert shown["a"].points == (HERE, Point(5, 6, positive=False))
    assert shown["b"].box is None


def test_a_mask_stands_alone_whatever_came_before_or_after():
    mask = np.ones((20, 30), bool)
    painted, clicked = Prompt("a", 0, mask=mask), Prompt("a", 0, points=(HERE,))
    assert merge_prompts([clicked, painted], VIDEO)["a"].points == ()
    assert merge_prompts([painted, clicked], VIDEO)["a"].mask is None


def test_a_box_is_clipped_to_the_picture():
    assert merge_prompts([Prompt("a", 0, box=Box(-5, 10, 40, 90))], VIDEO)["a"].box == Box(0, 10, 30, 20)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (Prompt("a", 0, box=Box(31, 2, 40, 9)), "the box lies outside the picture of 30 x 20"),
        (Prompt("a", 0, box=Box(-9, 2, 0, 9)), "the box lies outside"),
        (Prompt("a", 0, points=(HERE, Point(30.5, 4))), "a point lies outside"),
        (Prompt("a", 0, points=(Point(3, -1),)), "a point lies outside"),
        (Prompt("a", 0, points=(Point(float("nan"), 1),)), "a point lies outside"),
        (Prompt("a", 0, mask=np.ones((30, 20), bool)), "30 x 20"),
        (Prompt("a", 0, mask=np.zeros((20, 30), bool)), "the mask is empty"),
    ],
)
def test_what_lies_outside_the_picture_is_refused(prompt, said):
    with pytest.raises(BadRequest, match=said):
        merge_prompts([prompt], VIDEO)


def test_the_picture_s_edges_are_in_it():
    assert merge_prompts([Prompt("a", 0, points=(Point(0, 0), Point(30, 20)))], VIDEO)
