"""The clips: the same from the same seed, and their truth true."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.shapes import COLOURS, CROSSING, CROWDED, EASY, SHAPES, WORDS, Clip, Recipe, ShapePhrase
from backend.video import Video

RECIPES = {"easy": EASY, "crowded": CROWDED, "crossing": CROSSING, "words": WORDS}
SMALL = {"size": (160, 90), "frames": 12}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_a_seed_and_a_recipe_are_one_clip(recipe):
    recipe = replace(recipe, **SMALL)
    one, same, other = Clip(5, recipe), Clip(5, recipe), Clip(6, recipe)
    assert np.array_equal(one[7].picture, same[7].picture)
    assert np.array_equal(one[7].masks, same[7].masks)
    assert not np.array_equal(one[7].picture, other[7].picture)


def test_a_frame_is_the_same_whatever_was_drawn_before():
    clip = Clip(1, replace(CROWDED, **SMALL))
    alone = Clip(1, replace(CROWDED, **SMALL))[9]
    in_order = list(clip)[9]
    assert np.array_equal(alone.picture, in_order.picture)
    assert np.array_equal(alone.masks, in_order.masks)


@pytest.mark.parametrize("number", [-1, 12])
def test_a_frame_outside_is_an_error(number):
    with pytest.raises(IndexError):
        Clip(0, replace(EASY, **SMALL))[number]


@given(seed=st.integers(0, 10**9), name=st.sampled_from(sorted(RECIPES)), number=st.integers(0, 11))
def test_no_pixel_belongs_to_two_objects_and_boxes_touch_their_masks(seed, name, number):
    clip = Clip(seed, replace(RECIPES[name], **SMALL))
    frame = clip[number]
    assert frame.picture.shape == (90, 160, 3)
    assert frame.masks.shape == (len(clip.things), 90, 160)
    assert (frame.masks.sum(0) <= 1).all()
    low, high = RECIPES[name].things
    assert len(clip.things) <= high
    assert low == 1 or len(clip.things) >= 1
    for mask, box, area in zip(frame.masks, frame.boxes, frame.areas, strict=True):
        assert np.isnan(box).all() == (area == 0)
        if area:
            x0, y0, x1, y1 = box.astype(int)
            assert mask[y0:y1, x0:x1].sum() == area
            assert mask[y0].any()
            assert mask[y1 - 1].any()
            assert mask[:, x0].any()
            assert mask[:, x1 - 1].any()
    if clip.post is not None:
        assert not frame.masks[(slice(None), *clip.post)].any()


def test_masks_are_where_the_colours_are():
    clip = Clip(3, Recipe(things=(3, 5), plain=True, post=1.0))
    frame = clip[20]
    for thing, mask in zip(clip.things, frame.masks, strict=True):
        # The rim is mixed with what lies behind.
        inside = mask & ~np.roll(~mask, (1, 0), (0, 1)) & ~np.roll(~mask, 1, 1) & ~np.roll(~mask, -1, 1)
        inside &= ~np.roll(~mask, (-1, 0), (0, 1))
        assert np.abs(frame.picture[inside] - np.array(thing.rgb)).max(initial=0) <= 1.5


def test_objects_move_on_a_line_between_two_walls():
    for seed in range(20):
        for thing in Clip(seed, EASY).things:
            centres = np.array([thing.centre(frame) for frame in range(200)])
            assert (centres >= thing.lows - 1e-6).all()
            assert (centres <= thing.highs + 1e-6).all()
            steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
            assert steps.max() <= np.linalg.norm(thing.velocity) + 1e-6
            assert np.median(steps) == pytest.approx(np.linalg.norm(thing.velocity))


def test_some_leave_and_come_back():
    clips = [Clip(seed, replace(EASY, size=(160, 90), frames=200, strays=1.0, speed=(0.02, 0.03))) for seed in range(5)]
    back = 0
    for clip in clips:
        seen = np.array([frame.areas > 0 for frame in clip])
        turns = np.diff(seen.astype(int), axis=0)
        back += ((turns == 1).sum(0) > 0).sum()
    assert back >= 3


def test_some_vanish_for_a_while():
    clip = Clip(0, replace(EASY, **SMALL, things=(5, 5), blinks=1.0))
    for row, thing in enumerate(clip.things):
        assert len(thing.away)
        assert all(not clip[frame].masks[row].any() for frame in thing.away if frame < len(clip))


def test_a_post_hides_and_without_one_nothing_does():
    assert all(Clip(seed, replace(CROWDED, **SMALL)).post is not None for seed in range(10))
    assert all(Clip(seed, replace(EASY, **SMALL)).post is None for seed in range(10))


def test_equal_twins_look_alike_and_meet():
    met = 0
    for seed in range(20):
        clip = Clip(seed, CROSSING)
        one, other = clip.things[:2]
        assert (one.shape, one.colour, one.rgb, one.radius) == (other.shape, other.colour, other.rgb, other.radius)
        near = min(np.linalg.norm(one.centre(frame) - other.centre(frame)) for frame in range(len(clip)))
        met += bool(near < one.radius)
    assert met == 20


def test_phrases_name_what_they_say():
    clip = Clip(2, replace(WORDS, **SMALL, things=(12, 12)))
    for colour in (None, *COLOURS):
        for shape in (None, *SHAPES):
            named = [clip.things[row] for row in clip.named(ShapePhrase(colour, shape))]
            assert all(colour in (None, thing.colour) and shape in (None, thing.shape) for thing in named)
            others = len(clip.things) - len(named)
            assert others == sum(
                (colour not in (None, thing.colour)) or (shape not in (None, thing.shape)) for thing in clip.things
            )
    assert ShapePhrase("red", "circle").text() == "red circle"
    assert ShapePhrase(None, "star").text(plural=True) == "stars"
    assert ShapePhrase("blue", None).text() == "blue shape"
    assert ShapePhrase(None, None).text() == "shape"


def test_a_saved_clip_is_the_clip(tmp_path):
    clip = Clip(4, replace(EASY, **SMALL, plain=True))
    clip.save(tmp_path / "clip.mp4", 30)
    with Video(tmp_path / "clip.mp4") as video:
        assert (len(video), video.width, video.height, video.rate) == (12, 160, 90, 30)
        read = video.read(6).astype(int)
    assert np.abs(read - clip[6].picture).mean() < 6
